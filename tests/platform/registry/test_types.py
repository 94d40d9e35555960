from pathlib import Path

from hivemesh_platform.registry.types import WorkerTypes

MANIFEST = """
apiVersion: hivemesh/v1
kind: Worker
metadata: {{name: {name}, version: {version}}}
runtime: {{entrypoint: "worker_x.main:worker"}}
capabilities: [{{id: x.do@1, kind: call}}]
"""


def install(folder: Path, name: str, version: str = "1.0.0") -> Path:
    (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / name / "plugin.yaml"
    path.write_text(MANIFEST.format(name=name, version=version))
    return path


def test_every_subfolder_with_a_manifest_is_a_worker(tmp_path: Path) -> None:
    install(tmp_path, "a")
    install(tmp_path, "b")
    (tmp_path / "no-worker").mkdir()
    types = WorkerTypes([tmp_path])
    types.refresh()
    assert [worker.type.name for worker in types.all()] == ["a", "b"]


def test_a_folder_may_be_a_worker_itself(tmp_path: Path) -> None:
    install(tmp_path, "a")
    types = WorkerTypes([tmp_path / "a"])
    types.refresh()
    assert types.get("a") is not None


def test_a_folder_that_is_missing_holds_no_workers(tmp_path: Path) -> None:
    types = WorkerTypes([tmp_path / "nowhere"])
    types.refresh()
    assert not types.all()


def test_a_broken_manifest_leaves_the_other_workers_alone(tmp_path: Path) -> None:
    install(tmp_path, "a")
    install(tmp_path, "b").write_text("apiVersion: [")
    types = WorkerTypes([tmp_path])
    types.refresh()
    assert [worker.type.name for worker in types.all()] == ["a"]
    assert [broken.name for broken in types.broken()] == ["b"]
    assert "line" in types.broken()[0].reason


def test_a_name_is_installed_once(tmp_path: Path) -> None:
    install(tmp_path / "one", "a", "1.0.0")
    install(tmp_path / "two", "a", "2.0.0")
    types = WorkerTypes([tmp_path / "one", tmp_path / "two"])
    types.refresh()
    found = types.get("a")
    assert found is not None
    assert found.type.version == "1.0.0"
    assert "installed from" in types.broken()[0].reason


def test_a_new_worker_appears_without_a_restart(tmp_path: Path) -> None:
    types = WorkerTypes([tmp_path])
    types.refresh()
    install(tmp_path, "a")
    assert types.refresh()
    assert types.get("a") is not None
    assert not types.refresh()
