"""The architecture page names modules that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "sdk": ROOT / "plugin-sdk" / "src" / "hivemesh_sdk",
    "": ROOT / "platform" / "src" / "hivemesh_platform",
}
PAGE = (ROOT / "docs" / "architecture.md").read_text()
WAY = PAGE.split("## The way of one batch")[1].split("\n## ")[0]
PACKAGES = sorted(path.name for path in SOURCES[""].iterdir() if (path / "__init__.py").exists())


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:[a-z_]+\.)+[a-z_]+)`", WAY))))
def test_module_on_the_way_of_a_batch_exists(name):
    owner = "sdk" if name.startswith("sdk.") else ""
    path = SOURCES[owner] / name.removeprefix("sdk.").replace(".", "/")
    assert path.with_suffix(".py").exists() or path.is_dir()


@pytest.mark.parametrize("name", [name for name in PACKAGES if name != "samples"])
def test_package_of_the_platform_is_described(name):
    assert f"`{name}/`" in PAGE
