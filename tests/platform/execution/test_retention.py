"""What has ended goes when it is old, and nothing goes that something still needs."""

import json
import os
import re
import sys
from datetime import timedelta
from functools import partial
from hashlib import sha256

import pytest
from execution_support import DirectEngine
from hivemesh_platform import ids
from hivemesh_platform.artifacts import service
from hivemesh_platform.artifacts.kept import KeptDigests
from hivemesh_platform.artifacts.local import BLOCK, SMALL, LocalArtifactStore
from hivemesh_platform.artifacts.service import ArtifactService
from hivemesh_platform.execution import retention
from hivemesh_platform.execution.ledger.attempt_sql import keep_in_common
from hivemesh_platform.execution.ledger.letter_sql import reopen
from hivemesh_platform.execution.ledger.port import Placed
from hivemesh_platform.execution.ledger.retention_sql import (
    JOBS,
    bound,
    due_jobs,
    named_by_jobs,
    named_by_letters,
    remove_jobs,
)
from hivemesh_platform.execution.retention import Retention
from hivemesh_platform.settings import RetentionSettings
from hivemesh_sdk.contracts.names import TREE_MEDIA_TYPE
from hivemesh_sdk.testing.clock import ManualClock

DAY_MS = 86_400_000
RUN = """INSERT INTO run (id, pipeline, version, document, parameters, labels, submitter, state,
         created_at, ended_at, parent, backfill_of)
         VALUES (?, 'p', 1, '{}', ?, '{"team": "a"}', 'x', ?, ?, ?, ?, ?)"""
JOB = """INSERT INTO work (run, node, seq, kind, capability, submitter, rank, state, spec,
         created_at, ended_at) VALUES (?, 'job', 0, 'call', 'a.do@1', 'x', 1, ?, ?, ?, ?)"""
LETTER = """INSERT INTO dead_letter (id, run, node, seq, kind, capability, submitter, input, problem,
            cause, attempts, data_class, output_class, created_at, state)
            VALUES (?, ?, 'job', 0, 'call', 'a.do@1', 'x', ?, '{}', 'crashes', 3, 'internal',
            'internal', 0, ?)"""
BATCH = "INSERT INTO batch (run, node, seq, sha256) VALUES (?, 'parse', ?, ?)"


class Kept:
    """A database with runs and jobs of different ages, and their retention."""

    def __init__(self, database, store, clock):
        self.database, self.store, self.clock = database, store, clock
        self.files = ArtifactService(database, store, None, clock)
        settings = RetentionSettings(runs_days=10, jobs_days=5, events_days=2, artifacts_days=20)
        self.leads = True
        self.engine = DirectEngine(None)
        self.retention = Retention(
            database, self.files, self.engine, settings, clock, lambda: self.leads
        )

    def at(self, days):
        return round(self.clock.now().timestamp() * 1000) - round(days * DAY_MS)

    def id(self, prefix, days):
        return f"{prefix}_{self.at(days):012x}{'0' * 20}"

    async def add(self, sql, *values):
        await self.database.write(lambda tx: tx.execute(sql, values))

    async def run(self, days, *, state="completed", parameters="{}", parent="", backfill_of=""):
        name = self.id("run", days)
        ended = None if state == "running" else self.at(days)
        values = (name, parameters, state, self.at(days), ended, parent, backfill_of)
        await self.add(RUN, *values)
        await self.add("INSERT INTO run_label (name, value, run) VALUES ('team', 'a', ?)", name)
        event = "INSERT INTO run_event (run, no, at, type) VALUES (?, 1, 0, 'started')"
        await self.add(event, name)
        return name

    async def job(self, days, *, state="completed", spec="{}"):
        name = self.id("job", days)
        ended = None if state == "queued" else self.at(days)
        await self.add(JOB, name, state, spec, self.at(days), ended)
        return name

    async def names(self, table, column):
        rows = await self.database.read(
            lambda tx: tx.all(f"SELECT DISTINCT {column} AS name FROM {table}")  # noqa: S608 - names of tables
        )
        return {row["name"] for row in rows}

    async def upload(self, data, media_type="text/plain"):
        async def chunks():
            yield data

        info = await self.files.upload(chunks(), name=None, media_type=media_type, origin="anna")
        return info.sha256


