"""`hivemesh artifact`: store bytes under their digest and get them back."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hivemesh_platform.cli import output, session

if TYPE_CHECKING:
    from hivemesh_sdk.client import Client
    from hivemesh_sdk.contracts.api import ArtifactView
    from pydantic import JsonValue

app = typer.Typer(no_args_is_help=True)

REFERENCE = {"sha256", "size", "media_type", "name"}  # the fields of a reference to an artifact

Class = Annotated[
    Literal["public", "internal", "personal", "secret"],
    typer.Option("--class", help="How sensitive it is: public, internal, personal or secret."),
]


@app.command()
def put(
    path: Annotated[Path, typer.Argument(help="A file, or a folder (stored as a tree).")],
    pattern: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a folder only files with such names, as '*.pdf'. Several times for more."
        ),
    ] = None,
    recursive: Annotated[
        bool,
        typer.Option("--recursive/--no-recursive", help="Take the files of folders below too."),
    ] = True,
    data_class: Class = "internal",
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Store a file or a folder and print its digest.

    Examples:  hivemesh artifact put mail.mbox  ·  hivemesh artifact put ~/Maildir --class personal  ·
               hivemesh artifact put reports --pattern '*.pdf' --pattern '*.docx' --no-recursive
    """
    if path.is_file() and (pattern or not recursive):
        message = f"--pattern and --no-recursive are for a folder; {str(path)!r} is a file"
        raise typer.BadParameter(message)
    with session.client(state) as client:
        view = upload(client, path, data_class, patterns=pattern or (), recursive=recursive)
    if fmt == "table":
        typer.echo(view.sha256)
    else:
        output.show_one(view, fmt, name="sha256")


@app.command()
def get(
    sha256: Annotated[str, typer.Argument(help="The artifact's digest.")],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Write to this file instead of stdout.")
    ] = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Write the bytes of an artifact to stdout or a file.

    Example:  hivemesh artifact get 2c26b46b… --file mail.mbox
    """
    with session.client(state) as client:
        output.save(client.artifact(sha256), file, fmt)


def upload(
    client: "Client",
    path: Path,
    data_class: str = "internal",
    *,
    patterns: Sequence[str] = (),
    recursive: bool = True,
) -> "ArtifactView":
    """Store a file, or the files of a folder and then the tree that names them."""
    if path.is_dir():
        return client.put_folder(
            path, patterns=patterns, recursive=recursive, data_class=data_class
        )
    with path.open("rb") as source:
        return client.put_artifact(source, name=path.name, data_class=data_class)


def stored(
    client: "Client", values: "Mapping[str, JsonValue]", data_class: str = "internal"
) -> "dict[str, JsonValue]":
    """Store what is written as `@path` and put the artifact's reference in its place."""
    return {
        key: reference(upload(client, Path(value[1:]).expanduser(), data_class))
        if isinstance(value, str) and value.startswith("@")
        else value
        for key, value in values.items()
    }


def reference(view: "ArtifactView") -> "dict[str, JsonValue]":
    """The reference to an artifact as parameters and options carry it."""
    return view.model_dump(mode="json", include=REFERENCE)


def output_bytes(client: "Client", run: str, name: str) -> Iterator[bytes]:
    """An output of a run in blocks: of an artifact its bytes, else what the platform answers."""
    described = client.run(run).outputs.get(name)
    blocks = client.output(run, name)
    if not isinstance(described, dict) or described.get("kind") != "value":
        return blocks
    answer = b"".join(blocks)
    value = json.loads(answer)
    if isinstance(value, dict) and {"sha256", "size"} <= value.keys() <= REFERENCE:
        return client.artifact(str(value["sha256"]))
    return iter([answer])
