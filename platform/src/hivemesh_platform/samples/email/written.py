"""The messages written for the sample: half a year in the mail of a small design studio.

Everybody and everything in them is made up. All addresses end in example.com, .org or .net.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import default
from email.utils import format_datetime

ME = "Mira Kowalczyk <mira@northlight.example.com>"
JONAS = "Jonas Weber <jonas@northlight.example.com>"
AMARA = "Amara Okafor <amara@northlight.example.com>"
ELEANOR = "Eleanor Shaw <eleanor@harbour-books.example.org>"
TOMAS = "Tomás Rey <tomas.rey@example.net>"
LENA = "Lena Brandt <lena.brandt@example.org>"
STUDIO = "studio@northlight.example.com"
MARK = "written for the Hivemesh sample"
_POLICY = default.clone(cte_type="8bit", max_line_length=200)


@dataclass(frozen=True, kw_only=True)
class Written:
    """One message, as its author thinks of it."""

    name: str  # the local part of its Message-ID
    sender: str
    date: str  # ISO 8601 with offset
    subject: str
    text: str = ""
    html: str = ""
    to: str = ME
    cc: str = ""
    answers: str = ""  # name of the message that this one answers
    headers: dict[str, str] = field(default_factory=dict)
    pdf: str = ""  # name of an attached PDF
    calendar: str = ""  # name of an attached calendar file


def written() -> list[EmailMessage]:
    """Every message, in order of date."""
    every = sorted([*bills(), *receipts(), *newsletters(), *notifications(), *letters()], key=_when)
    names = {one.name: one for one in every}
    return [_message(one, names) for one in every]


def bills() -> Iterator[Written]:
    """Power, hosting, phone, rent, insurance, an accountant, a printer, paper."""
    for month, amount in ((1, "84.20"), (3, "91.75"), (5, "62.40")):
        yield Written(
            name=f"power-{month}",
            sender="Coastline Energy <billing@coastline-energy.example.net>",
            date=f"2025-0{month}-08T06:15:00+00:00",
            subject=f"Your electricity bill: {amount} EUR is due",
            text=f"""Dear Northlight Studio,

your electricity bill for the last two months is ready.

Customer number: 20 118 440
Consumption: 312 kWh
Energy             {float(amount) * 0.7:.2f} EUR
Grid and levies    {float(amount) * 0.3:.2f} EUR
Amount due:        {amount} EUR

Please pay by the 22nd. We will collect the amount from your account.

Coastline Energy
""",
            pdf=f"bill-2025-0{month}.pdf",
        )
    for month, amount in ((1, "39.00"), (2, "39.00"), (3, "39.00"), (4, "57.60"), (5, "57.60")):
        yield Written(
            name=f"hosting-{month}",
            sender="Rackwell Hosting <invoices@rackwell.example.com>",
            date=f"2025-0{month}-01T04:00:12+00:00",
            subject=f"Invoice RW-2025-0{month}17 from Rackwell Hosting",
            html=f"""<html><body><h2>Invoice RW-2025-0{month}17</h2>
<p>Dear customer, this is your invoice for managed hosting. Payment is due within 14 days.</p>
<table><tr><td>Managed server, 1 month</td><td>${amount}</td></tr>
<tr><td>Support</td><td>$0.00</td></tr>
<tr><td><b>Total due</b></td><td><b>${amount}</b></td></tr></table>
<p>Pay online at billing.rackwell.example.com. Late payment: 1.5% a month.</p></body></html>""",
            pdf=f"RW-2025-0{month}17.pdf",
        )
    for month, gross, tax in (
        (2, "129,99", "24,31"),
        (4, "1 129,99", "211,29"),
        (6, "129,99", "24,31"),
    ):
        yield Written(
            name=f"phone-{month}",
            sender="Faktury Bałtyk Telekom <faktury@baltyk-telekom.example.org>",
            date=f"2025-0{month}-12T10:30:00+01:00",
            subject=f"Faktura / invoice 000{month}/2025",
            text=f"""Dzień dobry,

