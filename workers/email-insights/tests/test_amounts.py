from decimal import Decimal

import pytest
from worker_email_insights.amounts import amounts

READ = [
    ("1.234,56 €", "EUR 1234.56"),
    ("€1,234.56", "EUR 1234.56"),
    ("€ 12", "EUR 12"),
    ("12,- €", "EUR 12"),
    ("12,5 EUR", "EUR 12.5"),
    ("5 euros", "EUR 5"),
    ("EUR5.00", "EUR 5.00"),
    ("5.00EUR", "EUR 5.00"),
    ("EUR:   12.00", "EUR 12.00"),
    ("0.999 EUR", "EUR 0.999"),
    ("12\u00a0345,00\u00a0€", "EUR 12345.00"),
    ("1.234.567,89 EUR", "EUR 1234567.89"),
    ("12.345 EUR", "EUR 12345"),
    ("$ 12", "USD 12"),
    ("US$3.50", "USD 3.50"),
    ("CA$3.50", "CAD 3.50"),
    ("total: $1,200.00/month", "USD 1200.00"),
    ("£3", "GBP 3"),
    ("3£", "GBP 3"),
    ("PLN 99", "PLN 99"),
    ("99 PLN.", "PLN 99"),
    ("1 234,56 zł", "PLN 1234.56"),
    ("1 234 zł", "PLN 1234"),
    ("EUR 1 234,56", "EUR 1234.56"),
    ("CHF 1'234.50", "CHF 1234.50"),
    ("CHF 1\u2019234.50", "CHF 1234.50"),
    ("¥1,200", "JPY 1200"),
    ("₹1,23,456.00", "INR 123456.00"),
    ("1 299,00 Kč", "CZK 1299.00"),
    ("2 x 5,00 EUR = 10,00 EUR", "EUR 5.00, EUR 10.00"),
    ("Qty 2 USD 20.00", "USD 20.00"),
    ("Widget 12.00 EUR 24.00 EUR", "EUR 12.00, EUR 24.00"),
    ("456 $20", "USD 20"),
    ("12.00 EUR 2", "EUR 12.00"),
    ("(12.00 EUR)", "EUR 12.00"),
    ("* $10 off, you pay $30.", "USD 10, USD 30"),
]

REFUSED = [
    "call +48 600 700 800 zł",
    "600 700 800 zł",
    "USD 555 123 4567",
    "USD 4155551234",
    "EUR 020 7946 0000",
    "2024-05-01 EUR",
    "01.02.2024 EUR",
    "5/12/2024 USD",
    "€ 12:30",
    "EUR 10-15",
    "10\u201315 EUR",
    "INV-2024-001 EUR",
    "#45 EUR",
    "20% EUR",
    "-5.00 EUR",
    "-$5.00",
    "\u2212$5.00",
    "$-5",
    "$5 million",
    "$5M",
    "$1.5bn",
    "007 EUR",
    "0.00 EUR",
    "1.234.56 EUR",
    "1,2345 EUR",
    "9999999999999.00 EUR",
    "try 5 times",
    "EUROPE 5",
    "5 EUROPEANS",
    "1234.56",
    "",
]


@pytest.mark.parametrize(("line", "expected"), READ)
def test_amounts_are_read_in_every_common_form(line, expected):
    found = ", ".join(f"{one.currency} {one.value}" for one in amounts(line))
    assert found == expected


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_no_amount_of_money_is_refused(line):
    assert amounts(line) == []


def test_sums_of_amounts_are_exact():
    assert sum(one.value for one in amounts("0.10 EUR 0.20 EUR")) == Decimal("0.30")


@pytest.mark.parametrize("piece", ["1.", "1 ", "€", "€1 ", "1 €", "$-", "a-", "1,234 ", "' 1"])
def test_hostile_line_is_read_in_one_pass(piece):
    assert len(amounts(piece * 50_000)) <= 50_000
