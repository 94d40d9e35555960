"""`hivemesh demo`: the shipped pipeline on shipped or own data, from nothing to a report."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hivemesh_platform.cli import details, output, session

if TYPE_CHECKING:
    from hivemesh_sdk.client import Client
    from pydantic import JsonValue

app = typer.Typer(no_args_is_help=True)

PIPELINE = "email-insights"


@app.callback()
def _group() -> None:
    """Demonstrations on shipped data."""


@app.command()
def email(
    mbox: Annotated[
        Path | None,
        typer.Option("--mbox", help="Your own mbox, maildir or .eml (default: the sample)."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Where the HTML report goes (default: state folder)."),
    ] = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Parse, classify and sum up a mail archive over three workers, and show the result.

    Uses the running platform; starts one where none runs, and stops it at the end.

    Examples:  hivemesh demo email  ·  hivemesh demo email --mbox ~/mail.mbox --report mail.html
    """
    from hivemesh_platform.cli.artifact import reference, upload
    from hivemesh_platform.cli.lifecycle import running
    from hivemesh_platform.cli.pipeline import exit_code
    from hivemesh_platform.cli.progress import follow

    folder = session.state_folder(state)
    source = mbox.expanduser() if mbox else _sample()
    source.stat()
    target = report or folder / "reports" / "email-insights.html"
    with running(folder) as client:
        check_known(client)
        typer.echo(f"storing {source.name} ({output.size_text(_size(source))})", err=True)
        archive = reference(upload(client, source))
        run = client.start_run(PIPELINE, {"archive": archive})
        typer.echo(f"run {run.id} started", err=True)
        run = follow(client, run.id)
        if run.state not in {"completed", "partial"}:
            details.show_run(run, fmt)
            return exit_code(run.state)
        insights = _insights(client, run.id, target)
    if fmt in {"json", "yaml"}:
        output.show_document(insights, fmt)
    else:
        from hivemesh_platform.cli.insights import summary

        typer.echo(summary(insights))
        if run.rejected:
            which = session.here(f"hivemesh run rejected {run.id}")
            typer.echo(f"\n{run.rejected} messages were refused: {which}")
        typer.echo(f"\nreport: {target}")
    return 0


def check_known(client: "Client") -> None:
    """Refuse to begin where the platform has no such pipeline, as one without a project has not.

    Raises:
        NotFoundError: it has none.
    """
    from hivemesh_sdk.errors import NotFoundError

    if all(one.name != PIPELINE for one in client.pipelines()):
        remedy = (
            "start the platform in the checkout, or in a folder with a hivemesh.yaml and the "
            "checkout's pipelines/ and workers/"
        )
        message = f"the platform has no pipeline {PIPELINE!r}"
        raise NotFoundError(message, remedy=remedy)


def _insights(client: "Client", run_id: str, target: Path) -> "dict[str, JsonValue]":
    from hivemesh_platform.cli.artifact import output_bytes

    answer: dict[str, JsonValue] = json.loads(b"".join(client.output(run_id, "insights")))
    target.parent.mkdir(parents=True, exist_ok=True)
    output.write(output_bytes(client, run_id, "report"), target)
    return answer


def _sample() -> Path:
    from importlib.resources import files

    return Path(str(files("hivemesh_platform") / "samples" / "email" / "sample.mbox"))


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size
