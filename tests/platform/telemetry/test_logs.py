import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hivemesh_platform.telemetry import logs


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """A configured log; the process's own logging is as before afterwards."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level, logging.raiseExceptions)
    path = tmp_path / "logs" / "platform.log"
    handler = logs.configure(path, level="info", max_bytes=4096, files=2)
    yield path
    handler.close()
    root.handlers[:], root.level, logging.raiseExceptions = before
    structlog.reset_defaults()


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_event_is_one_json_line_with_its_fields(log: Path) -> None:
    structlog.get_logger("x").info("step_finished", run_id="r", seconds=0.5)
    (line,) = lines(log)
    assert (line["event"], line["run_id"], line["level"]) == ("step_finished", "r", "info")
    assert str(line["timestamp"]).endswith("Z")


def test_libraries_write_to_the_same_file(log: Path) -> None:
    logging.getLogger("some.library").warning("odd %s", "thing")
    assert lines(log)[0]["event"] == "odd thing"


def test_a_newline_in_a_value_does_not_make_a_line(log: Path) -> None:
    structlog.get_logger("x").info("refused", detail='a\n{"event": "forged"}')
    assert len(lines(log)) == 1


def test_what_is_below_the_level_is_left_out(log: Path) -> None:
    structlog.get_logger("x").debug("detail")
    assert log.read_text() == ""


def test_the_file_is_rotated_by_size_and_bounded(log: Path) -> None:
    for number in range(300):
        structlog.get_logger("x").info("event", number=number, text="x" * 100)
    names = sorted(path.name for path in log.parent.iterdir())
    assert names == ["platform.log", "platform.log.1", "platform.log.2"]
    assert all(path.stat().st_size <= 4096 for path in log.parent.iterdir())


def test_only_its_owner_may_read_it(log: Path) -> None:
    assert log.stat().st_mode & 0o077 == 0
