"""Rules of the repository that no type checker sees."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hivemesh_sdk.safeio.documents import load_manifest

ROOT = Path(__file__).resolve().parents[2]
WORKERS = sorted(path.parent for path in ROOT.glob("workers/*/plugin.yaml"))
HEAVY = {  # library -> the one module of the platform that may import it
    "dbos": "hivemesh_platform/execution/runs/engine.py",
    "boto3": "hivemesh_platform/artifacts/s3.py",
    "consul": "hivemesh_platform/registry/consul.py",
}
SDK_FOR_PLATFORM = (
    "hivemesh_sdk.contracts",
    "hivemesh_sdk.errors",
    "hivemesh_sdk.failures",
    "hivemesh_sdk.trust",
    "hivemesh_sdk.transport",
    "hivemesh_sdk.redaction",
    "hivemesh_sdk.safeio",
    "hivemesh_sdk.client",
    "hivemesh_sdk.clock",
    "hivemesh_sdk.heap",
    "hivemesh_sdk.pauses",
    "hivemesh_sdk.signals",
    "hivemesh_sdk.web",
)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tracked() -> list[str]:
    command = ["git", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    return [name for name in listing.stdout.split("\0") if name]


def test_platform_folder_can_never_shadow_the_standard_library():
    names = {path.name for path in (ROOT / "platform").iterdir() if path.name[0] not in "._"}
    assert names <= {"src", "pyproject.toml", "Dockerfile", "README.md", "dist"}
    found = subprocess.run(
        [sys.executable, "-c", "import platform; print(platform.system())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "Linux"


def test_test_folders_are_no_packages():
    assert [
        name for name in tracked() if re.search(r"(^|/)tests/((?!src/).)*__init__\.py$", name)
    ] == []


def test_no_key_or_certificate_is_under_version_control():
    endings = (".pem", ".key", ".p12", ".pfx", ".der")
    assert [name for name in tracked() if name.endswith(endings)] == []
    marker = b"-----BEGIN " + b"PRIVATE KEY"
    keys = [
        name
        for name in tracked()
        if (ROOT / name).is_file() and marker in (ROOT / name).read_bytes()
    ]
    assert keys == []


def test_platform_imports_only_the_public_half_of_the_sdk():
    source = ROOT / "platform" / "src"
    wrong = [
        (str(path.relative_to(source)), name)
        for path in source.rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] == "hivemesh_sdk" and not name.startswith(SDK_FOR_PLATFORM)
    ]
    assert wrong == []


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_library_has_one_importer(library):
    source = ROOT / "platform" / "src"
    importers = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert importers <= {HEAVY[library]}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "platform" / "src").rglob("*.py")), ids=lambda p: p.stem
)
def test_pure_module_does_no_io(path):
    if path.name not in {"model.py", "plan.py", "policy.py", "profile.py"}:
        return
    forbidden = {
        "os",
        "socket",
        "sqlite3",
        "asyncio",
        "httptools",
        "structlog",
        "logging",
        "time",
        "subprocess",
    }
    assert {name.split(".")[0] for name in imports(path)} & forbidden == set()


@pytest.mark.parametrize("worker", WORKERS, ids=lambda p: p.name)
def test_worker_imports_the_sdk_its_declared_libraries_and_itself(worker):
    project = tomllib.loads((worker / "pyproject.toml").read_text())["project"]
    names = [
        re.split(r"[<>=!~\[; ]", line)[0].replace("-", "_").lower()
        for line in project["dependencies"]
    ]
    extras = project.get("optional-dependencies", {})
    names += [
        re.split(r"[<>=!~\[; ]", line)[0].replace("-", "_").lower()
        for lines in extras.values()
        for line in lines
    ]
    modules = {"scikit_learn": "sklearn", "pyyaml": "yaml", "fast_mail_parser": "fast_mail_parser"}
    package = f"worker_{worker.name.replace('-', '_')}"
    # The SDK's own public types are made of msgspec structs.
    allowed = {modules.get(name, name) for name in names} | {package, "hivemesh_sdk", "msgspec"}
    wrong = {
        (path.name, name)
        for path in (worker / "src").rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] not in allowed | set(sys.stdlib_module_names)
    }
    assert wrong == set()


@pytest.mark.parametrize("worker", WORKERS, ids=lambda p: p.name)
def test_worker_is_named_alike_everywhere(worker):
    manifest = load_manifest(worker / "plugin.yaml")
    project = tomllib.loads((worker / "pyproject.toml").read_text())["project"]
    assert manifest.metadata.name == worker.name
    assert project["name"] == f"hivemesh-worker-{worker.name}"
    assert project["version"] == manifest.metadata.version
    assert {"Dockerfile", "README.md", "tests", "src"} <= {path.name for path in worker.iterdir()}


@pytest.mark.parametrize(
    ("pattern", "schema"),
    [
        ("workers/*/plugin.yaml", "manifest.schema.json"),
        ("pipelines/*.yaml", "pipeline.schema.json"),
    ],
)
def test_shipped_document_names_the_schema_that_editors_complete_by(pattern, schema):
    mark = "# yaml-language-server: $schema="
    documents = list(ROOT.glob(pattern))
    assert documents
    for path in documents:
        first = path.read_text().splitlines()[0]
        assert first.startswith(mark), path
        named = (path.parent / first.removeprefix(mark)).resolve()
        assert named == ROOT / "docs/reference/schemas" / schema
        assert named.is_file()


def test_no_banned_word_of_the_trust_rules_in_the_code():
    banned = re.compile(
        r"verify\s*=\s*False|check_hostname\s*=\s*False|CERT_NONE|pickle\.loads?|yaml\.load\(|shell\s*=\s*True"
    )
    places = [
        f"{name}:{number}"
        for name in tracked()
        if name.endswith(".py") and not name.startswith("tests/architecture")
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if banned.search(line)
    ]
    assert places == []
