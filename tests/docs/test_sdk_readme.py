"""The worker in the SDK's README runs, and passes the suite as the README says."""

import re
from pathlib import Path

import pytest
from hivemesh_sdk.cli import main

TEXT = (Path(__file__).parents[2] / "plugin-sdk" / "README.md").read_text(encoding="utf-8")
YAML = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def folder(tmp_path):
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
    return tmp_path


@pytest.mark.integration
def test_the_worker_of_the_readme_is_conforming(folder, capsys):
    code = main(["conformance", str(folder)])
    assert code == 0, capsys.readouterr().out


def test_the_laws_hold_for_the_worker_of_the_readme(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {"Path": Path}
    exec(PYTHON[0], names)  # noqa: S102 - an example of our own
    exec(PYTHON[2], names)  # noqa: S102 - an example of our own
