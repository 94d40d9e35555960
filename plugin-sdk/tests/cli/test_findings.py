"""What `check` finds beside capabilities: versions, files, images."""

import sys
from pathlib import Path

import pytest
from hivemesh_sdk.cli.findings import Level, check
from hivemesh_sdk.lifecycle.location import locate

TEXT = Path(__file__).parents[1] / "testing" / "text-worker"


def forget():
    """Let nobody take one worker's modules for those of another one of that name."""
    for name in [one for one in sys.modules if one.partition(".")[0] == "worker_text"]:
        del sys.modules[name]


@pytest.fixture
def worker(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    forget()
    for name in ("plugin.yaml", "pyproject.toml", "Dockerfile", "README.md"):
        (tmp_path / name).write_text((TEXT / name).read_text())
    (tmp_path / "src").symlink_to(TEXT / "src")
    (tmp_path / "tests").mkdir()
    yield tmp_path
    forget()


def change(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def bad(worker: Path) -> list[tuple[str, str]]:
    return [
        (one.level.value, one.what) for one in check(locate(worker)) if one.level is not Level.OK
    ]


def test_a_complete_worker_has_nothing_to_mend(worker):
    assert bad(worker) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "finding"),
    [
        ("plugin.yaml", "  publisher: hivemesh\n", "", "metadata.publisher is empty"),
        ("plugin.yaml", "runtime:", 'platform: ">=9"\nruntime:', "'>=9' excludes 0.1.0"),
        ("plugin.yaml", "worker_text.main", "worker_text.absent", "cannot be imported"),
        ("pyproject.toml", "1.2.3", "1.2.4", "1.2.3 in plugin.yaml and 1.2.4 in pyproject.toml"),
        ("pyproject.toml", "hivemesh-sdk==0.1.0", "x", "does not depend on hivemesh-sdk"),
        ("pyproject.toml", "[project]", "[project", "pyproject.toml cannot be read"),
        ("Dockerfile", "USER 10001\n", "", "the image runs as root"),
        ("Dockerfile", "USER 10001", "USER 0:0", "the image runs as root"),
    ],
)
def test_what_is_wrong_is_found(worker, name, old, new, finding):
    change(worker / name, old, new)
    ((_, what),) = bad(worker)
    assert finding in what


@pytest.mark.parametrize("name", ["Dockerfile", "README.md"])
def test_a_missing_file_is_a_warning(worker, name):
    (worker / name).unlink()
    assert bad(worker) == [("warning", f"{name} is missing")]


def test_every_finding_that_is_not_good_says_what_to_do(worker):
    (worker / "README.md").unlink()
    change(worker / "Dockerfile", "USER 10001", "USER root")
    assert all(one.fix for one in check(locate(worker)) if one.level is not Level.OK)
