"""The phrases that the rules ask about, in lower-case UTF-8, and the search for all of them at once."""

from typing import Final

from worker_email_classifier.search import Finder

HINTS_AT_A_BILL: Final = frozenset(
    (b"invoice", b"amount due", b"your bill", b"rechnung", b"due date", b"faktur")
)
HINTS_AT_A_RECEIPT: Final = frozenset(
    (b"receipt", b"your order", b"payment received", b"your payment", b"amount paid")
)
HINTS_AT_NEWS: Final = frozenset(
    (b"newsletter", b"mailing list", b"you asked", b"offers", b"as a customer")
)
IS_DUE: Final = frozenset((b"amount due", b"due date", b"please pay", b"is due"))
ASKS_TO_PAY: Final = frozenset((
    b"amount due", b"total due", b"due date", b"payable within", b"please pay", b"payment is due",
    b"balance due", b"outstanding", b"overdue", b"due by", b"is due", b"zahlbar", b"pay online",
    b"pay your bill", b"pay by", b"will be charged", b"balance after", b"total amount", b"buchen den",
    b"payment due", b"bitte \xc3\xbcberweisen", b"pay at your", b"do zap\xc5\x82aty",
    b"net \xc3\xa0 payer", b"gesamtbetrag",
))  # fmt: skip
NAMES_A_BILL: Final = frozenset((
    b"invoice n", b"invoice #", b"our invoice", b"your invoice", b"attached invoice", b"account number",
    b"billing period", b"customer number", b"your bill", b"your statement", b"rechnungsbetrag",
    b"rechnungsnummer", b"ihre rechnung", b"the period", b"late fee", b"invoice for", b"your policy",
    b"due on the", b"faktura nr", b"numer faktury", b"facture n",
))  # fmt: skip
HAS_BEEN_PAID: Final = frozenset((
    b"payment received", b"we received your payment", b"payment was received",
    b"have received your payment", b"thank you for your payment", b"total charged",
    b"amount paid", b"paid by", b"paid with", b"we charged", b"card ending", b"has been paid",
    b"official receipt", b"wurde von ihrer", b"your gift of", b"payment method", b"total paid",
))  # fmt: skip
NAMES_AN_ORDER: Final = frozenset((
    b"thank you for your order", b"thanks for your order", b"thank you for your purchase",
    b"order number", b"order id", b"order #", b"your order", b"booking is confirmed", b"your booking",
    b"booking fee", b"keep this receipt", b"this receipt", b"you bought", b"items:", b"subtotal",
    b"vielen dank f", b"ihre bestellung", b"your receipt", b"your purchase", b"your tickets",
    b"service fee", b"your donation",
))  # fmt: skip
LEAVES_THE_LIST: Final = frozenset((
    b"unsubscribe", b"opt out", b"opt-out", b"stop receiving", b"no longer wish to receive",
    b"abmelden", b"abbestellen", b"to be removed from", b"remove yourself", b"leave this list",
    b"to stop these", b"to stop it", b"leave the list", b"rather not get", b"do not want offers",
))  # fmt: skip
KNOWS_READERS: Final = frozenset((
    b"newsletter", b"in this issue", b"this week's", b"this month's", b"view this email",
    b"view online", b"in your browser", b"you are receiving this", b"you receive this",
    b"you signed up", b"you subscribed", b"you asked", b"subscribers", b"email settings",
    b"email preferences", b"your preferences", b"manage your subscription", b"mailing list",
    b"edit your profile", b"how often we write", b"our podcast", b"dear reader", b"dear members",
    b"full article", b"member mails", b"more headlines", b"our list", b"you registered",
    b"was sent to you as", b"update your profile", b"what we send you", b"dear alumni",
    b"offers from us", b"ask the expert", b"subscribe a friend", b"you joined", b"edit your alerts",
    b"as a customer", b"this letter",
))  # fmt: skip
OFFERS: Final = frozenset((
    b"% off", b"free shipping", b"free delivery", b"save up to", b"supplies last", b"stocks last",
    b"on sale now", b"special offer", b"book now", b"order now", b"order online", b"order today",
    b"shop now", b"pre-order", b"bonus", b"coupon", b"offer ends", b"exclusions apply",
    b"restrictions apply", b"terms and conditions", b"free download", b"apply today", b"gift card",
))  # fmt: skip
IS_AUTOMATIC: Final = frozenset((
    b"do not reply", b"don't reply", b"not reply to this", b"automatic message", b"automatically",
    b"automated", b"notification settings", b"turn off these", b"if this was you",
    b"if you did not", b"no action is needed", b"you do not need to do anything", b"change how often",
    b"calendar settings", b"you are watching", b"link is valid", b"change your alerts",
    b"could not be delivered", b"delivery to the following", b"permanent fatal errors",
    b"this is a reminder", b"you have an appointment", b"configure bugmail", b"help desk",
    b"new messages",
))  # fmt: skip

_FINDER: Final = Finder(
    frozenset().union(
        ASKS_TO_PAY,
        HAS_BEEN_PAID,
        HINTS_AT_A_BILL,
        HINTS_AT_A_RECEIPT,
        HINTS_AT_NEWS,
        IS_AUTOMATIC,
        IS_DUE,
        KNOWS_READERS,
        LEAVES_THE_LIST,
        NAMES_AN_ORDER,
        NAMES_A_BILL,
        OFFERS,
    )
)


def phrases_in(text: bytes) -> set[bytes]:
    """Return those of the phrases above that the text holds."""
    return _FINDER.found_in(text)
