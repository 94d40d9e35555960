"""What a command writes into a file is there whole, or the file is what it was."""

import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from hivemesh_platform.cli import output, run, session
from hivemesh_sdk.errors import NotFoundError

REFERENCE = {"sha256": "ab12", "size": 6, "media_type": "text/html", "name": "report.html"}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    file = tmp_path / "kept.txt"
    file.write_text("keep")
    return file


def broken(*blocks: bytes) -> Iterator[bytes]:
    yield from blocks
    message = "there is no such thing"
    raise NotFoundError(message)


@pytest.mark.parametrize("blocks", [(), (b"half of ",)])
def test_an_answer_that_fails_leaves_the_old_file_and_nothing_else(kept, blocks):
    with pytest.raises(NotFoundError):
        output.save(broken(*blocks), kept, "table")
    assert kept.read_text() == "keep"
    with pytest.raises(NotFoundError):
        output.save(broken(*blocks), kept.with_name("new.txt"), "table")
    assert [one.name for one in kept.parent.iterdir()] == ["kept.txt"]


def test_a_whole_answer_takes_the_place_of_the_old_one_with_its_mode(kept, capsys):
    kept.chmod(0o640)
    output.save([b"new ", b"one"], kept, "json")
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("new one", 0o640)
    assert json.loads(capsys.readouterr().out) == {"file": str(kept), "bytes": 7}


def test_a_link_stays_one_and_a_device_too(kept):
    link = kept.with_name("link")
    link.symlink_to(kept)
    output.save([b"new"], link, "table")
    assert (link.is_symlink(), kept.read_text()) == (True, "new")
    output.save([b"gone"], Path(os.devnull), "table")
    assert not Path(os.devnull).is_file()


def outputs(answer: bytes, kind: str = "value") -> SimpleNamespace:
    return SimpleNamespace(
        run=lambda _: SimpleNamespace(outputs={"report": {"kind": kind}}),
        output=lambda *_: iter([answer]),
        artifact=lambda digest: iter([f"<{digest}>".encode()]),
    )


@pytest.mark.parametrize(
    ("answer", "kind", "options", "written"),
    [
        (json.dumps(REFERENCE), "value", {}, "<ab12>"),
        (json.dumps(REFERENCE), "value", {"reference": True}, json.dumps(REFERENCE)),
        (json.dumps(REFERENCE), "dataset", {}, json.dumps(REFERENCE)),  # a record of one
        ('{"sha256": "ab12", "words": 7}', "value", {}, '{"sha256": "ab12", "words": 7}'),
        ("7", "value", {}, "7"),
    ],
)
def test_an_artifact_among_the_outputs_is_its_bytes(
    monkeypatch, tmp_path, answer, kind, options, written
):
    client = outputs(answer.encode(), kind)
    monkeypatch.setattr(session, "client", lambda _: nullcontext(client))
    file = tmp_path / "report"
    run.output_("run_1", "report", file, **options)
    assert file.read_text() == written


def test_without_a_file_json_is_the_reference(monkeypatch, capsysbinary):
    client = outputs(json.dumps(REFERENCE).encode())
    monkeypatch.setattr(session, "client", lambda _: nullcontext(client))
    run.output_("run_1", "report", fmt="json")
    assert json.loads(capsysbinary.readouterr().out) == REFERENCE
    run.output_("run_1", "report")
    assert capsysbinary.readouterr().out == b"<ab12>"