w załączeniu przesyłamy fakturę za usługi telekomunikacyjne.

Numer faktury: 000{month}/2025
Termin płatności: 26.0{month}.2025
Do zapłaty / amount due: {gross} zł (w tym VAT {tax} zł)

Infolinia: +48 600 000 000

Bałtyk Telekom
""",
        )
    for month in (1, 4):
        yield Written(
            name=f"rent-{month}",
            sender="Seefeld Immobilien AG <rechnung@seefeld-immobilien.example.com>",
            date=f"2025-0{month}-02T08:05:00+01:00",
            subject=f"Rechnung Atelier Zürich, {month}. Monat 2025",
            text="""Sehr geehrte Frau Kowalczyk

Für das Atelier in Zürich stellen wir Ihnen in Rechnung:

Miete               CHF 1'850.00
Nebenkosten         CHF   210.00
Gesamtbetrag        CHF 2'060.00

Zahlbar innert 30 Tagen.

Freundliche Grüsse
Seefeld Immobilien AG
""",
        )
    yield Written(
        name="insurance",
        sender="Nordstern Versicherung <rechnung@nordstern.example.org>",
        date="2025-01-20T07:45:00+01:00",
        subject="Beitragsrechnung 2025, Betriebshaftpflicht",
        text="""Guten Tag,

Ihr Jahresbeitrag für die Betriebshaftpflicht wird fällig.

Nettobeitrag:      1.037,82 €
Versicherungsteuer:  197,18 €
Zu zahlen:         1.235,00 €

Fällig am 01.02.2025.
""",
        pdf="beitragsrechnung-2025.pdf",
    )
    yield Written(
        name="accountant",
        sender="Hartley & Moss Accountants <accounts@hartley-moss.example.com>",
        date="2025-03-31T16:20:00+01:00",
        subject="Invoice 4471: annual accounts",
        text="""Dear Mira,

please find attached our invoice for the annual accounts.

Fee                £640.00
VAT at 20%         £128.00
Total amount due   £768.00

Payment terms: 30 days. Call us on 020 7946 0000 with any question.

Hartley & Moss
""",
        pdf="invoice-4471.pdf",
    )
    yield Written(
        name="printer",
        sender="Druckhaus Lindner <buchhaltung@druckhaus-lindner.example.net>",
        date="2025-05-19T11:12:00+02:00",
        subject="Rechnung 2025-0388: Katalog Harbour Books, 2.000 Stück",
        text="""Guten Tag Frau Kowalczyk,

anbei die Rechnung zum Katalog.

2.000 Kataloge, 64 Seiten     3.480,00 €
Fadenheftung                    420,00 €
Zwischensumme                 3.900,00 €
USt. 7 %                        273,00 €
Rechnungsbetrag               4.173,00 €

Zahlbar bis 02.06.2025.
""",
        pdf="rechnung-2025-0388.pdf",
    )
    yield Written(
        name="reminder",
        sender="Rackwell Hosting <invoices@rackwell.example.com>",
        date="2025-05-20T04:00:09+00:00",
        subject="Reminder: invoice RW-2025-0517 is overdue",
        text="""Dear customer,

we have not received your payment for invoice RW-2025-0517.

Balance due: $57.60

If you have paid in the meantime, please ignore this reminder.

Rackwell Hosting
""",
    )


def receipts() -> Iterator[Written]:
    """Coffee, trains, a chair, a course, books, a taxi, a donation."""
    for number, (date, amount) in enumerate(
        (("2025-01-14T08:41", "7.80"), ("2025-02-26T08:52", "11.40"), ("2025-04-09T15:07", "6.25"))
    ):
        yield Written(
            name=f"coffee-{number}",
            sender="Kettle & Crumb <receipts@kettle-crumb.example.com>",
            date=f"{date}:00+00:00",
            subject=f"Your receipt from Kettle & Crumb (£{amount})",
            html=f"""<html><body><p>Thank you for your purchase.</p>
