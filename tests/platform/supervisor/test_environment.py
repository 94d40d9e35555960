import os
import sys
from pathlib import Path

import pytest
from hivemesh_platform.supervisor import first_party
from hivemesh_platform.supervisor.environment import (
    BuilderSettings,
    EnvironmentBuilder,
    Recipe,
)
from hivemesh_platform.supervisor.first_party import WorkerEnvironmentError, sdk_source
from hivemesh_platform.supervisor.indexes import Indexes

FAKE_PYTHON = """#!{python}
import os, pathlib, sys
with open({log!r}, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
pathlib.Path({variables!r}).write_text("\\n".join(sorted(os.environ)))
if {fails!r} in " ".join(sys.argv):
    print("error: no matching package\\n  cause: 'tally' was not found in the registry")
    print("    and the worker needs it\\n  Caused by: it is an error\\n\\nhint: use the cache")
    raise SystemExit(1)
if "venv" in sys.argv:
    binary = pathlib.Path(sys.argv[-1]) / "bin"
    binary.mkdir(parents=True)
    (binary / "python").symlink_to(__file__)
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    for name in ("sdk", "worker"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").write_text(f"[project]\nname = {name!r}\n")
    return Recipe(worker="echo", worker_source=tmp_path / "worker", sdk_source=tmp_path / "sdk")


def builder(tmp_path: Path, *, fails: str = "nothing", kind: str = "uv") -> EnvironmentBuilder:
    """A builder whose interpreter only writes down what it was asked for."""
    fake = tmp_path / "python"
    fake.write_text(
        FAKE_PYTHON.format(
            python=sys.executable,
            log=str(tmp_path / "commands"),
            variables=str(tmp_path / "variables"),
            fails=fails,
        )
    )
    fake.chmod(0o700)
    return EnvironmentBuilder(
        BuilderSettings(
            folder=tmp_path / "environments",
            cache=tmp_path / "cache",
            indexes=Indexes(index_url="https://index.invalid"),
            environment={**os.environ, "HIVEMESH_SECRET": "x", "AWS_SECRET_ACCESS_KEY": "y"},
            builder=kind,
            python=str(fake),
        )
    )


def commands(tmp_path: Path) -> list[str]:
    path = tmp_path / "commands"
    return path.read_text().splitlines() if path.exists() else []


async def test_sdk_and_worker_are_installed_from_their_folders(
    tmp_path: Path, recipe: Recipe
) -> None:
    python = await builder(tmp_path).build(recipe, tmp_path / "log")
    assert python.is_file()
    install = commands(tmp_path)[1]
    assert f"-e {tmp_path / 'sdk'} -e {tmp_path / 'worker'}" in install
    assert "-m uv" in install


async def test_a_second_start_builds_nothing(tmp_path: Path, recipe: Recipe) -> None:
    first = await builder(tmp_path).build(recipe, tmp_path / "log")
    before = len(commands(tmp_path))
    again = builder(tmp_path)
    assert again.prepared(recipe)
    assert await again.build(recipe, tmp_path / "log") == first
    assert len(commands(tmp_path)) == before


async def test_changed_dependencies_make_another_environment(
    tmp_path: Path, recipe: Recipe
) -> None:
    found = builder(tmp_path)
    first = await found.build(recipe, tmp_path / "log")
    (tmp_path / "worker" / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    second = await found.build(recipe, tmp_path / "log")
    assert first != second
    found.remove_others(recipe)
    assert [second.is_file(), first.is_file()] == [True, False]


async def test_a_failed_build_says_why_and_where(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(WorkerEnvironmentError, match="no matching package") as failed:
        await builder(tmp_path, fails="install").build(recipe, tmp_path / "log")
    assert str(tmp_path / "log") in failed.value.detail
    assert failed.value.problem().code == "HM-1606"


async def test_a_failed_build_is_tried_again(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(WorkerEnvironmentError):
        await builder(tmp_path, fails="install").build(recipe, tmp_path / "log")
    assert (await builder(tmp_path).build(recipe, tmp_path / "log")).is_file()


async def test_pip_is_the_fallback_of_uv(tmp_path: Path, recipe: Recipe) -> None:
    await builder(tmp_path, fails="-m uv", kind="auto").build(recipe, tmp_path / "log")
    assert [line.split()[1] for line in commands(tmp_path)] == ["uv", "venv", "pip"]


async def test_what_uv_cannot_fill_is_not_tried_by_pip(tmp_path: Path, recipe: Recipe) -> None:
    why = (
        "error: no matching package: 'tally' was not found in the registry and the worker needs it: "
        r"it is an error \(log: .*\); mend it, or set workers.builder: pip$"
    )
    with pytest.raises(WorkerEnvironmentError, match=why):
        await builder(tmp_path, fails="install", kind="auto").build(recipe, tmp_path / "log")
    assert [line.split()[1] for line in commands(tmp_path)] == ["uv", "uv"]


async def test_what_pip_has_built_before_serves_where_uv_cannot_fill_it(
    tmp_path: Path, recipe: Recipe
) -> None:
    log = tmp_path / "log"
    built = await builder(tmp_path, kind="pip").build(recipe, log)
    assert (
        await builder(tmp_path, fails="--no-progress pip", kind="auto").build(recipe, log) == built
    )
    with pytest.raises(WorkerEnvironmentError, match=r"\)$"):
        await builder(tmp_path, fails="--no-progress pip", kind="uv").build(recipe, log)


async def test_builders_see_index_settings_and_no_secrets(tmp_path: Path, recipe: Recipe) -> None:
    await builder(tmp_path).build(recipe, tmp_path / "log")
    names = set((tmp_path / "variables").read_text().splitlines())
    assert {"UV_DEFAULT_INDEX", "UV_CACHE_DIR", "PATH"} <= names
    assert not {"HIVEMESH_SECRET", "AWS_SECRET_ACCESS_KEY"} & names


def test_the_sdk_comes_from_the_checkout(tmp_path: Path) -> None:
    (tmp_path / "plugin-sdk").mkdir()
    (tmp_path / "plugin-sdk" / "pyproject.toml").touch()
    assert sdk_source(tmp_path) == tmp_path / "plugin-sdk"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped wheels of a platform that is installed from a wheel, outside any checkout."""
    monkeypatch.setattr(first_party, "_editable", lambda: None)
    folder = tmp_path / "wheels"
    folder.mkdir()
    return folder


def test_without_a_checkout_the_newest_shipped_wheel_is_taken(tmp_path: Path, wheels: Path) -> None:
    for version in ("0.9.0", "0.10.0", "0.10.0rc1"):
        (wheels / f"hivemesh_sdk-{version}-py3-none-any.whl").touch()
    (wheels / "another-9.0-py3-none-any.whl").touch()
    assert sdk_source(None, wheels).name == "hivemesh_sdk-0.10.0-py3-none-any.whl"
    assert sdk_source(tmp_path, wheels).parent == wheels  # a project that is no checkout


@pytest.mark.parametrize("there", [True, False])
def test_without_a_shipped_wheel_the_remedy_is_said(wheels: Path, *, there: bool) -> None:
    if not there:
        wheels.rmdir()
    with pytest.raises(WorkerEnvironmentError, match="from a wheel that `make build` made"):
        sdk_source(None, wheels)
