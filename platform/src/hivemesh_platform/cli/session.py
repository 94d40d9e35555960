"""Where the platform is: the state folder of this command, and a client for it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hivemesh_sdk.client import Client

State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        envvar="HIVEMESH_STATE__FOLDER",
        help="The state folder (default: ./.hivemesh in a checkout, else the XDG state folder).",
        show_default=False,
    ),
]


def state_folder(chosen: Path | None) -> Path:
    """The state folder that this command works on."""
    if chosen is not None:
        return chosen.expanduser().resolve()
    from hivemesh_platform.configuration import default_state_folder

    return default_state_folder()


def client(state: Path | None, *, timeout_s: float = 60.0) -> "Client":
    """A client of the platform that runs on the state folder."""
    from hivemesh_sdk.client import Client

    return Client.from_state(state_folder(state), timeout_s=timeout_s)
