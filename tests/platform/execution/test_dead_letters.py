"""Inputs that are given up: kept, run again once, edited, discarded; the others go on."""

import json

import msgspec
import pytest
from execution_support import PIPELINE, TESTER, core, double, numbers, worker
from fake_workers import FakeWorkerFleet, adder, caller, failing, mapper, parse, source
from hivemesh_platform.access.model import Principal
from hivemesh_platform.artifacts.model import BatchRef
from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.jobs.letters import (
    Letter,
    LetterSettledError,
    ReplayImpossibleError,
)
from hivemesh_platform.execution.ledger.again_sql import InputReplayedError
from hivemesh_platform.execution.ledger.letter_sql import LetterFilter
from hivemesh_platform.execution.model import lines_of as records_of
from hivemesh_platform.execution.plans.spec import JobSpec, is_intact, written
from hivemesh_platform.execution.runs.service import NothingMissingError
from hivemesh_sdk.contracts.api import JobRequest, RunState
from hivemesh_sdk.contracts.dead_letter_api import ReplayRequest
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.errors import NotFoundError

ADMIN = Principal(id="tester", roles=("admin",), grants=("admin:*",))
CRASH = failing(problem("executor-crashed", "it died"))
RECORDS = 64


def lines_of(request, inputs):
    records = parse(b"".join(inputs))
    first, last = request.limits.lines or (0, len(records))
    return records[first:last]


def killed_by(poison, behaviour):
    """Dies wherever a poisoned record is among those that are meant."""

    def run(request, inputs):
        meant = lines_of(request, inputs) if request.kind in {"map", "add"} else []
        if any(record["n"] in poison for record in meant):
            yield from CRASH(request, inputs)
            return
        body = b"".join(json.dumps(record).encode() + b"\n" for record in meant)
        yield from behaviour(request, [body] if request.kind in {"map", "add"} else inputs)

    return run


def going_on():
    """The pipeline whose reducer goes on without what it has given up, as maps do."""
    summed = {**PIPELINE["steps"]["sum"], "on_error": "dead_letter"}
    return {**PIPELINE, "steps": {**PIPELINE["steps"], "sum": summed}}


def poisoned_worker(poison, instance="w1", *, step="test.double@1", **options):
    behaviour = adder if step == "test.sum@1" else mapper(double)
    behaviours = {
        step: killed_by(poison, behaviour),
        "test.read@1": source(numbers(RECORDS), batch=16),
    }
    return worker(instance, behaviours=behaviours, **options)


async def open_letters(platform, **wanted):
    return await platform.execution.letters.page(ADMIN, LetterFilter(**wanted), "", 100)


async def job_of(platform, **fields):
    request = JobRequest(capability="test.echo@1", wait_s=10, max_retries=0, **fields)
    return await platform.execution.jobs.start(request, TESTER)


@pytest.mark.parametrize("poison", [{5}, {0, 63}, {16, 17, 40}])
async def test_only_the_records_that_kill_end_as_dead_letters(tmp_path, poison):
    async with core(tmp_path, poisoned_worker(poison)) as platform:
        view = await platform.run()
        assert view.state is RunState.PARTIAL, view.problem
        found = [record["n"] for record in await platform.records(view.id)]
        assert found == [2 * n for n in range(RECORDS) if n not in poison]
        assert await platform.output(view.id, "total") == str(sum(found)).encode()
        letters = await open_letters(platform)
        assert {(one.row["cause"], one.row["records"]) for one in letters} == {("crashes", 1)}
        kept = set()
        for one in letters:
            stream = await platform.execution.letters.input(one)
            [record] = parse(b"".join([block async for block in stream.chunks]))
            kept.add(record["n"])
        assert kept == poison


async def test_a_poisoned_batch_keeps_its_key_and_its_input(tmp_path):
    fleet = FakeWorkerFleet(poisoned_worker({5}))
    async with core(tmp_path, fleet) as platform:
        view = await platform.run()
        tries = [attempt for _, key, attempt in fleet.puts if key == f"{view.id}.double.1"]
        assert tries == list(range(1, len(tries) + 1))
        assert len(tries) <= 3 + 2 * 4 + 1  # three crashes, then halves of sixteen


