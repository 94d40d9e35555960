"""`hivemesh secret`: names of secrets for everybody who may, values by file, input or prompt only."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hivemesh_platform.cli import asking, output, session

if TYPE_CHECKING:
    from hivemesh_sdk.contracts.secrets_api import SecretView

app = typer.Typer(no_args_is_help=True)

MAX_BYTES = 64 * 1024
COLUMNS: "list[output.Column]" = [
    ("name", "path"),
    ("version", "version"),
    ("kept", "versions"),
    ("stored", "created_at"),
    ("deleted", "deleted"),
]

Name = Annotated[str, typer.Argument(help="Name, as in {{ vault.NAME }}: mail.imap.password.")]
File = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="Read the value from this file; - is standard input."),
]


@app.command("set")
def set_(
    name: Name,
    file: File = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Store a secret: from --file, from standard input, or typed twice at the prompt.

    One line end at the end of the input is left out. A value is never taken from the command line.

    Examples:  hivemesh secret set mail.password --file pw.txt  ·  pwgen 30 1 | hivemesh secret set db
    """
    value = _value(name, file)
    with session.client(state) as client:
        _show(client.set_secret(name, value), fmt)


@app.command()
def rotate(
    name: Name,
    file: File = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Store a new value of a secret that exists; steps that begin from now on are lent it.

    Example:  hivemesh secret rotate mail.password --file new.txt
    """
    value = _value(name, file)
    with session.client(state) as client:
        _show(client.rotate_secret(name, value), fmt)


@app.command()
def get(
    name: Name,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Print the value. Admins only, and audited.")
    ] = False,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Another version than the present one.")
    ] = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show a secret's name and versions; its value only with --reveal.

    Examples:  hivemesh secret get mail.password  ·  hivemesh secret get mail.password --reveal
    """
    with session.client(state) as client:
        if not reveal:
            output.show_one(client.secret(name), fmt, name="path")
            return
        found = client.reveal_secret(name, version)
    if fmt in {"json", "yaml"}:
        output.show_document(found.model_dump(mode="json"), fmt)
    else:
        sys.stdout.write(found.value)
        if sys.stdout.isatty():
            sys.stdout.write("\n")


@app.command("list")
def list_(
    prefix: Annotated[str, typer.Argument(help="Only secrets below this name.")] = "",
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """List names and versions.

    Examples:  hivemesh secret list  ·  hivemesh secret list workers.mail-reader -o json
    """
    with session.client(state) as client:
        output.show_list(
            client.secrets(prefix),
            COLUMNS,
            fmt,
            empty="no secrets; store one with `hivemesh secret set NAME`",
        )


@app.command()
def delete(
    name: Name,
    undo: Annotated[bool, typer.Option("--undo", help="Bring it back.")] = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Withdraw a secret: no step is lent it any more. --undo brings it back.

    Examples:  hivemesh secret delete mail.password  ·  hivemesh secret delete mail.password --undo
    """
    with session.client(state) as client:
        _show(client.restore_secret(name) if undo else client.delete_secret(name), fmt)


def _show(found: "SecretView", fmt: str) -> None:
    if fmt != "table":
        output.show_one(found, fmt, name="path")
        return
    said = "deleted" if found.deleted else f"version {found.version}"
    typer.echo(f"{found.path}: {said}; refer to it as {{{{ vault.{found.path} }}}}")


def _value(name: str, file: Path | None) -> str:
    if file is not None and str(file) != "-":
        return _text(_read(file), str(file))
    if file is None and sys.stdin.isatty():
        if not asking.possible():
            asking.refuse(f"the value of {name} is asked for", "give it: --file FILE, or by a pipe")
        return str(typer.prompt(f"value of {name}", hide_input=True, confirmation_prompt=True))
    return _text(sys.stdin.buffer.read(MAX_BYTES + 2), "standard input")


def _read(file: Path) -> bytes:
    from hivemesh_sdk.errors import ConfigurationError

    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 2)
    except OSError as error:
        message = f"{str(file)!r} cannot be read: {(error.strerror or '').lower()}"
        raise ConfigurationError(message, slug="file-unreadable") from error


def _text(data: bytes, source: str) -> str:
    from hivemesh_sdk.errors import ConfigurationError

    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        message = f"{source} is no UTF-8; store what is not text as base64"
        raise ConfigurationError(message) from error
    return text.removesuffix("\n").removesuffix("\r")
