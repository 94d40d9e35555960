from decimal import Decimal

import pytest
from records import message, yes
from worker_email_insights.bills import Bills, find, kind_of, plain_text, text_of


def total(text):
    finding = find(text)
    return finding and f"{finding.total.currency} {finding.total.value}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Subtotal 90.00 EUR\nVAT 10.00 EUR\nTotal 100.00 EUR", "EUR 100.00"),
        ("Total value of goods 500.00 EUR\nAmount due: 100.00 EUR", "EUR 100.00"),
        ("Total before discount $50.00\nTotal $40.00", "USD 40.00"),
        ("Do zapłaty: 1 234,56 zł (w tym VAT 230,85 zł)", "PLN 1234.56"),
        ("Gesamtbetrag\n\n  119,00 €", "EUR 119.00"),
        ("You paid £4.50 with your card", "GBP 4.50"),
        ("coffee 3.00 EUR\ncake 4.00 EUR", "EUR 4.00"),
        ("Balance due: $0.00\nTotal: $45.00", "USD 45.00"),
        ("Total 100.00 EUR\nTotal 100.00 EUR\nTotal 108.00 USD", "EUR 100.00"),
        ("nothing to pay", None),
    ],
)
def test_total_is_the_largest_amount_on_the_most_telling_line(text, expected):
    assert total(text) == expected


def test_amounts_named_are_counted():
    assert find("coffee 3.00 EUR\ncake 4.00 EUR\nTotal 7.00 EUR").found == 3


def test_html_is_read_where_there_is_no_text():
    html = (
        "<style>p{width:5}</style><table><tr><td>Total</td><td>&euro;&nbsp;12,50</td></tr></table>"
    )
    assert total(text_of(message(text=" \n", html=html))) == "EUR 12.50"


def test_cells_and_blocks_are_kept_apart():
    assert plain_text("<p>5</p>EUR 7").split() == ["5", "EUR", "7"]
    assert "5" not in plain_text("<SCRIPT>var a = 5;</SCRIPT>")
    assert plain_text("a<style>never closed") == "a"


@pytest.mark.parametrize("piece", ["<", "<style", "<a", "&", "<script></style>"])
def test_hostile_markup_is_read_in_one_pass(piece):
    assert len(plain_text(piece * 40_000)) <= len(piece) * 40_000


def test_document_is_what_the_classifier_is_surer_of():
    labels = yes("bill", confidence=0.6) | yes("receipt", confidence=0.8)
    assert kind_of(message(labels=labels)) == "receipt"


def test_spam_is_no_bill():
    assert kind_of(message(labels=yes("bill", "spam"))) is None


def test_figures_are_kept_by_kind_currency_and_month():
    bills = Bills()
    for text, labels in (("Total 10.00 EUR", yes("bill")), ("Total 5.50 EUR", yes("bill"))):
        one = message(text=text, labels=labels)
        bills.add(one, one.moment)
    bills.add(message(text="no amount", labels=yes("receipt")), None)
    bills.add(message(text="Total 3.00 EUR"), None)
    money = bills.months["bill EUR"]["2024-03"]
    assert (money.documents, money.sum, money.max) == (2, Decimal("15.50"), Decimal("10.00"))
    assert (bills.examined, bills.without_amount) == (3, 1)
