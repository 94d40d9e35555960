"""`hivemesh audit`: who did what, whether the record of it still holds, and a copy of it."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hivemesh_platform.cli import output, session

if TYPE_CHECKING:
    from hivemesh_sdk.contracts.audit_api import AuditReportView

    from hivemesh_platform.audit.verification import Report

app = typer.Typer(no_args_is_help=True)

Since = Annotated[
    str, typer.Option(help="From here on: a duration back (30m, 12h, 7d) or a time (2026-11-22).")
]
Until = Annotated[str, typer.Option(help="Up to here, written as --since.")]


@app.command("list")
def list_(  # noqa: PLR0913, PLR0917 - one parameter a filter
    actor: Annotated[str, typer.Option(help="Who, or on whose behalf; * for any text.")] = "",
    action: Annotated[str, typer.Option(help="What was done; * for any text.")] = "",
    object_: Annotated[str, typer.Option("--object", help="To what; * for any text.")] = "",
    decision: Annotated[
        Literal["allow", "deny"] | None, typer.Option(help="Only what was allowed or denied.")
    ] = None,
    run: Annotated[str, typer.Option(help="Only what belongs to this run.")] = "",
    since: Since = "",
    until: Until = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, newest first.")] = 50,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show the newest records of the audit trail.

    Examples:  hivemesh audit list --decision deny --since 1h  ·
    hivemesh audit list --actor '*/user/operator' --action 'export:*' -o json
    """
    filters = {
        "actor": actor,
        "action": action,
        "object": object_,
        "decision": decision or "",
        "run": run,
        "since": moment(since),
        "until": moment(until),
    }
    with session.client(state) as client:
        output.show_list(
            client.audit(filters, limit=limit),
            [
                ("seq", "seq"),
                ("time", lambda one: output.local_time(one.ts)),
                ("actor", lambda one: _short(one.actor)),
                ("action", "action"),
                ("object", lambda one: _short(one.object)),
                ("decision", "decision"),
                ("count", "count"),
                ("reason", "reason"),
            ],
            fmt,
            wide=[
                ("on behalf of", lambda one: _short(one.on_behalf_of)),
                ("rule", "rule"),
                ("run", "run"),
                ("serial", "serial"),
                ("address", "address"),
                ("request", "request_id"),
                ("tenant", "tenant"),
            ],
            empty="no record fits",
        )


@app.command()
def verify(  # noqa: PLR0913, PLR0917 - one parameter an option
    folder: Annotated[
        Path | None,
        typer.Option(help="Verify these files without a platform: its `audit` folder, or a copy."),
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="With --folder: the second copy of the checkpoints, with the end (`.end`) beside it; "
            "by default in the state folder."
        ),
    ] = None,
    without_checkpoints: Annotated[
        bool,
        typer.Option(
            "--without-checkpoints",
            help="With --folder: hold without the second copy, which may show that the end was cut off.",
        ),
    ] = False,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Verify an export.")] = None,
    key: Annotated[
        str, typer.Option(help="Offline: id of the only key that may have signed checkpoints.")
    ] = "",
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Verify every hash, link, checkpoint and the end; exit 1 and the first bad record where one fails.

    Examples:  hivemesh audit verify  ·  hivemesh audit verify --folder .hivemesh/audit  ·
    hivemesh audit verify --file november.ndjson --key 4f0c…
    """
    if file is not None:
        report = _view(_of_file(file, key))
    elif folder is not None:
        report = _view(_of_folder(folder, checkpoints, key, without=without_checkpoints))
    else:
        with session.client(state, timeout_s=3600.0) as client:
            report = client.verify_audit()
    return _show(report, fmt)


@app.command()
def export(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Write to this file instead of stdout.")
    ] = None,
    since: Since = "",
    until: Until = "",
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Write a part of the trail with its signed checkpoints as NDJSON; it can be verified alone.

    Examples:  hivemesh audit export --since 30d --file november.ndjson  ·
    hivemesh audit verify --file november.ndjson
    """
    with session.client(state) as client:
        blocks = client.export_audit(since=moment(since), until=moment(until))
        output.save(blocks, file, fmt)