async def test_a_reducer_goes_on_without_the_record_that_kills(tmp_path):
    poison = poisoned_worker({12}, step="test.sum@1")
    async with core(tmp_path, poison) as platform:
        view = await platform.run(going_on())
        left = 2 * sum(n for n in range(RECORDS) if 2 * n != 12)
        assert view.state is RunState.PARTIAL, view.problem
        assert await platform.output(view.id, "total") == str(left).encode()
        [letter] = await open_letters(platform)
        assert (letter.row["node"], letter.row["kind"]) == ("sum", "add")


async def test_a_reducer_that_may_not_leave_anything_out_fails_by_one_record(tmp_path):
    async with core(tmp_path, poisoned_worker({12}, step="test.sum@1")) as platform:
        view = await platform.run()
        assert view.state is RunState.FAILED
        [letter] = await open_letters(platform)
        assert letter.lines == (6, 7)


async def test_a_restart_in_the_middle_goes_on_with_the_halves(tmp_path):
    fleet = FakeWorkerFleet(poisoned_worker({5}))
    async with core(tmp_path, fleet) as platform:
        run = await platform.start()
        await platform.until(lambda: len(fleet.puts) > 7)
    async with core(tmp_path, fleet) as platform:
        view = await platform.end(run)
        assert view.state is RunState.PARTIAL
        left = [2 * n for n in range(RECORDS) if n != 5]
        assert [record["n"] for record in await platform.records(run)] == left
        assert len(await open_letters(platform)) == 1


async def test_a_source_that_always_dies_keeps_its_place(tmp_path):
    def dying(request, inputs):
        yield from CRASH(request, inputs)

    async with core(tmp_path, worker(behaviours={"test.read@1": dying})) as platform:
        view = await platform.run()
        assert view.state is RunState.FAILED
        [letter] = await open_letters(platform)
        assert (letter.row["kind"], letter.view().position) == ("source", None)
        with pytest.raises(ReplayImpossibleError):
            await platform.execution.letters.retry(letter, TESTER)


async def test_a_job_is_given_up_after_its_third_crash(tmp_path):
    fleet = FakeWorkerFleet(worker(behaviours={"test.echo@1": CRASH}))
    async with core(tmp_path, fleet) as platform:
        view = await job_of(platform, input={"n": 1})
        assert view.state is RunState.FAILED
        assert len(fleet.puts) == 3
        [letter] = await open_letters(platform)
        assert (letter.row["cause"], letter.row["attempts"]) == ("crashes", 3)


async def test_a_job_that_is_retried_keeps_its_key_and_works_once(tmp_path):
    fleet = FakeWorkerFleet(worker(behaviours={"test.echo@1": CRASH}))
    async with core(tmp_path, fleet) as platform:
        view = await job_of(platform, input={"n": 1})
        [letter] = await open_letters(platform)
        fleet.workers["w1"].behaviours = worker().behaviours
        assert await platform.execution.letters.retry(letter, TESTER) == view.id
        ended = await platform.end(view.id)
        assert ended.state is RunState.COMPLETED
        assert ended.outputs["result"]["value"] == {"n": 1}
        assert {key for _, key, _ in fleet.puts} == {f"{view.id}.job.0"}
        assert await open_letters(platform) == []
        with pytest.raises(LetterSettledError):
            await platform.execution.letters.retry(letter, TESTER)


async def test_an_edited_input_is_a_new_job_that_knows_where_it_comes_from(tmp_path):
    fleet = FakeWorkerFleet(worker(behaviours={"test.echo@1": failing(problem("step-fatal"))}))
    async with core(tmp_path, fleet) as platform:
        view = await job_of(platform, input={"n": 1}, options={"a": 1})
        [letter] = await open_letters(platform)
        assert letter.row["cause"] == "refused"
        fleet.workers["w1"].behaviours = worker().behaviours
        request = ReplayRequest(input={"n": 2})
        job = await platform.execution.letters.edit(letter, request, TESTER)
        ended = await platform.end(job)
        assert job != view.id
        assert ended.outputs["result"] == {"value": {"n": 2}, "options": {"a": 1}}
        [settled] = await open_letters(platform, state="retried")
        assert settled.view().replayed_as == job


