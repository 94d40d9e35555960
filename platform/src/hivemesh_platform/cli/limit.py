"""`hivemesh limit`: how much runs at a time, and how much starts in a time."""

from typing import Annotated

import typer

from hivemesh_platform.cli import output, session

app = typer.Typer(no_args_is_help=True)

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="all, capability:email.parse@1, key:customer-7, or key:customer-* for each such key.",
    ),
]


@app.command("list")
def list_(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show the limits, what runs under each, and what waits for it.

    Example:  hivemesh limit list
    """
    with session.client(state) as client:
        limits = client.limits()
    output.show_list(
        limits,
        [
            ("target", "target"),
            ("limit", "running"),
            ("rate", "rate"),
            ("running", "now_running"),
            ("waiting", "now_waiting"),
            ("set by", "origin"),
        ],
        fmt,
        empty="no limits; set one: hivemesh limit set key:customer-7 --running 2",
    )


@app.command("set")
def set_(
    target: Target,
    *,
    running: Annotated[
        int | None, typer.Option(min=1, help="How many rows of work run at a time.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="How many start in a time: 10/s, 600/m, '10/s burst 50'.")
    ] = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Set a limit; what is above it waits and says why.

    Examples:  hivemesh limit set key:customer-7 --running 2  ·
    hivemesh limit set capability:email.classify@1 --rate '100/m burst 20'
    """
    with session.client(state) as client:
        view = client.set_limit(target, running=running, rate=rate)
    output.show_one(view, fmt)
    typer.echo(f"undo: {session.here(f'hivemesh limit unset {target}')}", err=True)


@app.command()
def unset(target: Target, fmt: output.Format = "table", state: session.State = None) -> None:
    """Take a limit away; what waited for it goes on.

    Example:  hivemesh limit unset key:customer-7
    """
    with session.client(state) as client:
        client.unset_limit(target)
    output.show_done(f"no limit of {target} any more", {"target": target, "limit": None}, fmt)