<table><tr><td>Flat white</td><td>&pound;3.40</td></tr>
<tr><td>Bakery</td><td>&pound;{float(amount) - 3.4:.2f}</td></tr>
<tr><td>Total</td><td>&pound;{amount}</td></tr></table>
<p>Paid by card ending 0000.</p></body></html>""",
        )
    for number, (date, route, amount) in enumerate(
        (
            ("2025-02-03T19:22", "Hamburg to Berlin", "54,90"),
            ("2025-03-27T12:48", "Berlin to Warsaw", "69,00"),
            ("2025-05-23T06:31", "Hamburg to Copenhagen", "118,80"),
        )
    ):
        yield Written(
            name=f"train-{number}",
            sender="Nordbahn Tickets <tickets@nordbahn.example.net>",
            date=f"{date}:00+01:00",
            subject=f"Booking confirmation and receipt: {route}",
            text=f"""Thank you for your booking.

{route}, 2nd class, 1 adult
Seat reservation    4,90 €
Amount paid: {amount} €

Your payment was received. Have a good journey.
""",
            pdf=f"ticket-{number + 1}.pdf",
        )
    yield Written(
        name="chair",
        sender="Lumen Office <orders@lumen-office.example.com>",
        date="2025-02-18T13:05:00+01:00",
        subject="Receipt for your order 88-20413",
        text="""Thank you for your order!

1 x Desk chair "Orla"      389,00 EUR
1 x Footrest                45,50 EUR
Delivery                     0,00 EUR
Order total                434,50 EUR

Payment received by card. Delivery on 25.02.2025.
""",
    )
    yield Written(
        name="course",
        sender="Letterform School <payments@letterform.example.org>",
        date="2025-03-05T20:14:00+00:00",
        subject="Payment receipt: Variable Type, online course",
        text="""Hello Mira,

we have received your payment. This is your receipt.

Course fee      $149.00
Student rate    -$30.00
Total paid      $119.00

See you on Monday!
""",
    )
    yield Written(
        name="books",
        sender="Harbour Books Shop <shop@harbour-books.example.org>",
        date="2025-04-22T17:36:00+01:00",
        subject="Your order has been paid, receipt HB-7713",
        text="""Thank you for your order.

The Elements of Colour      £24.99
A Field Guide to Grids      £18.50
Postage                      £3.20
Total paid                  £46.69

We will let you know when it is on its way.
""",
    )
    yield Written(
        name="taxi",
        sender="Zielone Taxi <rachunki@zielone-taxi.example.net>",
        date="2025-03-28T00:12:00+01:00",
        subject="Receipt for your ride / potwierdzenie płatności",
        text="""Thank you for riding with us. This is your receipt.

Distance 11.4 km, 23 min
Total paid: 48,70 PLN
Card ending 0000
""",
    )
    yield Written(
        name="donation",
        sender="River Watch <donations@riverwatch.example.org>",
        date="2025-06-02T09:00:00+02:00",
        subject="Thank you: receipt for your donation",
        text="""Dear Mira,

thank you. We have received your donation of 50.00 EUR on 2 June 2025.
Keep this receipt for your tax return.

River Watch
""",
    )


def newsletters() -> Iterator[Written]:
    """Two lists that come every month, and one that came thrice."""
    for month, theme in enumerate(("grids", "paper", "colour", "maps", "lettering", "posters"), 1):
        yield Written(
            name=f"pixel-{month}",
            sender="The Pixel Post <newsletter@pixelpost.example.com>",
            date=f"2025-0{month}-15T07:00:00+00:00",
            subject=f"The Pixel Post #{40 + month}: all about {theme}",
            text=f"In this issue: ten things about {theme}. Unsubscribe: https://pixelpost.example.com/u\n",
            html=f"""<html><body><h1>The Pixel Post</h1><p>In this issue: ten things about {theme},