@pytest.fixture
async def kept(tmp_path, database):
    async with LocalArtifactStore(tmp_path / "artifacts") as store:
        yield Kept(database, store, ManualClock())


async def test_old_runs_and_jobs_go_and_young_or_open_ones_stay(kept):
    await kept.run(11)
    await kept.job(6)
    runs = {await kept.run(9), await kept.run(30, state="running")}
    jobs = {await kept.job(4), await kept.job(31, state="queued")}
    counts = await kept.retention.sweep()
    assert (counts["runs"], counts["jobs"]) == (1, 1)
    assert await kept.names("run", "id") == runs
    assert await kept.names("work", "run") == jobs


class Heard:
    """A transaction whose statements are noted."""

    def __init__(self, tx, said):
        self.tx, self.said = tx, said

    def __getattr__(self, name):
        found = getattr(self.tx, name)
        if not callable(found):
            return found

        def heard(sql, *rest):
            self.said.add(sql)
            return found(sql, *rest)

        return heard


async def test_sweeps_that_remove_a_few_jobs_more_prepare_nothing_more(kept):
    said, before = set(), set()
    for count in range(9, 17):
        jobs = [await kept.job(6 + n / 100) for n in range(count)]
        removed = await kept.database.write(
            lambda tx, jobs=jobs: remove_jobs(Heard(tx, said), jobs, kept.at(5))
        )
        assert removed == count
        before = before or set(said)
    assert said == before


async def test_all_rows_of_a_run_go_however_many_there_are(kept):
    run = await kept.run(11)
    await kept.database.write(
        lambda tx: tx.execute_many(BATCH, [(run, seq, "00") for seq in range(1203)])
    )
    await kept.retention.sweep()
    for table in ("batch", "run_label", "run_event"):
        assert await kept.names(table, "run") == set()
    assert await kept.names("expired_run", "id") == set()


async def test_the_engine_forgets_runs_that_have_gone(kept):
    run = await kept.run(11)
    await kept.run(9)
    await kept.retention.sweep()
    assert kept.engine.forgotten == [run]


async def test_the_first_job_of_a_batch_goes_with_its_last_one(kept):
    batch = [f"{kept.id('job', 6)}-{number:06d}" for number in range(1, 1203)]
    rows = [(job, "completed", "{}", kept.at(6), kept.at(6)) for job in batch]
    await kept.database.write(lambda tx: tx.execute_many(JOB, rows))
    await kept.add("UPDATE work SET ended_at = ? WHERE run = ?", kept.at(4), batch[700])
    assert (await kept.retention.sweep())["jobs"] == 1200
    assert await kept.names("work", "run") == {batch[0], batch[700]}
    await kept.add("UPDATE work SET ended_at = ?", kept.at(6))
    assert (await kept.retention.sweep())["jobs"] == 2


async def test_a_dry_run_counts_of_a_batch_what_a_sweep_removes(kept):
    batches = [
        [f"{kept.id('job', days)}-{number:06d}" for number in range(1, 4)] for days in (6, 7, 8, 9)
    ]
    rows = [(job, "completed", "{}", 0, kept.at(6)) for jobs in batches for job in jobs]
    await kept.database.write(lambda tx: tx.execute_many(JOB, rows))
    _, late, letter, under_way = batches
    end = "UPDATE work SET ended_at = ? WHERE run = ?"
    await kept.add(end, kept.at(4), late[1])
    await kept.add(LETTER, "dl_1", letter[2], "[]", "open")
    await kept.add(end, None, under_way[1])
    due = (await kept.retention.show(count=True)).due["jobs"]
    assert due == (await kept.retention.sweep())["jobs"] == 6
    stay = {late[0], late[1], letter[0], letter[2], under_way[0], under_way[1]}
    assert await kept.names("work", "run") == stay
    assert (await kept.retention.show(count=True)).due["jobs"] == 0


