"""`hivemesh config`: the settings in force and where each came from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hivemesh_platform.cli import output

if TYPE_CHECKING:
    from hivemesh_sdk.errors import NotFoundError

    from hivemesh_platform.refusals import Refusal

app = typer.Typer(no_args_is_help=True)


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="Only keys that begin so, for example api.")] = "",
    origin: Annotated[
        bool, typer.Option("--origin", help="Also show where each value came from.")
    ] = False,
    fmt: output.Format = "table",
) -> None:
    """Show the settings: flag > environment > ./hivemesh.yaml > user file > system file > default.

    Where something in them is wrong, what is valid is shown, and what is wrong.

    Examples:  hivemesh config show --origin  ·  hivemesh config show api -o json
    """
    from hivemesh_platform.configuration import Surroundings, load_valid

    loaded, wrong = load_valid(Surroundings.of_process())
    if wrong is not None and fmt in {"json", "yaml", "name"}:
        raise wrong
    every = loaded.rows()
    rows = [row for row in every if row[0].startswith(key)]
    if not rows:
        raise _absent(key, [name for name, _, _ in every])
    if fmt in {"json", "yaml"}:
        output.show_document(
            {name: {"value": value, "origin": source} for name, value, source in rows}, fmt
        )
    elif fmt == "name":
        for name, _, _ in rows:
            typer.echo(name)
    else:
        titles = ["key", "value", "origin"] if origin else ["key", "value"]
        cells = [[name, output.cell(value), source][: len(titles)] for name, value, source in rows]
        typer.echo(output.table(titles, cells))
    if wrong is not None:
        raise wrong


@app.command()
def validate(
    file: Annotated[
        Path | None, typer.Argument(help="Check this folder's hivemesh.yaml instead of ./")
    ] = None,
    fmt: output.Format = "table",
) -> int:
    """Check the settings without starting anything: what `hivemesh up` would refuse.

    All of it is named that can be told without opening the state folder, its keys or sockets.

    Example:  hivemesh config validate
    """
    from dataclasses import replace

    from hivemesh_sdk.clock import SystemClock

    from hivemesh_platform.configuration import Surroundings, load
    from hivemesh_platform.refusals import missing_folders, refusals

    surroundings = Surroundings.of_process()
    if file is not None:
        folder = file if file.is_dir() else file.parent
        surroundings = replace(surroundings, working_folder=folder.resolve())
    loaded = load(surroundings)
    found = refusals(loaded, SystemClock())
    if found:
        return _refused(found, fmt)
    missing = missing_folders(loaded)
    for one in missing:
        typer.echo(f"warning: workers.folders: {one} is not there; make or correct it", err=True)
    if fmt == "table":
        typer.echo("the settings are valid")
    else:
        document = {"valid": True, "state_folder": str(loaded.state_folder)}
        output.show_document(document | ({"missing_folders": missing} if missing else {}), fmt)
    return 0


def _refused(found: "list[Refusal]", fmt: str) -> int:
    """Tell each with its code and remedy; programs get one document that names all of them."""
    from hivemesh_sdk.contracts.problems import FieldProblem
    from hivemesh_sdk.errors import ConfigurationError
    from hivemesh_sdk.failures import show as show_problem
    from msgspec import to_builtins

    problems = [(one.key, one.error.problem()) for one in found]
    if fmt in {"json", "yaml"} and len(problems) > 1:
        errors = [
            FieldProblem(pointer=_pointer(key), message=f"{key}: {one.detail}", code=one.code)
            for key, one in problems
        ]
        detail = "; ".join(one.message for one in errors)
        together = ConfigurationError(detail, slug="configuration-invalid", errors=errors)
        problems = [("", together.problem())]
    if fmt == "yaml":
        output.show_document(to_builtins(problems[0][1]), fmt)
    codes = [show_problem(one, as_json=fmt == "json") for _, one in problems]
    return codes[0]


def _pointer(key: str) -> str:
    """The place of a setting; a key's name may have dots of its own. "" for a variable."""
    parts = key.replace("~", "~0").replace("/", "~1").split(".", 2)
    return "" if key.isupper() else "/" + "/".join(parts)


def _absent(key: str, names: list[str]) -> "NotFoundError":
    from difflib import get_close_matches

    from hivemesh_sdk.errors import NotFoundError

    near = get_close_matches(key, names, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    remedy = f"{hint}`hivemesh config show` lists all"
    return NotFoundError(f"no setting begins with {key!r}", remedy=remedy)
