"""`hivemesh state`: the state folder's version, and its upgrade to this platform's."""

from typing import Annotated

import typer

from hivemesh_platform.cli import output, session

app = typer.Typer(no_args_is_help=True)


@app.command()
def show(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show which version the state folder has, what this platform needs, and its size.

    Example:  hivemesh state show
    """
    from hivemesh_platform.storage.versions import describe

    folder = session.state_folder(state)
    found = describe(folder)
    document = {
        "folder": str(folder),
        "version": found.version,
        "needed": found.needed,
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
    from hivemesh_platform.storage.versions import upgrade as upgrade_folder

    steps = upgrade_folder(session.state_folder(state), dry_run=dry_run)
    if fmt in {"json", "yaml"}:
        output.show_document({"steps": steps, "dry_run": dry_run}, fmt)
    elif not steps:
        typer.echo("the state folder has this platform's version; nothing to do")
    else:
        for step in steps:
            typer.echo(("would run: " if dry_run else "done: ") + step)