async def test_what_attempts_have_in_common_goes_with_the_last_of_their_jobs(kept):
    where = Placed(instance="w1", identity="i", worker="w 1", explanation="{}", endpoint="")
    end = "UPDATE work SET attempt_group = ?, ended_at = ? WHERE run = ?"

    def ended_together(tx, jobs, at):
        group = keep_in_common(tx, jobs, where, at, at)
        tx.execute_many(end, [(group, at, job) for job in jobs])
        return group

    groups = []
    for jobs, days in (
        ([await kept.job(8), await kept.job(7)], 6),
        ([await kept.job(6.5), "job_that_is_gone"], 4),
        (["job_that_was_cancelled_meanwhile"], 7),
    ):
        work = partial(ended_together, jobs=jobs, at=kept.at(days))
        groups.append(await kept.database.write(work))
    await kept.retention.sweep()
    assert await kept.names("attempt_group", "id") == {groups[1]}


async def test_an_interrupted_removal_is_gone_on_with(kept):
    await kept.add(BATCH, "run_gone", 1, "00")
    await kept.add("INSERT INTO expired_run (id, at) VALUES ('run_gone', 0)")
    await kept.retention.sweep()
    assert await kept.names("batch", "run") == set()


async def test_what_a_letter_is_of_stays_as_long_after_it_was_settled(kept):
    for number, (days, state) in enumerate([(4, "discarded"), (6, "discarded"), (6, "retried")]):
        job = await kept.job(20 + number, state="failed")
        await kept.add(LETTER, f"dl_{number}", job, "[]", state)
        settled = "UPDATE dead_letter SET settled_at = ? WHERE id = ?"
        await kept.add(settled, kept.at(days), f"dl_{number}")
    await kept.retention.sweep()
    assert await kept.names("dead_letter", "id") == {"dl_0"}
    assert await kept.names("work", "run") == {kept.id("job", 20)}


async def test_a_run_or_job_with_an_open_dead_letter_stays(kept):
    run, job, settled = await kept.run(11), await kept.job(6), await kept.job(7)
    await kept.add(LETTER, "dl_1", run, "[]", "open")
    await kept.add(LETTER, "dl_2", job, "[]", "open")
    await kept.add(LETTER, "dl_3", settled, "[]", "discarded")
    await kept.retention.sweep()
    assert await kept.names("run", "id") == {run}
    assert await kept.names("work", "run") == {job}
    assert await kept.names("dead_letter", "id") == {"dl_1", "dl_2"}


async def test_a_letter_that_is_opened_again_beside_a_sweep_keeps_its_job(kept):
    job = await kept.job(20, state="failed")
    await kept.add(LETTER, "dl_1", job, "[]", "discarded")
    before = kept.at(5)
    due = await kept.database.read(lambda tx: due_jobs(tx, JOBS, before, 10))
    await kept.database.write(lambda tx: reopen(tx, "dl_1"))
    await kept.database.write(lambda tx: remove_jobs(tx, due, before))
    assert due == [job]
    assert await kept.names("work", "run") == {job}
    assert await kept.names("dead_letter", "id") == {"dl_1"}


async def test_a_run_stays_while_what_belongs_to_it_is_open(kept):
    parent, partial = await kept.run(13), await kept.run(12, state="partial")
    child = await kept.run(11, state="running", parent=parent)
    later = await kept.run(1, state="running", backfill_of=partial)
    await kept.retention.sweep()
    assert await kept.names("run", "id") == {parent, child, partial, later}


async def test_events_may_go_before_their_run(kept):
    run = await kept.run(3)
    await kept.retention.sweep()
    assert await kept.names("run", "id") == {run}
    assert await kept.names("run_event", "run") == set()


async def test_a_dry_run_counts_what_a_sweep_removes(kept):
    await kept.run(11)
    await kept.job(6)
    await kept.upload(b"old")
    kept.clock.jump(timedelta(days=21))
    due = (await kept.retention.show(count=True)).due
    assert (due["runs"], due["jobs"], due["entries"]) == (1, 1, 1)
    assert await kept.names("run", "id") != set()


async def test_an_upload_goes_in_two_sweeps_when_nothing_names_it(kept):
    digest = await kept.upload(b"old")
    kept.clock.jump(timedelta(days=21))
    assert (await kept.retention.sweep())["entries"] == 1
    assert await kept.store.size(digest) == 3
    assert (await kept.retention.sweep())["artifacts"] == 1
    assert await kept.store.size(digest) is None