async def test_the_lost_record_of_a_run_is_replayed_as_a_job(tmp_path):
    fleet = FakeWorkerFleet(poisoned_worker({5}))
    async with core(tmp_path, fleet) as platform:
        await platform.run()
        [letter] = await open_letters(platform)
        fleet.workers["w1"].behaviours["test.double@1"] = killed_by(set(), mapper(double))
        job = await platform.execution.letters.retry(letter, TESTER)
        ended = await platform.end(job)
        assert ended.state is RunState.COMPLETED, ended.problem
        assert ended.outputs["result"] == [{"n": 10}]


async def test_an_edited_record_of_a_run_is_one_call(tmp_path):
    fleet = FakeWorkerFleet(poisoned_worker({5}))
    async with core(tmp_path, fleet) as platform:
        await platform.run()
        [letter] = await open_letters(platform)
        asked = await platform.execution.letters.edited(letter, ReplayRequest(options={"b": 2}))
        assert (asked.input, asked.options) == ({"n": 5}, {"b": 2})


async def test_two_who_retry_at_once_run_it_once(tmp_path):
    fleet = FakeWorkerFleet(worker(behaviours={"test.echo@1": failing(problem("step-fatal"))}))
    async with core(tmp_path, fleet) as platform:
        await job_of(platform)
        [letter] = await open_letters(platform)
        letters = platform.execution.letters
        await letters.edit(letter, ReplayRequest(input=1), TESTER)
        with pytest.raises(LetterSettledError):
            await letters.edit(letter, ReplayRequest(input=2), TESTER)


async def test_a_discard_can_be_taken_back(tmp_path):
    async with core(tmp_path, worker(behaviours={"test.echo@1": CRASH})) as platform:
        await job_of(platform)
        [letter] = await open_letters(platform)
        letters = platform.execution.letters
        await letters.discard(letter, TESTER)
        assert await open_letters(platform) == []
        with pytest.raises(LetterSettledError):
            await letters.retry(letter, TESTER)
        await letters.reopen(letter)
        assert [one.id for one in await open_letters(platform)] == [letter.id]


async def test_a_letter_is_seen_by_those_who_see_its_work(tmp_path):
    async with core(tmp_path, worker(behaviours={"test.echo@1": CRASH})) as platform:
        await job_of(platform)
        letters = platform.execution.letters
        page = lambda who: letters.page(who, LetterFilter(), "", 10)  # noqa: E731 - said thrice
        assert len(await page(ADMIN)) == 1
        assert await page(Principal(id="other", grants=("read:run/another",))) == []
        assert await page(Principal(id="tester", tenant="acme", grants=("admin:*",))) == []
        with pytest.raises(NotFoundError):
            await letters.get("dl_0")


async def test_what_nobody_wanted_any_more_is_no_letter(tmp_path):
    async with core(tmp_path, worker()) as platform:
        platform.fleet.workers["w1"].hang_once = {"test.echo@1"}
        request = JobRequest(capability="test.echo@1", input=1)
        view = await platform.execution.jobs.start(request, TESTER)
        await platform.execution.runs.cancel(view.id)
        assert await open_letters(platform) == []


@pytest.mark.parametrize("place", [12, -30, -12])
async def test_a_flipped_bit_of_a_stored_request_is_found_and_never_sent(tmp_path, place):
    fleet = FakeWorkerFleet(worker())
    fleet.workers["w1"].dead = True
    async with core(tmp_path, fleet) as platform:
        request = JobRequest(capability="test.echo@1", input={"amount": 1000}, deadline_s=7)
        view = await platform.execution.jobs.start(request, TESTER)

        def flip(tx):
            text = tx.one("SELECT spec FROM work WHERE run = ?", (view.id,))["spec"].encode()
            data = bytearray(text)
            data[place] ^= 1
            tx.execute("UPDATE work SET spec = ? WHERE run = ?", (data.decode(), view.id))

        await platform.database.write(flip)
        fleet.workers["w1"].dead = False
        platform.placement.changed()
        ended = await platform.end(view.id)
        assert ended.state is RunState.FAILED
        assert ended.problem["type"].endswith(":payload-damaged")
        assert fleet.puts == []


