"""The worker in the SDK's README runs, and passes the suite as the README says."""

import sys
from pathlib import Path

import pytest
from hivemesh_sdk.cli import main
from pages import blocks

README = "plugin-sdk/README.md"
YAML, PYTHON = blocks(README, "yaml"), blocks(README, "python")


def forget():
    """Let nobody take one worker's modules for those of another one of that name."""
    for name in [one for one in sys.modules if one.partition(".")[0] == "worker_text"]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    forget()
    package = tmp_path / "src" / "worker_text"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "main.py").write_text(PYTHON[0])
    (tmp_path / "plugin.yaml").write_text(YAML[0])
    data = tmp_path / "tests" / "data"
    data.mkdir(parents=True)
    (data / "poem.txt").write_text("one\n\nthree\nfour\n")
    (tmp_path / "tests" / "examples.yaml").write_text(YAML[1])
    (tmp_path / "tests" / "test_conformance.py").write_text(PYTHON[1])
    yield tmp_path
    forget()


@pytest.mark.integration
def test_the_worker_of_the_readme_is_conforming(folder, capsys):
    code = main(["conformance", str(folder)])
    assert code == 0, capsys.readouterr().out


def test_the_laws_hold_for_the_worker_of_the_readme(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {"Path": Path}
    exec(PYTHON[0], names)  # noqa: S102 - an example of our own
    exec(PYTHON[2], names)  # noqa: S102 - an example of our own
