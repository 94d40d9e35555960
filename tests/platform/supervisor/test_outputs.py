import errno
import os
import shutil
from pathlib import Path

import pytest
from hivemesh_platform.supervisor.outputs import WorkerLog


@pytest.fixture
def log(tmp_path: Path) -> WorkerLog:
    return WorkerLog(tmp_path / "logs" / "a.log", max_bytes=100, files=2)


def append(log: WorkerLog, text: str) -> None:
    descriptor = log.open()
    os.write(descriptor, text.encode())
    os.close(descriptor)


def test_a_log_that_is_not_there_is_empty(log: WorkerLog) -> None:
    assert log.tail(10) == b""
    assert not log.rotate()


def test_the_tail_is_the_last_lines(log: WorkerLog) -> None:
    append(log, "1\n2\n3\n4\n")
    assert log.tail(2) == b"3\n4\n"


def test_the_tail_of_a_long_log_is_found(log: WorkerLog) -> None:
    append(log, "".join(f"{number:09}\n" for number in range(50_000)))
    assert log.tail(10_000).splitlines()[0] == b"000040000"


def test_only_its_owner_may_read_it(log: WorkerLog) -> None:
    append(log, "1\n")
    assert log.path.stat().st_mode & 0o077 == 0


def test_a_small_log_is_left_alone(log: WorkerLog) -> None:
    append(log, "1\n")
    assert not log.rotate()


def test_a_large_log_is_moved_aside_while_it_is_written(log: WorkerLog) -> None:
    descriptor = log.open()
    os.write(descriptor, b"x" * 200 + b"\n")
    assert log.rotate()
    os.write(descriptor, b"after\n")
    os.close(descriptor)
    assert log.path.read_bytes() == b"after\n"
    assert log.path.with_name("a.log.1").stat().st_size == 201


def test_old_logs_are_dropped(log: WorkerLog) -> None:
    for number in range(4):
        append(log, str(number) * 200 + "\n")
        log.rotate()
    names = sorted(path.name for path in log.path.parent.iterdir())
    assert names == ["a.log", "a.log.1", "a.log.2"]
    assert log.path.with_name("a.log.1").read_bytes().startswith(b"3")


def test_a_full_disk_leaves_the_logs_as_they_are(
    log: WorkerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, "old" * 50 + "\n")
    log.rotate()
    append(log, "new" * 50 + "\n")

    def copyfile(_source: Path, target: Path) -> None:
        target.write_bytes(b"n")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    assert not log.rotate()
    assert sorted(path.name for path in log.path.parent.iterdir()) == ["a.log", "a.log.1"]
    assert log.tail(2) == b"old" * 50 + b"\n" + b"new" * 50 + b"\n"


def test_the_tail_reaches_into_the_rotated_log(log: WorkerLog) -> None:
    append(log, "old\n" * 50)
    log.rotate()
    append(log, "new\n")
    assert log.tail(2) == b"old\nnew\n"