async def test_what_is_uploaded_again_is_young(kept):
    digest = await kept.upload(b"old")
    kept.clock.jump(timedelta(days=21))
    await kept.upload(b"old")
    await kept.retention.sweep()
    await kept.retention.sweep()
    assert await kept.store.size(digest) == 3


@pytest.mark.parametrize("by", ["run", "job", "letter", "batch", "folder", "dataset", "step"])
async def test_what_something_kept_needs_stays(kept, by):
    digest = await kept.upload(b"needed")
    kept.clock.jump(timedelta(days=21))
    named = json.dumps({"file": {"sha256": digest}})
    match by:
        case "run":
            await kept.run(1, parameters=named)
        case "job":
            await kept.job(1, spec=named)
        case "letter":
            await kept.add(LETTER, "dl_1", "run_1", named, "open")
        case "batch":
            await kept.add(BATCH, await kept.run(1, state="failed"), 1, digest)
        case "folder":
            tree = json.dumps({"entries": {"a": {"sha256": digest, "size": 6}}}).encode()
            folder = await kept.upload(tree, TREE_MEDIA_TYPE)
            await kept.job(1, spec=json.dumps({"sha256": folder}))
        case "dataset":
            sql = """INSERT INTO dataset_part (name, version, seq, sha256, count, bytes)
                     VALUES ('d', 1, 1, ?, 1, 6)"""
            await kept.add(sql, digest)
        case "step":
            sql = "INSERT INTO step_artifact (run, node, seq, sha256) VALUES ('run_1', 'a', 0, ?)"
            await kept.add(sql, digest)
    for _ in range(3):
        await kept.retention.sweep()
    assert await kept.store.size(digest) == 6


@pytest.mark.parametrize("wrong", ["deep", "damaged"])
async def test_a_folder_that_cannot_be_read_ends_no_sweep(kept, wrong):
    nested = b"[" * 5000 + b"]" * 5000 if wrong == "deep" else b"0"
    folder = await kept.upload(b'{"entries":{},"x":' + nested + b"}", TREE_MEDIA_TYPE)
    await kept.job(1, spec=json.dumps({"sha256": folder}))
    if wrong == "damaged":
        (kept.store._folder / folder[:2] / folder[2:]).write_bytes(b"{}")
        kept.store._forget(folder)
    loose = await kept.upload(b"of nobody")
    kept.clock.jump(timedelta(days=21))
    for _ in range(3):
        await kept.retention.sweep_as_leader()
    assert await kept.store.size(loose) is None


async def test_nothing_that_a_damaged_folder_may_hold_is_removed_before_it_is_stored_again(kept):
    held = await kept.upload(b"held")
    tree = json.dumps({"entries": {"a": {"sha256": held, "size": 4}}}).encode()
    folder = await kept.upload(tree, TREE_MEDIA_TYPE)
    await kept.job(1, state="queued", spec=json.dumps({"sha256": folder}))
    (kept.store._folder / folder[:2] / folder[2:]).write_bytes(b"{}")
    kept.store._forget(folder)
    kept.clock.jump(timedelta(days=21))
    for _ in range(3):
        await kept.retention.sweep()
    assert await kept.store.size(held) == 4
    loose = await kept.store.put(b"of nobody", "")
    os.utime(kept.store._path(loose.sha256), (1, 1))
    await kept.store.put(tree, folder)
    for _ in range(3):
        await kept.retention.sweep()
    assert (await kept.store.size(held), await kept.store.size(loose.sha256)) == (4, None)


async def test_nothing_goes_under_a_reader(kept):
    data = bytes(SMALL + BLOCK)
    digest = (await kept.store.put(data, "")).sha256
    kept.clock.jump(timedelta(days=3))
    reading = kept.store.read_range(digest, 0, len(data))
    first = await anext(reading)
    assert await kept.files.collect(0.0, KeptDigests()) == 0
    assert first + b"".join([block async for block in reading]) == data


async def test_uploads_that_were_left_behind_go(kept, tmp_path):
    left = tmp_path / "artifacts" / "tmp" / "p9"
    left.mkdir()
    (left / "abc").write_bytes(b"half")
    kept.clock.jump(timedelta(days=3))
    await kept.retention.sweep()
    assert list(left.iterdir()) == []


