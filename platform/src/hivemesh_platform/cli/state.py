"""`hivemesh state`: the state folder's version, and its upgrade to this platform's."""

from typing import Annotated

import typer

from hivemesh_platform.cli import output, session

app = typer.Typer(no_args_is_help=True)

DATABASE = "platform.db"


@app.command()
def show(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show which version the state folder has, what this platform needs, and its size.

    Example:  hivemesh state show
    """
    from hivemesh_platform.storage.migrate import HEAD, schema_version

    folder = session.state_folder(state)
    document = {
        "folder": str(folder),
        "version": schema_version(folder / DATABASE),
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
    import shutil

    from hivemesh_platform.lock import locked
    from hivemesh_platform.storage.migrate import HEAD, schema_version
    from hivemesh_platform.storage.migrate import upgrade as upgrade_schema

    folder = session.state_folder(state)
    path = folder / DATABASE
    found = schema_version(path)
    needed = found is not None and found != HEAD
    copy = path.with_name(f"{DATABASE}.{found}.bak")
    if needed and not dry_run:
        with locked(folder):
            shutil.copy2(path, copy)
            upgrade_schema(path)
    if fmt in {"json", "yaml"}:
        output.show_document({"from": found, "to": HEAD, "needed": needed, "dry_run": dry_run}, fmt)
    elif not needed:
        typer.echo("the state folder has this platform's version; nothing to do")
    elif dry_run:
        typer.echo(f"would bring {path} from schema {found} to {HEAD}, with a copy kept beside it")
    else:
        typer.echo(f"{path}: schema {found} -> {HEAD} (undo: mv {copy} {path})")
