"""What capabilities say stands in the worker's own log, as far as the class of their data allows."""

from dataclasses import dataclass

import msgspec
import pytest
import structlog
from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.names import TICKET_HEADER
from hivemesh_sdk.contracts.steps import Member, digest_of_members
from hivemesh_sdk.contracts.tickets import Ticket
from hivemesh_sdk.worker.access import Right
from hivemesh_sdk.worker.failures import trace_of
from hivemesh_sdk.worker.spoken import SpokenLines
from structlog.testing import capture_logs
from worker_harness import HOLDER, TICKETS, serving

GROUP = "group.1f.0"

CALLER = "platform"
TICKET = Ticket(
    iss="", aud=[], azp="", sub="", iat=0, exp=0, jti="", run="", step="", attempt=1, cap=""
)


@dataclass
class FakeSpeaker:
    """An execution on data of some class."""

    data_class: DataClass = DataClass.INTERNAL
    key: str = "run.read.0"
    capability: str = "mail.read@1"
    holder: str = "worker"
    ticket: str = "shown"

    @property
    def right(self):
        claims = msgspec.structs.replace(TICKET, azp=self.holder, data_class=self.data_class)
        return Right(CALLER, self.ticket, claims)


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


@pytest.mark.parametrize("unsure", [{"holder": CALLER}, {"ticket": ""}])
@pytest.mark.parametrize(
    ("cleared", "withheld"),
    [
        ({}, DataClass.SECRET),
        ({"mail.read@1": DataClass.PERSONAL}, DataClass.PERSONAL),
        ({"mail.read@1": DataClass.INTERNAL}, None),
    ],
)
def test_what_a_ticket_does_not_tell_may_be_all_that_the_capability_takes(
    unsure, cleared, withheld
):
    speaker = FakeSpeaker(DataClass.PUBLIC, **unsure)
    assert SpokenLines(cleared=cleared).withheld(speaker) == withheld


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


@pytest.mark.parametrize("capability", ["sample.surroundings@1", "sample.inline.looked@1"])
async def test_each_of_several_calls_is_named_by_what_it_says(sample, capability):
    some = [Member(key=f"job_{number}.job.0", attempt=1) for number in range(3)]
    claims = {"members": digest_of_members(some)}
    ticket = TICKETS.sign(TICKETS.claims(HOLDER, GROUP, capability, **claims))
    with capture_logs() as found:
        await sample.put(
            capability,
            inputs=[b"null\nnull\nnull"],
            key=GROUP,
            members=some,
            headers={TICKET_HEADER: ticket},
        )
        await sample.idle(capability)
    steps = [one["step"] for one in found if one["event"] == "looked"]
    assert steps == [one.key for one in some]


RAISING = [
    ("sample.fail@1", [b'{"kind": "other", "message": "Anna"}'], {}),
    ("sample.inline_fail@1", [b'"Anna"'], {}),
    ("sample.quick@1", [b"{}"], {"then": "raise"}),
]


async def raised(folder, most, capability, inputs, parameters):
    """What one's own code raised, as the log tells it."""
    with capture_logs() as found:
        async with serving(folder, log_class_max=most) as sample:
            await sample.put(capability, inputs=inputs, parameters=parameters)
    return "".join(str(one["exception"]) for one in found if one["event"] == "step_raised")


@pytest.mark.parametrize(("capability", "inputs", "parameters"), RAISING)
async def test_an_exception_stands_there_with_its_message(
    tmp_path, capfd, capability, inputs, parameters
):
    log = await raised(tmp_path, DataClass.INTERNAL, capability, inputs, parameters)
    told = log + capfd.readouterr().err
    assert "ValueError: Anna" in told or "ValueError: raise" in told


@pytest.mark.parametrize(("capability", "inputs", "parameters"), RAISING)
async def test_of_data_above_its_class_without(tmp_path, capfd, capability, inputs, parameters):
    log = await raised(tmp_path, DataClass.PUBLIC, capability, inputs, parameters)
    log += capfd.readouterr().err
    assert "Anna" not in log
    assert "ValueError: (message withheld)" in log
    assert "sample_worker.py" in log


def test_neither_causes_nor_members_of_an_exception_tell_their_messages():
    names = ["Anna", "Bert", "Cleo", "Dora"]

    def fail():
        try:
            {}[names[0]]
        except KeyError as error:
            members = [ValueError(names[1]), OSError(names[2])]
            raise ExceptionGroup(names[3], members) from error

    with pytest.raises(ExceptionGroup) as caught:
        fail()
    caught.value.exceptions[0].__cause__ = caught.value  # a ring
    told = trace_of(caught.value, withheld=True)
    types = [line.partition(":")[0] for line in told.splitlines() if line.endswith("withheld)")]
    assert types == ["KeyError", "ValueError", "OSError", "ExceptionGroup"]
    assert "in fail\n" in told
    assert not any(name in told for name in names)
    assert all(name in trace_of(caught.value, withheld=False) for name in names)


def test_a_long_chain_of_exceptions_is_cut():
    error = None
    for _ in range(5000):
        following = ValueError()
        following.__cause__, error = error, following
    assert trace_of(error, withheld=True).count("ValueError") == 100
