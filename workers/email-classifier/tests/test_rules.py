"""The rules, sign by sign, and on the good mail that was written for this worker."""

import pytest
from messages import reading
from worker_email_classifier.rules import RULES, confidences
from worker_email_classifier.signs import Signs
from worker_email_classifier.training.written import written
from worker_email_classifier.types import BILL, NEWSLETTER, NOTIFICATION, PERSONAL, RECEIPT

RULED = frozenset(RULES)


def seen(**given):
    return Signs(reading(**given))


def found(**given):
    return {name for name, value in confidences(seen(**given), RULED).items() if value >= 0.5}


def test_confidence_lies_between_0_and_1_and_needs_a_reason():
    for rule in RULES.values():
        assert rule.confidence(seen(text="nothing in particular", sender="info@example.com")) < 0.5
        assert 0.0 <= rule.confidence(seen(text="invoice receipt unsubscribe")) <= 1.0


def test_reasons_are_named():
    bill = seen(subject="Invoice 7", text="Amount due: $20.00", sender="billing@example.com")
    assert RULES[BILL].reasons(bill) == [
        "subject names a bill",
        "asks to pay",
        "sent by a billing office",
        "names an amount",
    ]


@pytest.mark.parametrize(
    "amount", ["$20.00", "EUR 20", "20,00 €", "£7", "129,99 zł", "Total: 20.00", "12,- €"]
)
def test_amounts_are_seen_in_the_usual_forms(amount):
    assert seen(text=f"something {amount} here").amount


@pytest.mark.parametrize("text", ["20 people", "call 555 1234", "10:30", "50%", "version 2.11"])
def test_other_numbers_are_no_amounts(text):
    assert not seen(text=text).amount


def test_a_bill_can_be_an_attachment_alone():
    file = {"name": "Invoice_2024-10.pdf", "type": "application/pdf"}
    assert BILL in found(subject="Invoice", attachments=[file], sender="office@example.com")


def test_a_picture_named_bill_is_not_enough():
    file = {"name": "bill.exe", "type": "application/octet-stream"}
    assert BILL not in found(subject="hello", attachments=[file])


def test_a_paid_bill_is_a_receipt():
    text = "We received your payment of $12.00, thank you for your payment. Order number 7."
    assert found(subject="Payment received", text=text, sender="billing@example.com") == {RECEIPT}


def test_an_overdue_bill_is_no_receipt():
    text = "We have not received your payment. Balance due: $57.60. Please pay within a week."
    assert found(subject="Reminder: invoice 7 is overdue", text=text, sender="x@a.com") >= {BILL}
    assert RECEIPT not in found(subject="Reminder: invoice 7 is overdue", text=text)


def test_talk_about_a_bill_is_no_bill():
    text = "did you see the invoice they sent? $400 is too much, the amount due was wrong"
    assert BILL not in found(subject="Re: invoice", text=text, in_reply_to=["<1@example.com>"])


def test_a_discussion_list_is_no_newsletter():
    headers = {"list-post": ["<mailto:l@example.org>"], "list-unsubscribe": ["<x>"]}
    text = "I have the same problem. To unsubscribe see the mailing list page."
    assert NEWSLETTER not in found(subject="[list] sound", text=text, headers=headers)


def test_an_automatic_header_makes_a_notification():
    headers = {"auto-submitted": ["auto-generated"]}
    assert NOTIFICATION in found(subject="Job 7 failed", headers=headers, sender="x@example.com")


def test_auto_submitted_no_is_no_sign():
    assert NOTIFICATION not in found(headers={"auto-submitted": ["no"]}, subject="lunch")


def test_a_person_who_greets_and_speaks_of_oneself_is_personal():
    assert found(subject="dinner", text="Hi Ben,\nI am free on Saturday.") == {PERSONAL}


def test_a_machine_that_greets_is_not_personal():
    assert PERSONAL not in found(text="Hi Ben,\nwe noticed a sign-in", sender="no-reply@a.com")


def test_bill_and_receipt_alone_are_the_same_as_among_all():
    given = seen(subject="Invoice 7", text="Amount due: $20.00", sender="billing@example.com")
    some = confidences(given, frozenset({BILL}))
    assert all(confidences(given, RULED)[name] == value for name, value in some.items())


@pytest.mark.parametrize("kind", sorted(RULED))
def test_written_mail_of_each_type_is_found_and_not_taken_for_another(kind, classifier):
    mail = written()
    answers = classifier.labels([message for _, message in mail], (kind,))
    verdicts = [
        (true == kind, answer[kind].label) for (true, _), answer in zip(mail, answers, strict=True)
    ]
    hits = sum(said for true, said in verdicts if true)
    assert hits >= 0.8 * sum(true for true, _ in verdicts)
    assert not any(said for true, said in verdicts if not true)