@app.command("hash")
def hash_(
    name: Annotated[str, typer.Argument(help="The parameter's name.")],
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Read a parameter's value from stdin (JSON, else text) and print what records hold of it.

    Example:  printf email-parser | hivemesh audit hash worker
    """
    from hivemesh_sdk.safeio.pairs import parse_value

    value = parse_value(sys.stdin.read().removesuffix("\n"))
    with session.client(state) as client:
        found = client.audit_hash(name, value)
    if fmt in {"json", "yaml"}:
        output.show_document({"name": name, "hmac": found}, fmt)
    else:
        typer.echo(found)


def moment(text: str) -> str:
    """A time as the API takes it: from a duration back, or from an ISO time of this machine's zone.

    Raises:
        ConfigurationError: it is neither.
    """
    from datetime import UTC, datetime, timedelta

    from hivemesh_sdk.errors import ConfigurationError

    if not text:
        return ""
    number, unit = text[:-1], {"m": "minutes", "h": "hours", "d": "days"}.get(text[-1])
    try:
        if unit is not None and number.isdecimal():
            return (datetime.now(UTC) - timedelta(**{unit: int(number)})).isoformat()
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except (ValueError, OverflowError) as error:
        message = f"{text!r} is no time; write 30m, 12h, 7d, 2026-11-22 or 2026-11-22T08:00"
        raise ConfigurationError(message, slug="configuration-invalid") from error


def _of_folder(folder: Path, checkpoints: Path | None, key: str, *, without: bool) -> "Report":
    from hivemesh_sdk.errors import ConfigurationError

    from hivemesh_platform.audit.checkpoints import FILE, end_beside
    from hivemesh_platform.audit.errors import AuditDamagedError
    from hivemesh_platform.audit.verification import verify

    if not folder.is_dir():
        message = f"there is no folder {str(folder)!r}"
        raise AuditDamagedError(message, slug="file-unreadable")
    inner = folder / "audit"
    folder = inner if inner.is_dir() else folder  # a state folder was named
    beside = folder.resolve().parent / FILE
    if not without:
        return _hinted(verify(folder, checkpoints or beside, key=key))
    if checkpoints is not None:
        message = "name --checkpoints or --without-checkpoints, not both"
        raise ConfigurationError(message, slug="configuration-invalid")
    end = end_beside(beside)  # of `audit.checkpoint_file: syslog`
    return verify(folder, told=end if end.exists() else None, key=key)


def _hinted(report: "Report") -> "Report":
    """Say what to do where the second place is not there."""
    if report.finding is not None and report.finding.kind == "checkpoint":
        report.remarks.append(
            "name the second place by --checkpoints, or say --without-checkpoints where it is lost"
        )
    return report


def _of_file(file: Path, key: str) -> "Report":
    from hivemesh_platform.audit.export import verify_export

    return verify_export(file, key=key)


def _view(report: "Report") -> "AuditReportView":
    from hivemesh_sdk.contracts.audit_api import AuditReportView

    from hivemesh_platform.audit.verification import as_document

    return AuditReportView.model_validate(as_document(report))


def _show(report: "AuditReportView", fmt: str) -> int:
    from hivemesh_sdk.contracts.problems import problem
    from hivemesh_sdk.failures import FAILURE, show

    if fmt in {"json", "yaml"}:
        output.show_document(json.loads(report.model_dump_json()), fmt)
    else:
        for one in (report, *report.others):
            _words(one)
        typer.echo("the trail holds" if report.holds else "THE TRAIL DOES NOT HOLD")
    for one in (report, *report.others):
        if (finding := one.finding) is not None:
            whose = f" of replica {one.replica}" if one.replica else ""
            text = f"record {finding.seq}{whose}: {finding.detail} ({finding.kind})"
            show(problem("audit-damaged", text), as_json=False)
    return 0 if report.holds else FAILURE


def _words(report: "AuditReportView") -> None:
    if report.replica:
        typer.echo(f"replica {report.replica}:")
    typer.echo(
        f"{report.records} records ({report.first} to {report.last}) read, "
        f"{report.checkpoints} checkpoints fit, proven up to record {report.proven}"
    )
    if report.dropped:
        typer.echo(f"{report.dropped} records were dropped because of their age")
    if report.recovered:
        typer.echo(f"{report.recovered} torn lines of crashes are closed off")
    typer.echo(f"signed by {', '.join(report.keys) or 'nobody'}")
    for remark in report.remarks:
        typer.echo(f"! {remark}", err=True)


def _short(identity: str) -> str:
    """A SPIFFE ID without scheme and trust domain, which are the same in all of them."""
    return identity.split("/", 3)[-1] if identity.startswith("spiffe://") else identity
