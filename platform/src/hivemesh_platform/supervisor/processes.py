"""Starts one worker process, watches for its end, signals it. Works on adopted ones alike.

A process is known by pid and start time, so that a pid that was given to somebody else is never
signalled. Its end is an event of the kernel (pidfd), not a question asked again and again.
"""

import asyncio
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MOST_LOOKS = 20  # at a session that is ended: between two of them it may start another process


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a process is started."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    output: int  # descriptor
    max_file_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, told apart from any other that ever has the same pid."""

    pid: int
    started: str  # boot id and start time in clock ticks

    def exists(self) -> bool:
        """Whether that very process is still there (a zombie is not)."""
        state = _stat(self.pid)
        return state is not None and state[0] not in "ZX" and self.started == _started(state[1])

    def stopped(self) -> bool:
        """Whether a signal has suspended it."""
        state = _stat(self.pid)
        return state is not None and state[0] in "Tt"


class WorkerProcess:
    """A running worker, ours by birth or by adoption."""

    def __init__(self, identity: ProcessId, child: "subprocess.Popen[bytes] | None") -> None:
        self.id = identity
        self._child = child
        self._ended = asyncio.Event()
        self._descriptor = -1
        self._watch()

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    async def wait(self) -> None:
        """Return when it has ended."""
        await self._ended.wait()

    def exit_code(self) -> int | None:
        """The exit code (negative: the signal), where the kernel tells us."""
        return self._child.returncode if self._child is not None else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        if not self.ended and self.id.exists():
            with suppress(ProcessLookupError):
                os.kill(self.id.pid, number)

    def kill(self) -> None:
        """End the process and everything it started."""
        kill_session(self.id)

    def release(self) -> None:
        """Stop watching; the process is left alone."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _watch(self) -> None:
        try:
            self._descriptor = os.pidfd_open(self.id.pid)
        except ProcessLookupError:
            self._on_end()
            return
        if self._child is None and not self.id.exists():
            os.close(self._descriptor)
            self._descriptor = -1
            self._on_end()
            return
        asyncio.get_running_loop().add_reader(self._descriptor, self._on_end)

    def _on_end(self) -> None:
        self.release()
        if self._child is not None:
            self._child.wait()
        kill_session(self.id)  # what outlived its front
        self._ended.set()


def start(launch: Launch) -> tuple[WorkerProcess, socket.socket]:
    """Start a process in a session of its own; the socket is the way of its tokens.

    The process is not tied to our life: it outlives a killed platform and is adopted by the next.
    """
    ours, theirs = socket.socketpair()
    try:
        child = subprocess.Popen(  # noqa: S603 - a command of ours, no shell
            [*launch.command],
            cwd=launch.folder,
            env={**launch.environment, "HIVEMESH_TOKEN_FD": str(theirs.fileno())},
            stdin=subprocess.DEVNULL,
            stdout=launch.output,
            stderr=launch.output,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    _limit(child.pid, launch.max_file_bytes)
    return WorkerProcess(identify(child.pid), child), ours


def identify(pid: int) -> ProcessId:
    """The identity of a process that exists now."""
    state = _stat(pid)
    return ProcessId(pid, _started(state[1]) if state is not None else "")


def kill_session(identity: ProcessId) -> None:
    """End all processes of a session that we once started, even if its leader has ended.

    Executors have groups of their own, so a group would be the front alone; only what has made a
    session of its own escapes.
    """
    for _ in range(MOST_LOOKS):
        leader = _stat(identity.pid)
        if leader is not None and _started(leader[1]) != identity.started:
            return  # the pid belongs to somebody else
        members = [pid for pid in _pids() if _session(pid) == identity.pid and not _ended(pid)]
        for pid in members:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not members:
            return


def usage(leaders: Collection[int]) -> dict[int, tuple[int, int]]:
    """Per session, how many processes it has and the memory they hold together (PSS)."""
    found = dict.fromkeys(leaders, (0, 0))
    for pid in _pids():
        session = _session(pid)
        if session in found:
            count, held = found[session]
            found[session] = (count + 1, held + _pss(pid))
    return found


def _limit(pid: int, max_file_bytes: int) -> None:
    """No core dumps (they would hold keys), no endless files."""
    with suppress(ProcessLookupError, PermissionError):
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        if max_file_bytes:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))


def _stat(pid: int) -> tuple[str, list[str]] | None:
    """State and the fields after it of /proc/<pid>/stat; the name before may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], fields


def _started(fields: list[str]) -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{fields[19]}"  # field 22 of proc(5), counted from the state


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _session(pid: int) -> int:
    state = _stat(pid)
    return int(state[1][3]) if state is not None else 0


def _ended(pid: int) -> bool:
    state = _stat(pid)
    return state is None or state[0] in "ZX"


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0
