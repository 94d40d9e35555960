import json
from pathlib import Path

import msgspec
import pytest
from hivemesh_sdk import Artifact, Context
from records import record, sender, stamp, yes
from worker_email_insights.main import EmailInsights, ReportOptions, worker
from worker_email_insights.message import Message


class Shelf:
    """Keeps what is put, as an artifact store does."""

    def __init__(self):
        self.held = {}

    def put(self, data, *, media_type="application/octet-stream", name=None):
        self.held[name] = data
        return Artifact(sha256="0" * 64, size=len(data), media_type=media_type, name=name)


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def context(shelf):
    return Context(
        key="run.insights.1",
        capability="email.insights@1",
        scratch=Path("unused"),
        artifacts=shelf,
        port=None,
    )


def added(*records):
    state = EmailInsights()
    state.add([msgspec.json.decode(json.dumps(one), type=Message) for one in records])
    return state


def test_one_capability_is_offered():
    assert list(worker.capabilities) == ["email.insights@1"]


def test_answer_holds_the_figures_and_a_page(shelf, context):
    state = added(record(1, labels=yes("receipt"), text="Total: 12,50 €"), record(2))
    answer = json.loads(msgspec.json.encode(state.result(ReportOptions(title="Mine"), context)))
    (euro,) = answer["insights"]["amounts"]["currencies"]
    assert (euro["currency"], euro["sum"]) == ("EUR", "12.50")
    assert answer["report"]["media_type"].startswith("text/html")
    assert b"<title>Mine</title>" in shelf.held["email-insights.html"]


def test_rankings_have_as_many_rows_as_asked_for(context):
    state = added(*(record(n, **{"from": sender(f"{n}@example.com")}) for n in range(8)))
    report = state.result(ReportOptions(top=3), context)
    assert [one.name for one in report.insights.senders.top] == [
        f"{n}@example.com" for n in range(3)
    ]


def test_state_is_a_json_document_that_goes_on(context):
    state = added(record(1))
    again = msgspec.json.decode(msgspec.json.encode(state), type=EmailInsights)
    again.merge(added(record(2, date=stamp(days=3))))
    assert again == added(record(1), record(2, date=stamp(days=3)))


@pytest.mark.parametrize("options", [{"top": 0}, {"top": 101}, {"title": ""}, {"subjects": "no"}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(options, ReportOptions)


def test_fields_that_nobody_knows_yet_are_ignored():
    assert added(record(1, added_later={"x": [1]})).archive.volumes.messages == 1
