"""Where a worker is found: in a checkout, or installed."""

import sys

import pytest
from hivemesh_sdk.errors import ConfigurationError, InvalidError, NotFoundError
from hivemesh_sdk.lifecycle.location import import_worker, locate

MANIFEST = """\
apiVersion: hivemesh/v1
kind: Worker
metadata: {{name: {name}, version: 1.0.0}}
runtime: {{entrypoint: "{entrypoint}"}}
capabilities: [{{id: x.y@1, kind: call}}]
"""


@pytest.fixture
def checkout(tmp_path):
    def make(name="found-here", entrypoint="worker_found_here.main:worker", code="worker = 1\n"):
        folder = tmp_path / name
        package = folder / "src" / entrypoint.partition(".")[0]
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "main.py").write_text(code)
        (folder / "plugin.yaml").write_text(MANIFEST.format(name=name, entrypoint=entrypoint))
        return folder

    return make


@pytest.fixture
def installed(tmp_path, monkeypatch):
    site = tmp_path / "site"

    def make(*names):
        for name in names:
            package = site / f"worker_{name.replace('-', '_')}"
            package.mkdir(parents=True)
            (package / "plugin.yaml").write_text(MANIFEST.format(name=name, entrypoint="a.b:c"))
        monkeypatch.setattr(sys, "path", [str(site)])

    monkeypatch.chdir(tmp_path)
    return make


def test_a_checkout_is_found_by_folder_file_and_from_inside(checkout, monkeypatch):
    folder = checkout()
    monkeypatch.chdir(folder)
    found = [locate(folder), locate(folder / "plugin.yaml"), locate()]
    assert {(one.folder, one.source) for one in found} == {(folder, folder / "src")}


def test_an_installed_worker_is_found_by_its_name(installed):
    installed("email-parser", "other")
    location = locate("email-parser")
    assert (location.manifest.metadata.name, location.source) == ("email-parser", None)


def test_the_only_installed_worker_needs_no_name(installed):
    installed("email-parser")
    assert locate().manifest.metadata.name == "email-parser"


def test_several_installed_workers_need_a_name(installed):
    installed("one", "two")
    with pytest.raises(NotFoundError, match=r"one, two\); name one"):
        locate()


def test_nothing_is_found_where_there_is_nothing(installed):
    installed()
    with pytest.raises(NotFoundError, match=r"no plugin\.yaml here"):
        locate()


def test_a_wrong_manifest_is_invalid(checkout):
    folder = checkout()
    (folder / "plugin.yaml").write_text("kind: Worker\n")
    with pytest.raises(InvalidError):
        locate(folder)


@pytest.mark.parametrize(
    ("entrypoint", "code", "message"),
    [
        ("worker_absent_a.nothing:worker", "", "cannot be imported"),
        ("worker_absent_b.main:worker", "import nothing_of_that_name\n", "nothing_of_that_name"),
        ("worker_absent_c.main:worker", "worker = 1\n", "is no Worker"),
        ("worker_absent_d.main:worker", "", "is no Worker"),
    ],
)
def test_an_entrypoint_that_is_no_worker_is_named(checkout, monkeypatch, entrypoint, code, message):
    monkeypatch.setattr(sys, "path", list(sys.path))
    location = locate(checkout(entrypoint=entrypoint, code=code))
    with pytest.raises(ConfigurationError, match=message):
        import_worker(location)
