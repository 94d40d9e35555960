"""`hivemesh dead-letter`: inputs that were given up, looked at, run again or put away."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hivemesh_platform.cli import asking, output, session

if TYPE_CHECKING:
    from hivemesh_sdk.client import Client
    from hivemesh_sdk.contracts.dead_letter_api import DeadLetterView, ReplayView
    from pydantic import JsonValue

app = typer.Typer(no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="Its id, as `dead-letter list` shows it.")]
Run = Annotated[str, typer.Option("--run", help="Only those of this run or job.")]
Capability = Annotated[str, typer.Option("--capability", help="Only those of this capability.")]


@app.command("list")
def list_(
    which: Annotated[
        Literal["open", "retried", "discarded", "all"],
        typer.Option("--show", help="Which of them."),
    ] = "open",
    run: Run = "",
    capability: Capability = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 50,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show inputs that were given up: after the last retry, or after the third crash.

    Examples:  hivemesh dead-letter list  ·  hivemesh dead-letter list --show all -o json
    """
    with session.client(state) as client:
        output.show_list(
            client.dead_letters(state=which, run=run, capability=capability, limit=limit),
            [
                ("id", "id"),
                ("capability", "capability"),
                ("cause", "cause"),
                ("records", "records"),
                ("attempts", "attempts"),
                ("age", lambda letter: output.age(letter.created_at)),
                ("problem", _problem),
            ],
            fmt,
            wide=[
                ("key", "key"),
                ("state", "state"),
                ("class", "data_class"),
                ("became", "replayed_as"),
                ("submitter", "submitter"),
            ],
            empty="no dead letters",
        )


@app.command()
def show(
    id_: Id,
    reveal: Annotated[
        bool, typer.Option("--input", help="Print the input itself. Audited.")
    ] = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show one: what it is of, its last problem, what became of it; with --input the input.

    Examples:  hivemesh dead-letter show dl_0193…  ·  hivemesh dead-letter show dl_0193… --input
    """
    with session.client(state) as client:
        if reveal:
            output.save(client.dead_letter_input(id_), None, fmt)
        else:
            output.show_one(client.dead_letter(id_), fmt)


@app.command()
def retry(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]…", help="Which ones.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All open ones that fit.")] = False,
    run: Run = "",
    capability: Capability = "",
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Run them again as they are: a job under its own key, a part of a run as a job of its own.

    Examples:  hivemesh dead-letter retry dl_0193…  ·  hivemesh dead-letter retry --all --run run_0193…
    """
    if bool(ids) == everything:
        message = "give ids, or --all"
        raise typer.BadParameter(message)
    with session.client(state) as client:
        found = (
            client.retry_dead_letters(run=run, capability=capability)
            if everything
            else [client.retry_dead_letter(one) for one in ids or ()]
        )
    _show_replays(found, fmt)
    left = sum(not one.job for one in found)
    if fmt not in {"json", "yaml"} and found:
        typer.echo(f"{len(found) - left} run again, {left} stay", err=True)
    return 6 if left else 0  # partial, as for runs


@app.command()
def edit(
    id_: Id,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="JSON of the changed input; - is standard input."),
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="An option of the capability: key=value; the others stay, null takes one out.",
        ),
    ] = None,
    record: Annotated[
        int | None,
        typer.Option("--record", min=0, help="Of several records the one to change, from 0."),
    ] = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Run it again with another input or other options. Without --file an editor is opened.

    Of several records one is changed, and all of them are run.

    Examples:  hivemesh dead-letter edit dl_0193…  ·  hivemesh dead-letter edit dl_0193… -f mended.json
    """
    from hivemesh_sdk.safeio.pairs import parse_pairs

    with session.client(state) as client:
        changes: dict[str, JsonValue] = {}
        if with_:
            changes["options"] = parse_pairs(with_)
        if record is not None:
            changes["record"] = record
        if file is not None or not with_:
            changes["input"] = _edited(client, id_, file, record)
        _show_replays([client.edit_dead_letter(id_, changes)], fmt)


@app.command()
def discard(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Which ones.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take a discard back.")] = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Put them away for good reasons; the input is kept until it ages out, and --undo is possible.

    Examples:  hivemesh dead-letter discard dl_0193…  ·  hivemesh dead-letter discard dl_0193… --undo
    """
    asking.confirmed(f"discard {len(ids)} dead letter(s)?", yes=yes or undo)
    with session.client(state) as client:
        change = client.reopen_dead_letter if undo else client.discard_dead_letter
        found = [change(one) for one in ids]
    output.show_list(found, [("id", "id"), ("state", "state")], fmt)


def _problem(letter: "DeadLetterView") -> str:
    code = letter.problem.get("code", "")
    words = str(letter.problem.get("detail") or letter.problem.get("title") or "")
    return f"{code} {words[:60]}"


def _show_replays(found: "list[ReplayView]", fmt: str) -> None:
    output.show_list(
        found,
        [
            ("letter", "letter"),
            ("job", "job"),
            ("problem", lambda one: str((one.problem or {}).get("detail") or "-")),
        ],
        fmt,
        empty="no open dead letters that fit",
    )


def _edited(client: "Client", letter: str, file: Path | None, record: int | None) -> "JsonValue":
    """The changed input: from a file, from standard input, or out of an editor."""
    import json

    import click
    from hivemesh_sdk.errors import ConfigurationError

    if file is None:
        if not asking.possible():
            asking.refuse("no editor can be opened here", "give the changed input: --file FILE")
        present = b"".join(client.dead_letter_input(letter)).decode()
        if record is not None:
            present = _line(present, record)
        pretty = json.dumps(json.loads(present), indent=2, ensure_ascii=False)
        text = click.edit(pretty, extension=".json")
        if text is None:
            message = "nothing was changed"
            raise ConfigurationError(message)
    else:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    try:
        value: JsonValue = json.loads(text)
    except ValueError as error:
        message = f"the input is no JSON: {error}"
        raise ConfigurationError(message, slug="malformed") from error
    return value


def _line(text: str, record: int) -> str:
    from hivemesh_sdk.errors import ConfigurationError

    lines = text.removesuffix("\n").split("\n")
    if record >= len(lines):
        message = f"it has {len(lines)} records; --record counts from 0"
        raise ConfigurationError(message)
    return lines[record]
