"""`hivemesh state`: the state folder's version, and its upgrade to this platform's."""

from typing import TYPE_CHECKING, Annotated

import typer

from hivemesh_platform.cli import output, session

if TYPE_CHECKING:
    from pathlib import Path

    from hivemesh_platform.storage.opening import Place

app = typer.Typer(no_args_is_help=True)


@app.command()
def show(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show which version the state folder has, what this platform needs, and its size.

    Example:  hivemesh state show
    """
    from hivemesh_platform.storage.migrate import HEAD, schema_version

    folder = session.state_folder(state)
    place = _place(folder)
    document = {
        "folder": str(folder),
        "database": str(place),
        "version": schema_version(place.schema),
        "needed": HEAD,
        "bytes": sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()),
    }
    if fmt in {"json", "yaml"}:
        output.show_document(document, fmt)
        return
    for key, value in document.items():
        typer.echo(f"{key}: {output.cell(value)}")


@app.command()
def upgrade(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Bring the state folder to this platform's version; a copy of the old files is kept beside.

    Example:  hivemesh state upgrade --dry-run
    """
    from hivemesh_platform.lock import locked
    from hivemesh_platform.storage.damage import refuse_damaged
    from hivemesh_platform.storage.migrate import HEAD, schema_version
    from hivemesh_platform.storage.migrate import upgrade as upgrade_schema

    folder = session.state_folder(state)
    place = _place(folder)
    found = schema_version(place.schema)
    needed = found is not None and found != HEAD
    copy = None if place.server else place.file.with_name(f"{place.file.name}.{found}.bak")
    if needed and not dry_run:
        with locked(folder):
            if copy is not None:
                refuse_damaged(place.file)
                _copy(place.file, copy)
            upgrade_schema(place.schema)
    if fmt in {"json", "yaml"}:
        output.show_document({"from": found, "to": HEAD, "needed": needed, "dry_run": dry_run}, fmt)
    elif not needed:
        typer.echo("the state folder has this platform's version; nothing to do")
    elif dry_run:
        kept = "; make a backup before" if copy is None else ", with a copy kept beside it"
        typer.echo(f"would bring {place} from schema {found} to {HEAD}{kept}")
    else:
        log = f"{place.file}-wal {place.file}-shm"  # a reader may have kept them
        undo = "restore the backup" if copy is None else f"rm -f {log}; mv {copy} {place.file}"
        typer.echo(f"{place}: schema {found} -> {HEAD} (undo: {undo})")


def _copy(file: "Path", copy: "Path") -> None:
    """Copy what the file and its log hold; others may have the file open."""
    import sqlite3
    from contextlib import closing

    copy.unlink(missing_ok=True)
    copy.touch(mode=0o600)
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as kept:
        source.backup(kept)


def _place(folder: "Path") -> "Place":
    """Where the settings put the database of a state folder."""
    from hivemesh_platform.configuration import Surroundings, load
    from hivemesh_platform.storage.opening import place_of

    return place_of(load(Surroundings.of_process()).settings.database, folder)
