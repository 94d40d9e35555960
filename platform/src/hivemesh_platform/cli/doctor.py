"""`hivemesh doctor`: checks the installation and says how to mend what is wrong."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hivemesh_platform.cli import output, session

if TYPE_CHECKING:
    from hivemesh_sdk.client import Client
    from hivemesh_sdk.contracts.api import WorkerView
    from hivemesh_sdk.errors import HivemeshError

Verdict = Literal["ok", "pending", "warning", "failure"]
MARKS: dict[str, str] = {"ok": "✓", "pending": "…", "warning": "!", "failure": "✗"}
FREE_BYTES = 1024**3
PRIVATE = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; `fix` is a command or an instruction."""

    section: str
    check: str
    verdict: Verdict
    cause: str = ""
    fix: str = ""
    docs: str = ""


def doctor(
    pre: Annotated[
        bool, typer.Option("--pre", help="Only what is needed before the start.")
    ] = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Check machine, settings, state folder, platform and workers; exit 1 on a failure.

    Examples:  hivemesh doctor  ·  hivemesh doctor --pre  ·  hivemesh doctor -o json
    """
    folder = session.state_folder(state)
    findings = [*_machine(folder), *_settings(), *_database(folder)]
    if not pre:
        findings += _running(folder)
    if fmt in {"json", "yaml"}:
        output.show_document([asdict(one) for one in findings], fmt)
    else:
        typer.echo(_text(findings))
    return 1 if any(one.verdict == "failure" for one in findings) else 0


def _machine(folder: Path) -> Iterator[Finding]:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding(
        section="machine",
        check="Python 3.11 to 3.13",
        verdict="ok" if supported else "failure",
        cause="" if supported else f"this is {sys.version.split()[0]}",
        fix="" if supported else "install Python 3.11, 3.12 or 3.13 and make the environment again",
    )
    place = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(place).free
    yield Finding(
        section="machine",
        check="1 GiB of free disk space",
        verdict="ok" if free >= FREE_BYTES else "failure",
        cause="" if free >= FREE_BYTES else f"{output.size_text(free)} are free in {place}",
        fix="" if free >= FREE_BYTES else "free space, or choose another folder with --state",
        docs="HM-1504",
    )
    writable = os.access(place, os.W_OK)
    yield Finding(
        section="state",
        check="the state folder can be written",
        verdict="ok" if writable else "failure",
        cause="" if writable else f"{place} is not writable for this user",
        fix="" if writable else "choose another folder with --state",
        docs="HM-1607",
    )
    if folder.exists():
        private = folder.stat().st_mode & PRIVATE == 0
        yield Finding(
            section="state",
            check="the state folder is private",
            verdict="ok" if private else "failure",
            cause="" if private else f"others may read {folder}",
            fix="" if private else f"chmod 700 {folder}",
        )


def _settings() -> Iterator[Finding]:
    from hivemesh_sdk.clock import SystemClock
    from hivemesh_sdk.errors import HivemeshError

    from hivemesh_platform.configuration import Surroundings, load
    from hivemesh_platform.refusals import missing_folders, refusals

    try:
        loaded = load(Surroundings.of_process())
    except HivemeshError as error:
        yield Finding(
            section="settings",
            check="the settings are valid",
            verdict="failure",
            cause=error.detail,
            fix="hivemesh config validate",
            docs="HM-1601",
        )
        return
    found = refusals(loaded, SystemClock())
    if not found:
        yield Finding(section="settings", check="the settings are valid", verdict="ok")
    for one in found:
        yield _failure("settings", f"{one.key} can be used", one.error)
    for folder in missing_folders(loaded):
        yield Finding(
            section="settings",
            check="workers.folders are there",
            verdict="warning",
            cause=f"{folder} is not there",
            fix="make the folder, or correct workers.folders",
            docs="docs/reference/configuration.md",
        )


def _database(folder: Path) -> Iterator[Finding]:
    from hivemesh_sdk.errors import HivemeshError

    from hivemesh_platform.configuration import Surroundings, load
    from hivemesh_platform.storage.examination import examine
    from hivemesh_platform.storage.opening import place_of

    try:
        settings = load(Surroundings.of_process()).settings.database
        place = place_of(settings, folder)
    except HivemeshError:
        return  # the settings have a finding of their own
    try:
        looks = list(examine(place, settings.connections))
    except HivemeshError as error:
        yield _failure("database", "database.url can be used", error)
        return
    for look in looks:
        yield Finding(section="database", **look._asdict())


def _running(folder: Path) -> Iterator[Finding]:
    from hivemesh_sdk.errors import HivemeshError

    from hivemesh_platform.cli.lifecycle import running_pid

    if running_pid(folder) is None:
        yield Finding(
            section="platform",
            check="the platform runs",
            verdict="failure",
            cause=f"nothing runs on {folder}",
            fix=session.here("hivemesh up -d"),
            docs="HM-1605",
        )
        return
    try:
        with session.client(folder, timeout_s=5) as client:
            yield from _platform(client)
            yield from _workers(client)
            yield from _pipelines(client)
    except HivemeshError as error:
        yield _failure("platform", "the platform answers", error)


def _failure(section: str, check: str, error: "HivemeshError") -> Finding:
    document = error.problem()
    return Finding(
        section=section,
        check=check,
        verdict="failure",
        cause=document.detail,
        fix=document.remedy,
        docs=document.code,
    )


def _platform(client: "Client") -> Iterator[Finding]:
    seen = client.status()
    yield Finding(
        section="platform", check=f"the platform answers at {seen.mesh_url}", verdict="ok"
    )
    left = datetime.fromisoformat(seen.issuer_expires_at) - datetime.now(UTC)
    fresh = left.total_seconds() > 0
    yield Finding(
        section="platform",
        check="the issuing certificate is valid",
        verdict="ok" if fresh else "failure",
        cause="" if fresh else f"it expired at {seen.issuer_expires_at}",
        fix="" if fresh else " && ".join(map(session.here, ("hivemesh down", "hivemesh up -d"))),
    )
    yield from _quarantine(seen.quarantined)
    yield Finding(
        section="platform",
        check="the audit trail is whole and can be written",
        verdict="failure" if seen.audit_problem else "ok",
        cause=seen.audit_problem,
        fix="free space, or see: hivemesh audit verify" if seen.audit_problem else "",
        docs="docs/how-to/audit.md" if seen.audit_problem else "",
    )
    yield Finding(
        section="platform",
        check="secrets can be read",
        verdict="failure" if seen.secrets_sealed else "ok",
        cause=seen.secrets_sealed,
        fix="unseal the store; runs that wait for it go on" if seen.secrets_sealed else "",
        docs="HM-1741" if seen.secrets_sealed else "",
    )


def _quarantine(identities: list[str]) -> Iterator[Finding]:
    yield Finding(
        section="platform",
        check="no identity is claimed by two keys",
        verdict="failure" if identities else "ok",
        cause="" if not identities else f"a key was stolen or a process copied: {identities}",
        fix=""
        if not identities
        else session.here(f"hivemesh worker unban {identities[0]} --reason …"),
        docs="" if not identities else "HM-1110",
    )


def _workers(client: "Client") -> Iterator[Finding]:
    workers = client.workers()
    if not workers:
        yield Finding(
            section="workers",
            check="workers are installed",
            verdict="warning",
            cause="there is none",
            fix="hivemesh up in the checkout, or name folders of workers: "
            """--set workers.folders='["FOLDER"]'""",
            docs="docs/reference/configuration.md",
        )
    for worker in workers:
        yield _worker(worker)


def _worker(worker: "WorkerView") -> Finding:
    wrong = _verdict(worker) in {"warning", "failure"}
    return Finding(
        section="workers",
        check=f"{worker.name}: {_standing(worker)}",
        verdict=_verdict(worker),
        cause="" if _verdict(worker) == "ok" else worker.reason or worker.state,
        fix=_mending(worker) if wrong else "",
        docs="HM-1608" if wrong else "",
    )


def _pipelines(client: "Client") -> Iterator[Finding]:
    broken = [one for one in client.pipelines() if one.problem]
    for one in broken:
        yield Finding(
            section="pipelines",
            check=f"{one.name}.yaml holds a pipeline",
            verdict="failure",
            cause=one.problem,
            fix=f"correct pipelines/{one.name}.yaml, or remove it",
            docs="HM-1001",
        )


def _standing(worker: "WorkerView") -> str:
    if worker.state == "invalid":
        return "its plugin.yaml is valid"
    return f"{worker.live} of {worker.wanted} instances live"


def _mending(worker: "WorkerView") -> str:
    if worker.state == "invalid":
        return f"correct plugin.yaml in {worker.name}/, or remove the folder"
    return session.here(f"hivemesh worker logs {worker.name}")


def _verdict(worker: "WorkerView") -> Verdict:
    """One that is being built or starts is well so far; a reason for not having started is not."""
    if worker.live >= worker.wanted and worker.state not in {"incompatible", "invalid"}:
        return "ok"
    if worker.state == "building" or (worker.state == "starting" and not worker.reason):
        return "pending"
    return "warning" if worker.state == "starting" else "failure"


def _text(findings: list[Finding]) -> str:
    lines: list[str] = []
    section = ""
    number = 0
    for one in findings:
        if one.section != section:
            section = one.section
            lines.append(section)
        lines.append(f"  {MARKS[one.verdict]} {one.check}{f': {one.cause}' if one.cause else ''}")
        if one.fix:
            number += 1
            anchor = f"   {_anchor(one.docs)}" if one.docs else ""
            lines.append(f"      fix {number}: {one.fix}{anchor}")
    lines.append(_conclusion(findings))
    return "\n".join(lines)


def _anchor(docs: str) -> str:
    return f"docs/reference/errors.md#{docs.lower()}" if docs.startswith("HM-") else docs


def _conclusion(findings: list[Finding]) -> str:
    verdicts = Counter(one.verdict for one in findings)
    bad, odd, pending = verdicts["failure"], verdicts["warning"], verdicts["pending"]
    if bad or odd:
        return f"{bad} failures, {odd} warnings"
    return f"all is well, {pending} not ready yet" if pending else "all is well"
