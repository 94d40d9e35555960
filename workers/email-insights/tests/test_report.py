import json
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
from records import message, sender, stamp, yes
from worker_email_insights.report import render
from worker_email_insights.state import Archive
from worker_email_insights.summary import summarize

VOID = {"meta", "br", "hr", "img", "link", "input"}
NAUGHTY = Path(os.environ.get("HIVEMESH_TEST_DATA", "")) / "security/naughty-strings/blns.json"


class Outline(HTMLParser):
    """Collects what a page is made of, and complains of tags that do not match."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.seen, self.text, self.attributes = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def page_of(*messages, subjects=True, title="E-mail insights"):
    archive = Archive()
    archive.add(list(messages))
    return render(summarize(archive, top=10, subjects=subjects), title=title).decode()


def conversation(subject, address="dora@example.com"):
    """Two messages that show this subject and address in the report."""
    first = message(1, subject=subject, **{"from": sender(address)})
    back = message(
        2,
        subject=f"Re: {subject}",
        in_reply_to=["<1@example.com>"],
        labels=yes("bill"),
        text="Total: 12.50 EUR",
        attachments=[{"name": subject, "type": subject, "size": 1}],
    )
    return first, back


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style><script>alert(1)</script>",
    "<svg/onload=alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
    "javascript:alert(1)",
    "<!-- --><![CDATA[",
    "&lt;b&gt;&#60;",
    "\x00\x1b[31m\u202egnp.exe\u2066",
    "\ud83d\ude00 ok",
    "x" * 100_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_text(text):
    harmless = Outline(page_of(*conversation("Hello")))
    outline = Outline(page_of(*conversation(text, address=f"{text[:90]}@example.com"), title=text))
    assert outline.seen == harmless.seen
    assert len("".join(outline.text)) < len("".join(harmless.text)) + 2_000


def test_naughty_strings_stay_text():
    if not NAUGHTY.is_file():
        pytest.skip("HIVEMESH_TEST_DATA is not set, or has no security/naughty-strings")
    harmless = Outline(page_of(*conversation("Hello"))).seen
    for text in json.loads(NAUGHTY.read_text()):
        if text.strip():
            assert Outline(page_of(*conversation(text))).seen == harmless, text


def test_control_and_direction_characters_are_not_shown():
    text = "".join(Outline(page_of(*conversation("safe\u202egnp.exe\x1b\x07"))).text)
    assert "safe\ufffdgnp.exe\ufffd\ufffd" in text


def test_page_needs_nothing_from_outside_and_runs_nothing():
    outline = Outline(page_of(*conversation("Hello")))
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(outline.seen)
    names = {name for name, _ in outline.attributes}
    assert not names & {"src", "href", "srcset", "action"}
    assert not [name for name in names if name.startswith("on")]
    assert any("default-src 'none'" in (value or "") for _, value in outline.attributes)


def test_every_chart_has_a_name_and_a_table():
    page = page_of(*conversation("Hello"))
    for chart in page.split("<figure>")[1:]:
        assert 'role="img" aria-label="' in chart
        assert "<table>" in chart.split("</section>")[0]
    assert page.count('scope="col"') > 20


def test_sections_stand_in_a_fixed_order():
    page = page_of(*conversation("Hello"))
    titles = [part.split("</h2>")[0].split("<")[0] for part in page.split("<h2>")[1:]]
    assert titles == [
        "Messages over time",
        "Categories",
        "Money in bills and receipts",
        "Senders",
        "Domains",
        "Hours of the week",
        "Time to answer",
        "Attachments",
        "Conversations",
    ]


def test_figures_stand_in_the_page():
    text = "".join(Outline(page_of(*conversation("Lunch"))).text)
    for expected in ("Lunch", "dora@example.com", "example.com", "EUR", "12.50", "1 file in"):
        assert expected in text


def test_subjects_can_be_left_out():
    text = "".join(Outline(page_of(*conversation("Secret plan"), subjects=False)).text)
    assert "Secret plan" not in text
    assert "(not shown)" in text


def test_long_archive_shows_its_last_half_year_as_well():
    old = [message(n, date=stamp(days=n * 90)) for n in range(40)]
    assert "The last half year, by week" in page_of(*old)


def test_report_of_nothing_says_so():
    text = "".join(Outline(page_of()).text)
    assert "0 messages" in text
    assert "No message has a usable date." in text


def test_same_mail_gives_the_same_bytes():
    assert page_of(*conversation("Hello")) == page_of(*conversation("Hello"))
