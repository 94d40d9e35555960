"""Where there is room for few more steps, every capability that has something to do gets some of it."""

from execution_support import CAPABILITIES, TESTER, core, worker
from fake_workers import FakeCatalogue, capability
from hivemesh_platform.execution.steps import claims
from hivemesh_platform.execution.steps.turns import Turns
from hivemesh_sdk.contracts.api import JobRequest
from hypothesis import given
from hypothesis import strategies as st


class Queues:
    """So many rows of each capability, and who was asked for them."""

    def __init__(self, **rows):
        self.rows = rows
        self.found = dict.fromkeys(rows, 0)

    def ask(self, name, limit):
        taken = min(limit, self.rows[name])
        self.rows[name] -= taken
        self.found[name] += taken
        return [name] * taken


def test_one_row_of_a_wide_capability_leaves_the_room_to_the_others():
    queues = Queues(wide=1, other=5)
    Turns().claim({"wide": 256, "other": 8}, 256, queues.ask)
    assert queues.found == {"wide": 1, "other": 5}


def test_a_long_queue_leaves_half_of_the_room_to_the_other():
    queues = Queues(wide=100_000, other=100_000)
    Turns().claim({"wide": 256, "other": 256}, 256, queues.ask)
    assert queues.found == {"wide": 128, "other": 128}


def test_what_one_leaves_is_for_the_others():
    queues = Queues(wide=100_000, other=3)
    Turns().claim({"wide": 256, "other": 256}, 256, queues.ask)
    assert queues.found == {"wide": 253, "other": 3}


def test_places_that_get_free_one_by_one_are_given_in_turn():
    queues, turns = Queues(a=100, b=100, c=100), Turns()
    for _ in range(9):
        turns.claim({"a": 256, "b": 256, "c": 256}, 1, queues.ask)
    assert queues.found == {"a": 3, "b": 3, "c": 3}


names = st.sampled_from("abcde")


@given(
    st.dictionaries(names, st.tuples(st.integers(0, 50), st.integers(0, 50))), st.integers(0, 60)
)
def test_as_much_is_claimed_as_there_is_and_no_more_than_there_is_room(wanted, room):
    queues = Queues(**{name: rows for name, (_, rows) in wanted.items()})
    found = Turns().claim({name: slots for name, (slots, _) in wanted.items()}, room, queues.ask)
    assert len(found) == min(room, sum(min(pair) for pair in wanted.values()))
    assert all(queues.found[name] <= slots for name, (slots, _) in wanted.items())


async def test_a_long_queue_of_one_capability_does_not_starve_another(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "MAX_STEPS", 2)
    order = []

    def noted(request, inputs):
        order.append(request.capability)
        return answer(request, inputs)

    one = worker(slots=8)
    answer = one.behaviours["test.echo@1"]
    one.behaviours |= {"test.echo@1": noted, "test.late@1": noted}
    one.slots["test.late@1"] = 8
    installed = FakeCatalogue(*CAPABILITIES, capability("test.late@1", "call"))
    async with core(tmp_path, one, catalogue=installed) as running:
        jobs = running.execution.jobs
        running.placement.free_slots, free = dict, running.placement.free_slots
        ids = [
            (await jobs.start(JobRequest(capability=name, input=number), TESTER)).id
            for name in ("test.echo@1", "test.late@1")
            for number in range(10)
        ]
        running.placement.free_slots = free
        running.placement.changed()
        for job in ids:
            await running.end(job)
    assert "test.late@1" in order[:4]
