"""`hivemesh job batch`: jobs that were submitted in one request, as one thing."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from hivemesh_platform.cli import output, session

if TYPE_CHECKING:
    from hivemesh_sdk.client import Client
    from hivemesh_sdk.contracts.api import BatchView

app = typer.Typer(no_args_is_help=True)

Id = Annotated[
    str, typer.Argument(metavar="BATCH", help="The batch's id, as `job batch list` shows it.")
]
Failed = Annotated[
    bool, typer.Option("--failed", help="Only those that have failed, not those cancelled.")
]
PAUSE_S = 0.5


@app.command("list")
def list_(  # noqa: PLR0913, PLR0917 - one parameter an option
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    capability: Annotated[str, typer.Option(help="Only those of this capability.")] = "",
    label: Annotated[str, typer.Option(help="Only those with this label, NAME=VALUE.")] = "",
    since: Annotated[str, typer.Option(help="Only those since then: 2h, or a time.")] = "",
    submitter: Annotated[str, typer.Option(help="Only those of this user.")] = "",
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show the newest batches.

    Examples:  hivemesh job batch list  ·  hivemesh job batch list --label team=billing -o json
    """
    from hivemesh_platform.cli.values import since_time

    filters = {
        "capability": capability,
        "label": label,
        "since": since_time(since),
        "submitter": submitter,
    }
    with session.client(state) as client:
        output.show_list(
            client.batches(filters, limit=limit),
            [
                ("id", "id"),
                ("capability", "capability"),
                ("jobs", lambda one: str(one.count)),
                ("open", lambda one: str(one.open)),
                ("age", lambda one: output.age(one.created_at)),
            ],
            fmt,
            wide=[("labels", "labels"), ("submitter", "submitter"), ("first", "first")],
            empty="no such batches; submit one with `hivemesh job submit CAPABILITY --file FILE`",
        )


@app.command()
def show(id_: Id, fmt: output.Format = "table", state: session.State = None) -> None:
    """Show how many jobs of a batch are in each state; `job list --batch` shows them.

    Example:  hivemesh job batch show batch_0193a5…
    """
    with session.client(state) as client:
        output.show_one(client.batch(id_), fmt)


@app.command()
def watch(id_: Id, fmt: output.Format = "table", state: session.State = None) -> int:
    """Follow a batch until all of its jobs have ended. Ctrl-C stops watching; they go on.

    Example:  hivemesh job batch watch batch_0193a5…
    """
    with session.client(state) as client:
        view = follow(client, id_)
    output.show_one(view, fmt)
    return exit_code(view)


@app.command()
def results(id_: Id, fmt: output.Format = "table", state: session.State = None) -> None:
    """Print a line of JSON for each job of a batch: id, state, and its result or problem.

    With -o json (or yaml, which JSON is) the lines are one array.

    Example:  hivemesh job batch results batch_0193a5… > results.ndjson
    """
    with session.client(state) as client:
        lines = client.batch_lines(id_)
        for block in _array(lines) if fmt in {"json", "yaml"} else lines:
            sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()


@app.command()
def cancel(id_: Id, fmt: output.Format = "table", state: session.State = None) -> None:
    """Cancel the jobs of a batch that have not ended. Undo: `job batch retry`.

    Example:  hivemesh job batch cancel batch_0193a5…
    """
    with session.client(state) as client:
        say(
            client.cancel_batch(id_),
            fmt,
            f"undo: {session.here(f'hivemesh job batch retry {id_}')}",
        )


@app.command()
def retry(
    id_: Id, *, failed: Failed = False, fmt: output.Format = "table", state: session.State = None
) -> None:
    """Queue the jobs of a batch once more that have failed or were cancelled.

    Examples:  hivemesh job batch retry batch_0193a5…  ·  hivemesh job batch retry --failed batch_…
    """
    states = {"failed"} if failed else {"failed", "cancelled"}
    with session.client(state) as client:
        say(
            client.retry_batch(id_, states=states),
            fmt,
            f"follow: {session.here(f'hivemesh job batch watch {id_}')}",
        )


def say(view: "BatchView", fmt: str, further: str) -> None:
    """Print a batch that has just been changed; people are told what they may do next."""
    if fmt == "table":
        typer.echo(f"{view.id}: {counts(view)} ({further})")
    else:
        output.show_one(view, fmt)


def counts(view: "BatchView") -> str:
    """How many jobs are in which state."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(view.states.items()))


def follow(client: "Client", batch: str) -> "BatchView":
    """Watch a batch until all of its jobs have ended; Ctrl-C says that they go on."""
    moving, told = output.colour_allowed(), ""
    try:
        while (view := client.batch(batch)).open:
            line = f"{view.count - view.open:,} of {view.count:,} · {counts(view)}"
            if line != told:
                told = line
                sys.stderr.write(f"\r\x1b[K{line}" if moving else f"{line}\n")
                sys.stderr.flush()
            time.sleep(PAUSE_S)
    except KeyboardInterrupt:
        again = session.here(f"hivemesh job batch watch {batch}")
        sys.stderr.write(f"\nstopped watching; the jobs go on: {again}\n")
        raise
    if moving and told:
        sys.stderr.write("\r\x1b[K")
    return view


def exit_code(view: "BatchView") -> int:
    """0: all completed; 1: none did; 6: some did."""
    done = view.states.get("completed", 0)
    if done == view.count:
        return 0
    return 6 if done else 1


def _array(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of JSON, cut anywhere, as one array; an end of line stands between two lines only."""
    yield b"["
    held = b""
    for block in blocks:
        text = held + block
        held = b"\n" if text.endswith(b"\n") else b""
        yield text.removesuffix(b"\n").replace(b"\n", b",\n")
    yield b"]\n"
