"""`hivemesh retention`: how long what has ended is kept, and a sweep at once."""

from typing import Annotated

import typer

from hivemesh_platform.cli import output, session

app = typer.Typer(no_args_is_help=True)


@app.command()
def show(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show how long what has ended is kept, and what was removed since the platform's start.

    Example:  hivemesh retention show   (change it: settings `retention.*`)
    """
    with session.client(state) as client:
        view = client.retention()
    output.show_one(view, fmt, without=("due",))


@app.command()
def run(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what is due.")] = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Remove now what is older than the settings keep it. This cannot be undone: try --dry-run.

    Example:  hivemesh retention run --dry-run
    """
    with session.client(state) as client:
        view = client.retention(due=True) if dry_run else client.sweep()
    output.show_one(view, fmt)