async def test_no_transaction_of_a_sweep_has_many_rows(kept, monkeypatch):
    monkeypatch.setattr(retention, "ROWS", 50)
    for number in range(120):
        await kept.add(JOB, kept.id("job", 6 + number / 100), "completed", "{}", 0, 1)
    sizes = []
    write = kept.database.write

    async def counted(work):
        def measured(tx):
            before = tx.one("SELECT count(*) AS n FROM work")["n"]
            result = work(tx)
            sizes.append(before - tx.one("SELECT count(*) AS n FROM work")["n"])
            return result

        return await write(measured)

    monkeypatch.setattr(kept.database, "write", counted)
    await kept.retention.sweep()
    assert sum(sizes) == 120
    assert max(sizes) <= 50


async def test_one_that_does_not_lead_sweeps_by_itself_never(kept):
    await kept.run(11)
    kept.leads = False
    await kept.retention.sweep_as_leader()
    assert len(await kept.names("run", "id")) == 1
    kept.leads = True
    await kept.retention.sweep_as_leader()
    assert await kept.names("run", "id") == set()


async def test_a_sweep_ends_where_another_replica_begins_to_lead(kept, monkeypatch):
    monkeypatch.setattr(retention, "ROWS", 50)
    for number in range(70):
        await kept.add(JOB, kept.id("job", 6 + number / 100), "completed", "{}", 0, 1)
    write = kept.database.write

    async def and_then_another_leads(work):
        kept.leads = False
        return await write(work)

    monkeypatch.setattr(kept.database, "write", and_then_another_leads)
    await kept.retention.sweep_as_leader()
    assert len(await kept.names("work", "run")) == 20


async def test_what_is_due_is_told_also_where_others_lead_now(kept):
    await kept.retention.sweep_as_leader()
    kept.leads = False
    await kept.run(11)
    assert (await kept.retention.show(count=True)).due["runs"] == 1


async def test_a_letter_that_is_retried_while_a_sweep_reads_keeps_its_input(kept, monkeypatch):
    digest = await kept.upload(b"needed")
    kept.clock.jump(timedelta(days=21))
    named = json.dumps({"file": {"sha256": digest}})
    await kept.add(LETTER, "dl_1", await kept.job(4, state="failed"), named, "open")
    read, retried = kept.database.read, []

    async def and_then_it_is_retried(work):
        found = await read(work)
        scanned = getattr(work, "func", None) in {named_by_jobs, named_by_letters}
        if scanned and found[0] == "" and not retried:  # behind the last of the first kind
            retried.append(await kept.job(0, state="queued", spec=named))
            await kept.add("UPDATE dead_letter SET state = 'retried' WHERE id = 'dl_1'")
        return found

    monkeypatch.setattr(kept.database, "read", and_then_it_is_retried)
    assert (await kept.retention.sweep())["entries"] == 0
    assert retried


async def test_what_is_kept_is_remembered_in_little_memory():
    kept, digests = KeptDigests(), [sha256(b"%d" % n).hexdigest() for n in range(20_000)]
    kept.add(digests).add(digests)
    assert len(kept) == len(digests)
    assert all(one in kept for one in digests)
    assert sha256(b"other").hexdigest() not in kept
    assert sum(sys.getsizeof(bucket) for bucket in kept._buckets) < 40 * len(digests)


async def test_names_of_files_are_read_in_groups(kept, monkeypatch):
    old = [(await kept.store.put(b"%d" % n, "")).sha256 for n in range(7)]
    kept.clock.jump(timedelta(days=3))
    groups = []
    referenced = kept.files._referenced

    async def noted(group):
        groups.append(len(group))
        return await referenced(group)

    monkeypatch.setattr(kept.files, "_referenced", noted)
    monkeypatch.setattr(service, "DIGESTS_PER_READ", 3)
    assert await kept.files.collect(0.0, KeptDigests().add(old[:1])) == 6
    assert sum(groups) == 6
    assert max(groups) <= 3


def test_ids_are_sorted_by_the_time_that_retention_reads_of_them():
    assert re.fullmatch("job_[0-9a-f]{32}", ids.new_job_id())
    assert bound(JOBS, 0) < ids.new_job_id() < bound(JOBS, 4_000_000_000_000)
