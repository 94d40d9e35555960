"""`hivemesh capability`: what the installed workers can do."""

from typing import Annotated

import typer

from hivemesh_platform.cli import output, session

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show all capabilities, who serves them and how many slots are free.

    Examples:  hivemesh capability list  ·  hivemesh capability list -o json
    """
    with session.client(state) as client:
        output.show_list(
            client.capabilities(),
            [
                ("id", "id"),
                ("kind", "kind"),
                ("worker", "worker"),
                ("version", "worker_version"),
                ("instances", "live_instances"),
                ("free slots", "free_slots"),
            ],
            fmt,
            wide=[("description", "description")],
            empty="no capabilities; see `hivemesh worker list`",
        )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The capability, for example email.parse@1.")],
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show one capability with its schemas.

    Example:  hivemesh capability show email.classify@1 -o yaml
    """
    from hivemesh_sdk.contracts.problems import problem
    from hivemesh_sdk.errors import RemoteError

    with session.client(state) as client:
        found = next((one for one in client.capabilities() if one.id == name), None)
    if found is None:
        raise RemoteError(problem("unknown-capability", f"no installed worker serves {name!r}"))
    output.show_one(found, fmt)