an interview, and our reading list.</p><p><a href="https://pixelpost.example.com/{month}">Read
it in your browser</a></p><p>You get this because you subscribed.
<a href="https://pixelpost.example.com/u">Unsubscribe</a></p></body></html>""",
            headers={
                "List-Id": "The Pixel Post <news.pixelpost.example.com>",
                "List-Unsubscribe": "<https://pixelpost.example.com/u>",
                "Precedence": "bulk",
            },
        )
    for month in (2, 4, 6):
        yield Written(
            name=f"garden-{month}",
            sender="Town Garden Club <news@garden-club.example.org>",
            date=f"2025-0{month}-04T17:30:00+01:00",
            subject="Garden club newsletter: what to do this month",
            text="""Dear members,

this month: seeds, compost, and the date of the plant swap.
Membership is still 12 EUR a year.

From the beds to the table: bring a dish to the summer meeting.

To leave this list, write to news-leave@garden-club.example.org
""",
            headers={
                "List-Id": "<news.garden-club.example.org>",
                "List-Unsubscribe": "<mailto:news-leave@garden-club.example.org>",
            },
        )


def notifications() -> Iterator[Written]:
    """Parcels, log-ins, backups, a build, a calendar."""
    automatic = {"Auto-Submitted": "auto-generated"}
    for month, state in ((1, "completed"), (2, "completed"), (4, "failed"), (5, "completed")):
        yield Written(
            name=f"backup-{month}",
            sender="Rackwell Backup <no-reply@rackwell.example.com>",
            date=f"2025-0{month}-27T03:10:44+00:00",
            subject=f"[backup] northlight-web {state}",
            text=f"Backup of northlight-web {state} at 03:10 UTC. This is an automatic message.\n",
            headers=automatic,
        )
    yield Written(
        name="parcel",
        sender="Swift Parcel <notifications@swift-parcel.example.com>",
        date="2025-02-24T18:02:00+01:00",
        subject="Your parcel arrives tomorrow between 10:00 and 12:00",
        text="Your parcel 00340434 is on its way. Please do not reply to this message.\n",
        headers=automatic,
    )
    yield Written(
        name="login",
        sender="Fontshelf Security <no-reply@fontshelf.example.net>",
        date="2025-03-11T22:47:00+00:00",
        subject="New sign-in to your account",
        text="We noticed a new sign-in to your account from Berlin. If it was you, do nothing.\n",
        headers=automatic,
    )
    yield Written(
        name="build",
        sender="Build Bot <builds@northlight.example.com>",
        date="2025-04-30T14:21:00+00:00",
        subject="Build #512 failed: harbour-books-shop",
        text="Step 4 of 6 failed. Commit 9f2c1ab by Jonas Weber. This is an automatic message.\n",
        to=f"{ME}, {JONAS}",
        headers=automatic,
    )
    yield Written(
        name="review",
        sender="Calendar <calendar-notification@northlight.example.com>",
        date="2025-05-06T08:00:00+02:00",
        subject="Reminder: catalogue review, today at 14:00",
        text="Catalogue review, today 14:00 to 15:00. You receive this reminder as an attendee.\n",
        headers=automatic,
        calendar="review.ics",
    )


def letters() -> Iterator[Written]:
    """People: one job from the first question to the thanks, a lunch, a hike."""
    yield from _catalogue()
    yield from _hike()
    yield from _kitchen()
    yield from _lunch()
    yield Written(
        name="hello",
        sender=LENA,
        date="2025-01-30T21:15:00+01:00",
        subject="Greetings from Lisbon",
        text="Hi Mira,\n\nsun, tiles and very good coffee. I miss you all. How is the studio?\n\nLena\n",
    )
    yield Written(
        name="hello-back",
        sender=ME,
        to=LENA,
        date="2025-02-06T22:40:00+01:00",
        subject="Re: Greetings from Lisbon",
        answers="hello",
        text="Hi Lena,\n\nsorry that I write so late, we moved offices. Tell me more!\n\nMira\n",
    )


def _catalogue() -> Iterator[Written]:
    subject = "Spring catalogue"
    lines = (
        ("c1", ELEANOR, "2025-03-03T09:12", "", "Dear Mira,\n\nwould you have time for our spring catalogue? 64 pages, by mid May."),
        ("c2", ME, "2025-03-03T11:40", "c1", "Dear Eleanor,\n\nwith pleasure. I will send an estimate tomorrow. Jonas would do the layout."),
        ("c3", ELEANOR, "2025-03-03T11:58", "c2", "Wonderful. The texts will be ready by the end of March."),
        ("c4", ME, "2025-03-04T10:05", "c2", "Here is our plan: first proofs in the second week of April, print in May."),
        ("c5", ELEANOR, "2025-03-05T16:31", "c4", "The plan is fine with us. Please go ahead!"),
        ("c6", JONAS, "2025-04-10T17:55", "c5", "Hello Eleanor,\n\nthe first proofs are on our server. I would love to hear what you think of the cover."),
        ("c7", ELEANOR, "2025-04-11T08:20", "c6", "Hello Jonas,\n\nwe love it. Two small corrections on pages 12 and 40, see below."),
        ("c8", JONAS, "2025-04-11T09:02", "c7", "Both done, thank you."),
        ("c9", AMARA, "2025-04-11T09:30", "c8", "I checked the colours on page 40, they print well now."),
        ("c10", ELEANOR, "2025-05-26T13:17", "c6", "The catalogues have arrived and they are beautiful. Thank you all!"),
    )  # fmt: skip
    for name, sender, date, answers, text in lines:
        yield Written(
            name=name,
            sender=sender,
            to=ME if sender == ELEANOR else ELEANOR,
            cc=", ".join(one for one in (JONAS, AMARA) if one != sender),
            date=f"{date}:00+00:00",
            subject=f"Re: {subject}" if answers else subject,
            answers=answers,
            text=f"{text}\n\n{sender.split()[0]}\n",
        )


def _hike() -> Iterator[Written]:
    lines = (
        ("h1", TOMAS, "2025-04-25T20:03", "", "Hi you two,\n\nshall we walk the coast path in May?\n\nFrom the lighthouse it is four hours to the ferry."),
        ("h2", ME, "2025-04-25T21:10", "h1", "Yes! The 17th would suit me."),
        ("h3", LENA, "2025-04-27T18:45", "h1", "I am back on the 15th, so count me in."),
        ("h4", TOMAS, "2025-04-27T19:01", "h3", "Perfect, the 17th then. I bring the map, who brings the cake?"),
        ("h5", ME, "2025-04-28T07:33", "h4", "I do. Lemon or poppy seed?"),
        ("h6", LENA, "2025-04-28T07:50", "h5", "Both, of course."),
    )  # fmt: skip
    for name, sender, date, answers, text in lines:
        others = [one for one in (TOMAS, ME, LENA) if one != sender]
        yield Written(
            name=name,
            sender=sender,
            to=", ".join(others),
            date=f"{date}:00+02:00",
            subject="Re: A walk in May?" if answers else "A walk in May?",
            answers=answers,
            text=f"{text}\n\n{sender.split()[0]}\n",
        )


def _kitchen() -> Iterator[Written]:
    lines = (
        (
            "k1",
            AMARA,
            "2025-02-10T09:00",
            "",
            "Who is for a dishwasher? I am tired of washing cups.",
        ),
        ("k2", JONAS, "2025-02-10T09:04", "k1", "Me."),
        ("k3", ME, "2025-02-10T12:30", "k1", "Me too. Amara, would you look for one?"),
        ("k4", AMARA, "2025-02-12T15:20", "k3", "Found one that fits under the counter."),
    )
    for name, sender, date, answers, text in lines:
        yield Written(
            name=name,
            sender=sender,
            to=STUDIO,
            date=f"{date}:00+01:00",
            subject="Re: Kitchen" if answers else "Kitchen",
            answers=answers,
            text=f"{text}\n",
        )


def _lunch() -> Iterator[Written]:
    yield Written(
        name="l1",
        sender=JONAS,
        date="2025-06-11T11:40:00+02:00",
        subject="Lunch?",
        text="Hi Mira,\n\nthe new place at the corner, 12:30?\n\nJonas\n",
    )
    yield Written(  # from a phone that keeps no thread: subject and people alone tell
        name="l2",
        sender=ME,
        to=JONAS,
        date="2025-06-11T11:52:00+02:00",
        subject="Re: Lunch?",
        text="I will be there.\n\nMira\n",
    )


def _when(one: Written) -> datetime:
    return datetime.fromisoformat(one.date)


def _message(one: Written, names: dict[str, Written]) -> EmailMessage:
    message = EmailMessage(policy=_POLICY)
    message["From"] = one.sender
    message["To"] = one.to
    if one.cc:
        message["Cc"] = one.cc
    message["Subject"] = one.subject
    message["Date"] = format_datetime(_when(one))
    message["Message-ID"] = _id(one.name)
    if one.answers:
        message["In-Reply-To"] = _id(one.answers)
        message["References"] = " ".join(_ancestors(one, names))
    for name, value in one.headers.items():
        message[name] = value
    message["X-Sample"] = MARK
    _fill(message, one)
    return message


def _fill(message: EmailMessage, one: Written) -> None:
    if one.text:
        message.set_content(one.text, cte="8bit")
    if one.html and one.text:
        message.add_alternative(one.html, subtype="html", cte="quoted-printable")
    elif one.html:
        message.set_content(one.html, subtype="html", cte="quoted-printable")
    if one.pdf:
        message.add_attachment(_pdf(one), maintype="application", subtype="pdf", filename=one.pdf)
    if one.calendar:
        message.add_attachment(
            _calendar(one), maintype="text", subtype="calendar", filename=one.calendar
        )
    for number, part in enumerate(message.walk()):
        if part.is_multipart():
            part.set_boundary(f"=_{one.name}-{number}")


def _ancestors(one: Written, names: dict[str, Written]) -> list[str]:
    if not one.answers:
        return []
    return [*_ancestors(names[one.answers], names), _id(one.answers)]


def _id(name: str) -> str:
    return f"<{name}@sample.example.com>"


_FONTS = "<</Font<</F1<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>"


def _pdf(one: Written) -> bytes:
    """A page with the subject on it, as small as a PDF gets."""
    shown = one.subject.encode("ascii", "replace").decode().replace("(", "[").replace(")", "]")
    drawing = f"BT /F1 12 Tf 40 780 Td ({shown}) Tj ET"
    objects = (
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources{_FONTS}>>",
        f"<</Length {len(drawing)}>>stream\n{drawing}\nendstream",
    )
    page, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(page))
        page += f"{number} 0 obj{content}endobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"trailer<</Size 5/Root 1 0 R>>\nstartxref\n{len(page)}\n%%EOF\n"
    return f"{page}xref\n0 5\n0000000000 65535 f \n{table}{end}".encode()


def _calendar(one: Written) -> bytes:
    start = (_when(one) + timedelta(hours=6)).astimezone(UTC)
    return (
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Northlight//EN\r\nBEGIN:VEVENT\r\n"
        f"UID:{one.name}@sample.example.com\r\nDTSTART:{start:%Y%m%dT%H%M%SZ}\r\n"
        "SUMMARY:Catalogue review\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    ).encode()
