"""The capabilities: options in, records and refusals out."""

import gzip

import pytest
from hivemesh_sdk import Context, FatalError
from worker_email_parser.main import AnalyzeOptions, ParseOptions, analyze, parse, worker

SEPARATOR = b"From jane@example.org Thu Sep 13 12:30:05 2001\n"
MESSAGES = [
    b"From: user%d@example.org\nX-Number: %d\nList-Id: <l>\n\nbody\n" % (number, number)
    for number in range(4)
]
MBOX = b"\n".join(SEPARATOR + message for message in MESSAGES)


class Port:
    """What stands behind a context, without a platform."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, int, str]] = []
        self.cancel = False

    def cancelled(self) -> bool:
        return self.cancel

    def progress(self, done: int, total: int, unit: str) -> None:
        self.reports.append((done, total, unit))

    def log(self, level, event, fields) -> None:
        raise AssertionError(event)

    def remaining_s(self) -> None:
        return None


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def context(tmp_path, artifacts, port) -> Context:
    return Context(
        key="run.node.0",
        capability="email.parse@1",
        scratch=tmp_path,
        artifacts=artifacts,
        port=port,
    )


def test_the_worker_offers_what_its_manifest_says():
    assert {name: each.kind for name, each in worker.capabilities.items()} == {
        "email.parse@1": "source",
        "email.analyze@1": "call",
    }


def test_every_message_is_a_record_with_its_position(artifacts, context):
    options = ParseOptions(archive=artifacts.put(MBOX))
    records = [record for record, _ in parse(options, None, context)]
    assert [record.offset for record in records] == [
        number * (len(SEPARATOR + MESSAGES[0]) + 1) for number in range(4)
    ]


def test_parsing_resumes_at_each_checkpoint(artifacts, context):
    options = ParseOptions(archive=artifacts.put(gzip.compress(MBOX)))
    whole = list(parse(options, None, context))
    for number, (_, checkpoint) in enumerate(whole, start=1):
        assert list(parse(options, checkpoint, context)) == whole[number:]


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        ("useful", {"list-id"}),
        ("all", {"from", "x-number", "list-id"}),
        ("none", set()),
        (["X-Number"], {"x-number"}),
    ],
)
def test_headers_are_chosen_by_option(artifacts, context, headers, names):
    options = ParseOptions(archive=artifacts.put(MBOX), headers=headers)
    record, _ = next(parse(options, None, context))
    assert set(record.headers) == names


def test_the_limit_counts_over_a_restart(artifacts, context):
    options = ParseOptions(archive=artifacts.put(MBOX), limit=3)
    first, *_ = whole = list(parse(options, None, context))
    assert len(whole) == 3
    assert len(list(parse(options, first[1], context))) == 2
    assert list(parse(options, whole[-1][1], context)) == []


def test_attachments_become_artifacts_on_request(artifacts, context):
    raw = b"Content-Type: image/png; name=a.png\nContent-Disposition: attachment\n\npicture"
    options = ParseOptions(archive=artifacts.put(raw), attachments="artifacts")
    record, _ = next(parse(options, None, context))
    assert artifacts.blobs[record.attachments[0].artifact.sha256] == b"picture"


def test_progress_is_told_in_bytes(artifacts, context, port):
    list(parse(ParseOptions(archive=artifacts.put(MBOX)), None, context))
    assert port.reports[-1] == (len(MBOX), len(MBOX), "bytes")


def test_a_cancelled_step_stops(artifacts, context, port):
    records = parse(ParseOptions(archive=artifacts.put(MBOX)), None, context)
    next(records)
    port.cancel = True
    assert list(records) == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty-archive"),
        (b"\x89PNG\r\n", "not-mail"),
        (gzip.compress(MBOX)[:-9], "gzip-truncated"),
    ],
)
def test_a_bad_archive_is_a_coded_refusal(artifacts, context, data, code):
    with pytest.raises(FatalError, match=code) as caught:
        list(parse(ParseOptions(archive=artifacts.put(data)), None, context))
    assert caught.value.slug == "input-invalid"
    assert [(each.pointer, each.code) for each in caught.value.errors] == [("/archive", code)]


def test_a_folder_that_is_no_maildir_is_a_coded_refusal(artifacts, context):
    options = ParseOptions(archive=artifacts.put_tree({"a.txt": b"x"}))
    with pytest.raises(FatalError, match="not-a-maildir"):
        list(parse(options, None, context))


def test_an_archive_is_analysed_without_its_messages(artifacts, context):
    found = analyze(AnalyzeOptions(archive=artifacts.put(MBOX), top=2), context)
    assert (found.messages, found.undated, len(found.senders)) == (4, 4, 2)