@pytest.mark.parametrize("spec", [JobSpec(), JobSpec(options={"#crc": "00000000"}, max_retries=1)])
def test_every_flipped_bit_of_a_request_is_found(spec):
    text = written(spec)
    assert is_intact(text)
    body = text[: text.rindex('"#crc"')].encode()
    rest = text.encode()[len(body) :]
    for bit in range(8 * len(body)):
        data = bytearray(body)
        data[bit // 8] ^= 1 << bit % 8
        assert not is_intact((bytes(data) + rest).decode(errors="surrogateescape"))


async def test_a_run_that_is_retried_tries_the_whole_input_again(tmp_path):
    fleet = FakeWorkerFleet(poisoned_worker({12}, step="test.sum@1"))
    async with core(tmp_path, fleet) as platform:
        view = await platform.run()
        assert view.state is RunState.FAILED
        fleet.workers["w1"].behaviours["test.sum@1"] = adder
        await platform.execution.again.retry(view.id, "", TESTER)
        ended = await platform.end(view.id)
        assert ended.state is RunState.COMPLETED, ended.problem
        total = 2 * sum(range(RECORDS))
        assert await platform.output(view.id, "total") == str(total).encode()
        assert await open_letters(platform) == []


async def test_a_job_that_is_retried_by_its_own_name_settles_its_letter(tmp_path):
    fleet = FakeWorkerFleet(worker(behaviours={"test.echo@1": CRASH}))
    async with core(tmp_path, fleet) as platform:
        view = await job_of(platform, input=1)
        fleet.workers["w1"].behaviours = worker().behaviours
        await platform.execution.again.retry_job(view.id, TESTER)
        assert (await platform.end(view.id)).state is RunState.COMPLETED
        [letter] = await open_letters(platform, state="retried")
        assert letter.view().replayed_as == view.id


async def test_a_job_that_is_set_going_again_by_its_letter_is_as_new(tmp_path):
    fleet = FakeWorkerFleet(worker(behaviours={"test.echo@1": CRASH}))
    async with core(tmp_path, fleet) as platform:
        view = await job_of(platform, input=1)
        fleet.workers["w1"].dead = True
        [letter] = await open_letters(platform)
        row = lambda tx: tx.one("SELECT problem, epoch FROM work WHERE run = ?", (view.id,))  # noqa: E731 - asked twice
        before = await platform.database.read(row)
        await platform.execution.letters.retry(letter, TESTER)
        after = await platform.database.read(row)
        assert after["problem"] is None
        assert after["epoch"] == before["epoch"] + 1


async def test_a_record_with_a_carriage_return_is_one_record(tmp_path):
    batch = b'{"n":\r1}\n{"n":2}\n'
    assert [json.loads(line)["n"] for line in records_of(batch)] == [1, 2]
    fleet = FakeWorkerFleet(poisoned_worker({5}))
    async with core(tmp_path, fleet) as platform:
        await platform.run()
        [letter] = await open_letters(platform)
        stored = await platform.artifacts.put(batch, "")
        inputs = msgspec.json.encode([BatchRef(stored.sha256, 2, stored.size)])
        given = Letter({**dict(letter.row), "input": inputs, "first": 1, "last": 2})
        stream = await platform.execution.letters.input(given)
        assert b"".join([block async for block in stream.chunks]) == b'{"n":2}\n'


async def test_who_retries_lends_no_more_than_he_has(tmp_path):
    async with core(tmp_path, worker(behaviours={"test.echo@1": CRASH})) as platform:
        view = await job_of(platform)
        [letter] = await open_letters(platform)
        who = Behalf(sub="vi", roles=("viewer",), grants=("read:run",))
        await platform.execution.letters.retry(letter, who)
        [row] = await platform.database.read(
            lambda tx: tx.all("SELECT spec, submitter FROM work WHERE run = ?", (view.id,))
        )
        behalf = json.loads(row["spec"])["behalf"]
        assert (behalf["sub"], behalf["roles"]) == ("vi", ["viewer"])
        assert row["submitter"] == "tester"


@pytest.mark.parametrize("options", [None, {"password": "{{ vault.mail.admin }}"}])
async def test_an_edit_lends_no_secret_that_data_has_chosen(tmp_path, options):
    brought = json.dumps({"password": "{{ vault.mail.admin }}"})
    async with core(tmp_path, poisoned_worker({5})) as platform:
        await platform.run()
        await platform.database.write(
            lambda tx: tx.execute("UPDATE dead_letter SET options = ?", (brought,))
        )
        [letter] = await open_letters(platform)
        request = ReplayRequest(input={"n": 1}, options=options)
        with pytest.raises(ReplayImpossibleError, match="name secrets"):
            await platform.execution.letters.edit(letter, request, TESTER)
        assert [one.id for one in await open_letters(platform)] == [letter.id]


async def test_a_replay_keeps_labels_limit_and_priority(tmp_path):
    fleet = FakeWorkerFleet(poisoned_worker({5, 6}))
    async with core(tmp_path, fleet) as platform:
        await platform.run()

        def change(tx):
            tx.execute("UPDATE dead_letter SET labels = ?", (json.dumps({"region": "eu"}),))
            tx.execute(
                "UPDATE work SET limit_key = 'default/acme', priority = 9 WHERE node = 'double'"
            )

        await platform.database.write(change)
        first, second = await open_letters(platform)
        letters = platform.execution.letters
        jobs = {
            await letters.retry(first, TESTER),
            await letters.edit(second, ReplayRequest(input={"n": 1}), TESTER),
        }
        rows = await platform.database.read(
            lambda tx: tx.all("SELECT * FROM work WHERE node = 'job'")
        )
        assert {row["run"] for row in rows} == jobs
        assert {(row["limit_key"], row["priority"]) for row in rows} == {("default/acme", 9)}
        assert [json.loads(row["spec"])["labels"] for row in rows] == [{"region": "eu"}] * 2


async def test_a_letter_whose_job_has_ended_well_meanwhile_makes_no_second_job(tmp_path):
    fleet = FakeWorkerFleet(worker(behaviours={"test.echo@1": CRASH}))
    async with core(tmp_path, fleet) as platform:
        view = await job_of(platform, input=1)
        letters = platform.execution.letters
        [letter] = await open_letters(platform)
        await letters.discard(letter, TESTER)
        fleet.workers["w1"].behaviours = worker().behaviours
        await platform.execution.again.retry_job(view.id, TESTER)
        assert (await platform.end(view.id)).state is RunState.COMPLETED
        await letters.reopen(letter)
        with pytest.raises(LetterSettledError, match="completed"):
            await letters.retry(letter, TESTER)
        rows = await platform.database.read(lambda tx: tx.all("SELECT run FROM work"))
        assert [row["run"] for row in rows] == [view.id]


@pytest.mark.parametrize("does_well", [True, False])
async def test_what_a_job_has_done_of_a_run_is_not_done_again_by_its_retry(tmp_path, does_well):
    fatal = failing(problem("step-fatal"))
    fleet = FakeWorkerFleet(worker(records=10, behaviours={"test.double@1": fatal}))
    async with core(tmp_path, fleet) as platform:
        view = await platform.run()
        assert view.state is RunState.FAILED
        [letter] = await open_letters(platform)
        if does_well:
            fleet.workers["w1"].behaviours["test.double@1"] = mapper(double)
        job = await platform.execution.letters.retry(letter, TESTER)
        assert (await platform.end(job)).state.value == ("completed" if does_well else "failed")
        fleet.workers["w1"].behaviours["test.double@1"] = mapper(double)
        again = platform.execution.again
        if does_well:
            with pytest.raises(InputReplayedError, match=job):
                await again.retry(view.id, "", TESTER)
        await again.retry(view.id, "double" if does_well else "", TESTER)
        assert (await platform.end(view.id)).state is RunState.COMPLETED


async def mended(platform, job):
    ended = await platform.end(job)
    assert ended.state is RunState.COMPLETED, ended.problem


@pytest.mark.parametrize("all_of_them", [True, False])
async def test_what_letters_have_become_comes_into_a_new_version(tmp_path, all_of_them):
    fleet = FakeWorkerFleet(poisoned_worker({5, 40, 41}))
    behaviours = fleet.workers["w1"].behaviours
    async with core(tmp_path, fleet) as platform:
        run = await platform.run()
        letters = platform.execution.letters
        with pytest.raises(NothingMissingError):
            await platform.execution.runs.backfill(run.id, TESTER)
        behaviours["test.double@1"] = lambda request, inputs: (
            caller(lambda value, _options: double(value))(request, inputs)
            if request.kind == "call"
            else killed_by(set(), mapper(double))(request, inputs)
        )
        found = sorted(await open_letters(platform), key=lambda one: one.row["first"])
        by_record = {}
        for one in found:
            stream = await letters.input(one)
            [record] = parse(b"".join([block async for block in stream.chunks]))
            by_record[record["n"]] = one
        jobs = {
            by_record[5].row["id"]: await letters.retry(by_record[5], TESTER),
            by_record[40].row["id"]: await letters.edit(
                by_record[40], ReplayRequest(input={"n": 400}), TESTER
            ),
        }
        if all_of_them:
            jobs[by_record[41].row["id"]] = await letters.retry(by_record[41], TESTER)
        for job in jobs.values():
            await mended(platform, job)
        before = len(fleet.puts)
        later = await platform.end((await platform.execution.runs.backfill(run.id, TESTER)).id)
        values = sorted(record["n"] for record in await platform.records(later.id))
        given_up = set() if all_of_them else {41}
        assert values == sorted(
            2 * (400 if n == 40 else n) for n in range(RECORDS) if n not in given_up
        )
        assert await platform.output(later.id, "total") == str(sum(values)).encode()
        assert later.outputs["records"]["version"] == 2
        assert later.state is (RunState.COMPLETED if all_of_them else RunState.PARTIAL)
        assert {key.split(".")[1] for _, key, _ in fleet.puts[before:]} == {"sum"}
        events = await platform.execution.runs.events(later.id, 0, 100, 0)
        added = [one for one in events if one.type == "letter_added"]
        assert {one.data["letter"]: one.data["job"] for one in added} == jobs
        assert {one.node for one in added} == {"double"}


async def test_of_several_records_one_is_edited_and_all_are_run(tmp_path):
    def strict(request, inputs):
        if any(record["n"] == 5 for record in lines_of(request, inputs)):
            yield from failing(problem("step-fatal", "five"))(request, inputs)
        else:
            yield from mapper(double)(request, inputs)

    behaviours = {"test.double@1": strict, "test.read@1": source(numbers(RECORDS), batch=16)}
    fleet = FakeWorkerFleet(worker(behaviours=behaviours))
    async with core(tmp_path, fleet) as platform:
        run = await platform.run()
        [letter] = await open_letters(platform)
        letters = platform.execution.letters
        for record in (None, 16):
            with pytest.raises(ReplayImpossibleError, match="0 to 15"):
                await letters.edit(letter, ReplayRequest(input={"n": 50}, record=record), TESTER)
        job = await letters.edit(letter, ReplayRequest(input={"n": 50}, record=5), TESTER)
        ended = await platform.end(job)
        expected = [{"n": 2 * (50 if n == 5 else n)} for n in range(16)]
        assert ended.outputs["result"] == expected
        later = await platform.end((await platform.execution.runs.backfill(run.id, TESTER)).id)
        assert len(await platform.records(later.id)) == RECORDS


async def test_an_edit_changes_only_the_options_that_it_names(tmp_path):
    fleet = FakeWorkerFleet(worker(behaviours={"test.echo@1": failing(problem("step-fatal"))}))
    async with core(tmp_path, fleet) as platform:
        options = {"a": 1, "b": 2, "wrong": 3}
        view = await job_of(platform, input=0, options=options)
        assert view.parameters == options
        [letter] = await open_letters(platform)
        assert (letter.view().options, letter.view(listed=True).options) == (options, None)
        fleet.workers["w1"].behaviours = worker().behaviours
        request = ReplayRequest(options={"b": 5, "wrong": None})
        ended = await platform.end(await platform.execution.letters.edit(letter, request, TESTER))
        assert ended.outputs["result"] == {"value": 0, "options": {"a": 1, "b": 5}}


async def test_a_call_of_a_run_has_options_to_edit_and_no_input(tmp_path):
    step = {"use": "test.echo@1", "with": {"a": 1, "b": 2}}
    calls = {**PIPELINE, "parameters": {}, "steps": {"ask": step}, "outputs": {"answer": "ask"}}
    fleet = FakeWorkerFleet(worker(behaviours={"test.echo@1": failing(problem("step-fatal"))}))
    async with core(tmp_path, fleet) as platform:
        assert (await platform.run(calls)).state is RunState.FAILED
        [letter] = await open_letters(platform)
        stream = await platform.execution.letters.input(letter)
        assert b"".join([block async for block in stream.chunks]) == b"null"
        fleet.workers["w1"].behaviours = worker().behaviours
        request = ReplayRequest(options={"b": 5})
        ended = await platform.end(await platform.execution.letters.edit(letter, request, TESTER))
        assert ended.outputs["result"] == {"value": None, "options": {"a": 1, "b": 5}}


def refusing(bad):
    """Doubles records and answers calls; what meets a bad one ends at once."""

    def run(request, inputs):
        asked = parse(b"".join(inputs)) if request.kind == "call" else lines_of(request, inputs)
        if any(record["n"] in bad for record in asked):
            yield from failing(problem("step-fatal", "bad"))(request, inputs)
        elif request.kind == "call":
            yield from caller(lambda value, _options: double(value))(request, inputs)
        else:
            yield from killed_by(set(), mapper(double))(request, inputs)

    return run


async def test_a_record_that_fails_again_is_still_that_one_record(tmp_path):
    fleet = FakeWorkerFleet(poisoned_worker({5}))
    async with core(tmp_path, fleet) as platform:
        await platform.run()
        letters = platform.execution.letters
        [letter] = await open_letters(platform)
        assert (await platform.end(await letters.retry(letter, TESTER))).state is RunState.FAILED
        [again] = await open_letters(platform)
        assert (again.view().records, again.lines) == (1, letter.lines)
        stream = await letters.input(again)
        assert parse(b"".join([block async for block in stream.chunks])) == [{"n": 5}]


@pytest.mark.parametrize("same_job_too", [False, True])
async def test_a_record_that_was_mended_at_the_second_go_comes_into_the_dataset(
    tmp_path, same_job_too
):
    fleet = FakeWorkerFleet(poisoned_worker({5}))
    async with core(tmp_path, fleet) as platform:
        run = await platform.run()
        letters, runs = platform.execution.letters, platform.execution.runs
        fleet.workers["w1"].behaviours["test.double@1"] = refusing({5, 7000})
        [letter] = await open_letters(platform)
        wrong = await letters.edit(letter, ReplayRequest(input={"n": 7000}), TESTER)
        assert (await platform.end(wrong)).state is RunState.FAILED
        [second] = await open_letters(platform)
        with pytest.raises(NothingMissingError, match="no dead letter"):
            await runs.backfill(run.id, TESTER)
        right = await letters.edit(second, ReplayRequest(input={"n": 50}), TESTER)
        await mended(platform, right)
        if same_job_too:  # of two answers to one letter the later job's counts
            fleet.workers["w1"].behaviours["test.double@1"] = refusing({5})
            await platform.execution.again.retry_job(wrong, TESTER)
            await mended(platform, wrong)
        later = await platform.end((await runs.backfill(run.id, TESTER)).id)
        assert later.state is RunState.COMPLETED
        found = sorted(record["n"] for record in await platform.records(later.id))
        assert found == sorted(2 * (50 if n == 5 else n) for n in range(RECORDS))


async def test_a_retry_of_a_run_knows_what_a_second_job_has_done(tmp_path):
    fatal = failing(problem("step-fatal"))
    fleet = FakeWorkerFleet(worker(records=10, behaviours={"test.double@1": fatal}))
    async with core(tmp_path, fleet) as platform:
        run = await platform.run()
        letters = platform.execution.letters
        [letter] = await open_letters(platform)
        job = await letters.retry(letter, TESTER)
        assert (await platform.end(job)).state is RunState.FAILED
        [second] = await open_letters(platform)
        fleet.workers["w1"].behaviours["test.double@1"] = mapper(double)
        edited = await letters.edit(second, ReplayRequest(input={"n": 1}, record=0), TESTER)
        await mended(platform, edited)
        with pytest.raises(InputReplayedError, match=edited):
            await platform.execution.again.retry(run.id, "", TESTER)
