"""`hivemesh ca`: the authority's keys, their change, and the roots for other tools."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hivemesh_platform.cli import asking, output, session

if TYPE_CHECKING:
    from hivemesh_sdk.contracts.trust_api import CaKeyView, CaView

app = typer.Typer(no_args_is_help=True)


@app.command()
def status(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show every key with its state: prepared, active, tainted, revoked; and what it waits for.

    Examples:  hivemesh ca status  ·  hivemesh ca status -o json
    """
    with session.client(state) as client:
        found = client.ca()
    _show(found, fmt)


@app.command()
def rotate(  # noqa: PLR0913, PLR0917 - the options of one command
    issuer: Annotated[bool, typer.Option("--issuer", help="The issuer (default).")] = False,
    root: Annotated[bool, typer.Option("--root", help="The root, and an issuer under it.")] = False,
    signer: Annotated[
        bool, typer.Option("--signer", help="The key that signs tickets and policies.")
    ] = False,
    emergency: Annotated[
        bool,
        typer.Option(
            "--emergency", help="All keys at once: nothing that was signed before is trusted."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Begin to change a key; the rest happens by itself, without a failed request.

    The new key is used when every live instance knows it, the old one goes when all have renewed.
    `hivemesh ca status` shows how far it is. An emergency waits for nobody: supervised workers are
    started again with a new identity, the others enrol with credentials that you renew. It works
    while the platform is down, too.

    Examples:  hivemesh ca rotate  ·  hivemesh ca rotate --root  ·  hivemesh ca rotate --emergency
    """
    chosen = [name for name, given in _named(issuer, root, signer) if given]
    if len(chosen) > 1 or (emergency and chosen):
        message = "choose one of --issuer, --root, --signer and --emergency"
        raise typer.BadParameter(message)
    if emergency:
        _emergency(fmt, state, yes=yes)
        return
    with session.client(state) as client:
        found = client.rotate(chosen[0] if chosen else "issuer")
    _show(found, fmt)
    if fmt == "table":
        typer.echo(
            f"the change goes on by itself; see: {session.here('hivemesh ca status')}", err=True
        )


@app.command("export-root")
def export_root(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Where to write; default: standard output.")
    ] = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Write the trusted roots as PEM, the one in use first, for tools that are no workers.

    Example:  hivemesh ca export-root --file bundle.pem
    """
    with session.client(state) as client:
        roots = client.roots()
    if fmt != "table" and file is None:
        output.show_one(roots, fmt, name="sha256")
    else:
        output.save([roots.pem.encode("ascii")], file, fmt)


def _named(issuer: bool, root: bool, signer: bool) -> "list[tuple[str, bool]]":
    return [("issuer", issuer), ("root", root), ("signer", signer)]


def _emergency(fmt: str, state: Path | None, *, yes: bool) -> None:
    from hivemesh_platform.cli.lifecycle import running_pid

    folder = session.state_folder(state)
    question = "every certificate becomes worthless and every worker enrols again: go on?"
    asking.confirmed(question, yes=yes)
    if running_pid(folder) is None:
        _start_over_offline(folder)
        typer.echo(f"done while the platform is down; now: {session.here('hivemesh up')}", err=True)
        return
    with session.client(state) as client:
        found = client.rotate("root", emergency=True)
    _show(found, fmt)
    if fmt == "table":
        typer.echo(
            "supervised workers come back by themselves; for containers see "
            "docs/how-to/break-glass.md",
            err=True,
        )


def _start_over_offline(folder: Path) -> None:
    import asyncio

    from hivemesh_sdk.clock import SystemClock

    from hivemesh_platform.audit.model import Actor
    from hivemesh_platform.break_glass import start_over
    from hivemesh_platform.configuration import Surroundings, load

    loaded = load(Surroundings.of_process(), {"state.folder": str(folder)})
    by = Actor(id=f"uid:{os.getuid()}")
    asyncio.run(start_over(loaded, SystemClock(), by))


def _show(found: "CaView", fmt: str) -> None:
    if fmt in {"json", "yaml"}:
        output.show_document(found.model_dump(mode="json"), fmt)
        return
    columns: list[output.Column] = [
        ("key", "kind"),
        ("state", "state"),
        ("id", "id"),
        ("since", "since"),
        ("expires", "not_after"),
        ("waits for", _waits),
    ]
    wide: list[output.Column] = [("waiting", "waiting"), ("at the latest", "latest")]
    output.show_list(found.keys, columns, fmt, wide=wide)


def _waits(key: "CaKeyView") -> str:
    if key.waiting:
        return f"{key.waits_for} ({len(key.waiting)} missing)"
    return key.waits_for or "-"
