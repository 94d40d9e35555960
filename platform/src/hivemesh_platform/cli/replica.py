"""`hivemesh replica`: the replicas of the platform."""

import typer

from hivemesh_platform.cli import output, session

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `list` a command of its own while it is the only one."""


@app.command("list")
def list_(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show the replicas: which live, which were declared dead, and who leads in what.

    Examples:  hivemesh replica list  ·  hivemesh replica list -o json
    """
    with session.client(state) as client:
        output.show_list(
            client.replicas(),
            [
                ("replica", "id"),
                ("state", "state"),
                ("answers", lambda one: "yes" if one.answers else "-"),
                ("epoch", "epoch"),
                ("leads", lambda one: ", ".join(one.leads) or "-"),
                ("seen", lambda one: output.age(one.seen_at)),
                ("address", lambda one: one.mesh_url or "-"),
            ],
            fmt,
        )
