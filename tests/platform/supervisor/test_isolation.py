"""Two workers that need different versions of one library run side by side."""

import os
import zipfile
from pathlib import Path

import pytest
from hivemesh_platform.app import Platform
from platform_support import ask, platform
from waiting import until

pytestmark = pytest.mark.integration

MANIFEST = """
apiVersion: hivemesh/v1
kind: Worker
metadata: {{name: {name}, version: 1.0.0}}
runtime: {{entrypoint: "worker_{name}.main:worker"}}
capabilities: [{{id: {name}.version@1, kind: call, run_in: inline}}]
"""
PROJECT = """
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "hivemesh-worker-{name}"
version = "1.0.0"
requires-python = ">=3.11"
dependencies = ["hivemesh-sdk", "hivemesh-test-pinned=={version}"]

[tool.hatch.build.targets.wheel]
packages = ["src/worker_{name}"]
"""
MAIN = """
import hivemesh_test_pinned
from hivemesh_sdk import Worker

worker = Worker()


@worker.call("{name}.version@1")
async def version(input: None) -> str:
    return hivemesh_test_pinned.VERSION
"""


def write_library(folder: Path, version: str) -> None:
    """A wheel of one module; a wheel is a zip with three files about itself."""
    folder.mkdir(exist_ok=True)
    info = f"hivemesh_test_pinned-{version}.dist-info"
    with zipfile.ZipFile(folder / f"hivemesh_test_pinned-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("hivemesh_test_pinned.py", f"VERSION = {version!r}\n")
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: hivemesh-test-pinned\nVersion: {version}\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def write_worker(folder: Path, name: str, version: str) -> None:
    place = folder / "workers" / name
    (place / "src" / f"worker_{name}").mkdir(parents=True)
    (place / "plugin.yaml").write_text(MANIFEST.format(name=name))
    (place / "pyproject.toml").write_text(PROJECT.format(name=name, version=version))
    (place / "src" / f"worker_{name}" / "__init__.py").touch()
    (place / "src" / f"worker_{name}" / "main.py").write_text(MAIN.format(name=name))


def settled(found: Platform) -> bool:
    views = found.overview.workers()
    failed = [view.reason for view in views if "log:" in view.reason]
    assert not failed, failed
    return all(view.live for view in views)


async def version_of(found: Platform, name: str) -> object:
    job = await ask(found, "call", f"{name}.version@1", None)
    return job.outputs["result"]


async def test_incompatible_pins_run_side_by_side(tmp_path: Path) -> None:
    for name, version in (("one", "1.0"), ("two", "2.0")):
        write_library(tmp_path / "wheels", version)
        write_worker(tmp_path, name, version)
    links = f"{os.environ.get('PIP_FIND_LINKS', '')} {tmp_path / 'wheels'}".strip()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("HIVEMESH_")
    }
    async with platform(
        tmp_path, {**environment, "PIP_FIND_LINKS": links}, **{"workers.supervise": True}
    ) as found:
        await until(lambda: settled(found), within_s=240)
        versions = [await version_of(found, name) for name in ("one", "two")]
    assert versions == ["1.0", "2.0"]
