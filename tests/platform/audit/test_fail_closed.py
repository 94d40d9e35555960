"""Where nothing can be written down, security actions do not happen, and the data plane goes on."""

import asyncio
import errno
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_support import Place, event, write
from hivemesh_platform.audit.errors import AuditUnavailableError
from hivemesh_platform.audit.segments import segments
from hivemesh_sdk.client import Client
from hivemesh_sdk.errors import RemoteError
from platform_support import ask, install, join, member, platform
from registry_support import heartbeat

CHILD = Path(__file__).parents[2] / "support" / "full_disk_child.py"


class Disk:
    """A disk that is full as long as a test says so."""

    def __init__(self, monkeypatch):
        self.full = False
        self._write, self._sync = os.write, os.fdatasync
        monkeypatch.setattr("hivemesh_platform.audit.segments.write_durably", self.write)
        monkeypatch.setattr("hivemesh_platform.audit.writer.write_durably", self.write)
        monkeypatch.setattr("hivemesh_platform.audit.checkpoints.write_durably", self.write)

    def write(self, descriptor, data, size):
        if self.full:
            self._write(descriptor, data[: len(data) // 2])  # a part still fitted
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._write(descriptor, data)
        self._sync(descriptor)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


async def test_a_record_that_cannot_be_made_durable_is_refused(tmp_path, disk):
    place = Place(tmp_path)
    async with place.open() as trail:
        await write(trail, 3)
        disk.full = True
        with pytest.raises(AuditUnavailableError, match="No space") as refused:
            await trail.record(event(9))
        assert refused.value.problem().code == "HM-1700"
        assert refused.value.problem().status == 503
        assert trail.counters.refused == 1
        assert "No space" in trail.problem
        disk.full = False
        await trail.record(event(10))
        assert trail.problem == ""
    assert [one.object for one in place.records()] == ["run_0", "run_1", "run_2", "run_10"]
    assert place.verify().finding is None


async def test_all_that_wait_together_are_refused_together(tmp_path, disk):
    place = Place(tmp_path)
    async with place.open() as trail:
        disk.full = True
        waiting = (trail.record(event(number)) for number in range(20))
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(one, AuditUnavailableError) for one in answers)
        disk.full = False
    assert place.records() == []


async def test_notes_are_dropped_counted_and_told_when_it_works_again(tmp_path, disk):
    place = Place(tmp_path)
    async with place.open() as trail:
        disk.full = True
        for number in range(3):
            trail.note(event(number))
        trail.note(event(0))
        await trail.end()
        assert trail.counters.dropped == 4
        trail.note(event(5))
        await trail.end()
        disk.full = False
        await trail.record(event(9))
    assert [(one.action, one.count) for one in place.records()] == [
        ("trail:notes-dropped", 5),
        ("run:pipeline", 1),
    ]


@pytest.mark.integration
async def test_a_limit_of_the_kernel_refuses_and_leaves_whole_records(tmp_path):
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHILD),
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CHILD.parent)},
    )
    async with asyncio.timeout(60):
        output, _ = await child.communicate()
    lines = output.decode().splitlines()
    assert [one for one in lines if one in ANSWERS] == ["refused", "refused", "ended"]
    place = Place(tmp_path)
    found = place.records()
    assert found
    data = segments(place.folder)[-1].path.read_bytes()
    assert data.endswith(b"\n")
    assert place.verify().finding is None
    assert place.verify().recovered == 0


DONE = ("enrolment:", "export:", "secrets:", "workers:")  # what is written once it may happen
ANSWERS = {"refused", "ended"}
SECURITY = {
    "join token": ("join_token", "echo"),
    "API token": ("create_api_token", "ci"),
    "role change": ("grant", "user", "anna", "analyst"),
    "new role": ("put_role", "auditor", ["read:audit"]),
    "eviction": ("deny", "evict", "echo", "test"),
    "ban": ("deny", "ban", "echo", "test"),
    "secret written": ("set_secret", "mail.password", "x"),
    "secret read": ("reveal_secret", "known.one"),
    "trail exported": ("export_audit",),
    "artifact exported": ("artifact", "SHA"),
}


@pytest.mark.integration
async def test_security_actions_are_refused_and_the_data_plane_goes_on(tmp_path, disk):
    worker = install(tmp_path)
    async with platform(tmp_path) as found, member(found, worker) as (instance, client):
        stored = await ask(found, "put_artifact", io.BytesIO(b"data"))
        await ask(found, "set_secret", "known.one", "value")
        token = await found.enrolment.create_token("echo")
        before = (await found.audit.end()).seq
        disk.full = True
        for name, (method, *arguments) in SECURITY.items():
            known = [stored.sha256 if one == "SHA" else one for one in arguments]
            with pytest.raises(RemoteError) as refused:
                await do(found, method, *known)
            assert refused.value.document.code == "HM-1700", name
        with pytest.raises(RemoteError) as refused:
            await join(found, worker, token=token)
        assert refused.value.document.code == "HM-1700"
        # calls of workers, reading, and new data
        await client.heartbeat(instance, heartbeat(active=1))
        assert (await client.discovery(-1, wait_s=0)).endpoints
        assert (await ask(found, "status")).live_instances == 1
        await ask(found, "put_artifact", io.BytesIO(b"more data"))
        text = await ask(found, "metrics")
        assert f"hivemesh_audit_refused_total {len(SECURITY) + 1}.0" in text
        disk.full = False
        tokens, roles = await ask(found, "api_tokens"), await ask(found, "roles")
        denials, secrets = await ask(found, "denials"), await ask(found, "secrets")
        records = await ask(found, "audit")
        report = await ask(found, "verify_audit")
    assert (tokens, denials) == ([], [])
    assert [one.path for one in secrets] == ["known.one"]
    assert "auditor" not in {one.name for one in roles}
    late = [one.action for one in records if one.seq > before]
    assert not [one for one in late if one.startswith(DONE)], late
    assert report.holds


async def do(found, method, *arguments):
    """Call a method of the client; a stream is read to its end."""

    def work():
        with Client.from_state(found.state_folder) as client:
            answer = getattr(client, method)(*arguments)
            return list(answer) if isinstance(answer, Iterator) else answer

    return await asyncio.to_thread(work)
