"""What capabilities say stands in the worker's own log, as far as the class of their data allows."""

from dataclasses import dataclass

import msgspec
import pytest
import structlog
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.tickets import Ticket
from hivemesh_sdk.worker.access import Right
from hivemesh_sdk.worker.spoken import SpokenLines
from structlog.testing import capture_logs

TICKET = Ticket(
    iss="", aud=[], azp="", sub="", iat=0, exp=0, jti="", run="", step="", attempt=1, cap=""
)


@dataclass
class FakeSpeaker:
    """An execution on data of some class."""

    data_class: DataClass = DataClass.INTERNAL
    key: str = "run.read.0"
    capability: str = "mail.read@1"

    @property
    def right(self):
        return Right("", "", msgspec.structs.replace(TICKET, data_class=self.data_class))


def written(lines, speaker=None, level="info"):
    with capture_logs() as found:
        lines.write(speaker or FakeSpeaker(), level, "Anna wrote", {"to": "Bert"})
    return found


def test_a_line_has_its_step_and_its_fields():
    assert written(SpokenLines(), level="warning") == [
        {
            "event": "Anna wrote",
            "log_level": "warning",
            "step": "run.read.0",
            "fields": {"to": "Bert"},
        }
    ]


@pytest.mark.parametrize(
    ("lines", "given"),
    [
        (SpokenLines(), DataClass.PERSONAL),
        (SpokenLines(most=DataClass.PUBLIC), DataClass.INTERNAL),
        (SpokenLines(made={"mail.read@1": DataClass.PERSONAL}), DataClass.PUBLIC),
    ],
)
def test_of_data_above_its_class_the_log_has_no_text(lines, given):
    (line,) = written(lines, FakeSpeaker(given))
    assert "execution.log_class_max" in line["event"]
    assert "Anna" not in str(line)
    assert "Bert" not in str(line)


def test_a_log_that_cannot_be_written_ends_no_step():
    def full(*_):
        raise OSError

    before = structlog.get_config()
    structlog.configure(processors=[full], cache_logger_on_first_use=False)
    try:
        SpokenLines().write(FakeSpeaker(), "info", "read", {})
    finally:
        structlog.configure(**before)


async def test_an_executor_writes_what_the_capability_says(sample):
    with capture_logs() as found:
        await sample.put("sample.surroundings@1")
    (line,) = [one for one in found if one["event"] == "looked"]
    assert line["fields"]["modules"] > 0
