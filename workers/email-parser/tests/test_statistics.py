"""Statistics without messages."""

from hivemesh_sdk import Rejected
from worker_email_parser import statistics
from worker_email_parser.message import parse_message
from worker_email_parser.statistics import Sender, Tally


def message(sender, date="Thu, 22 Aug 2002 18:26:25 +0000", body=b"x"):
    return parse_message(f"From: {sender}\nDate: {date}\n\n".encode() + body)


def test_counts_dates_sizes_and_defects():
    tally = Tally()
    tally.add(message("a@b", "Thu, 22 Aug 2002 18:26:25 +0000"))
    tally.add(message("A@B", "Thu, 22 Aug 2001 18:26:25 +0000", b"x" * 5_000))
    tally.add(message("c@d", "never"))
    tally.add(Rejected("message-too-large"))
    found = tally.result(10)
    assert (found.messages, found.rejected, found.undated) == (3, 1, 1)
    assert (found.first_date, found.last_date) == ("2001-08-22T18:26:25Z", "2002-08-22T18:26:25Z")
    assert (found.sizes["<1kB"], found.sizes["1-10kB"]) == (2, 1)
    assert found.senders == [Sender("a@b", 2), Sender("c@d", 1)]
    assert found.defects == {"date-invalid": 1}
    assert found.senders_exact


def test_attachments_are_counted_by_type():
    tally = Tally()
    tally.add(parse_message(b"Content-Type: image/png\n\n12345"))
    found = tally.result(10)
    assert (found.attachments, found.attachment_bytes) == (1, 5)
    assert found.attachment_types == {"image/png": 1}


def test_a_frequent_sender_is_found_among_more_addresses_than_are_counted(monkeypatch):
    monkeypatch.setattr(statistics, "SENDERS_KEPT", 10)  # the bound, too large to reach here
    tally = Tally()
    for number in range(300):
        tally.add(message("often@x.org"))
        tally.add(message(f"once{number}@x.org"))
    found = tally.result(1)
    assert found.senders[0].address == "often@x.org"
    assert not found.senders_exact
