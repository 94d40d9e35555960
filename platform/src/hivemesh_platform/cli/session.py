"""Where the platform is: the state folder of this command, or a server that it was told; a client."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hivemesh_sdk.client import Client

Priority = Annotated[int, typer.Option(min=0, max=10, help="10 starts first.")]
IdempotencyKey = Annotated[
    str,
    typer.Option(
        help="The same command with the same key means the same work: it is accepted once."
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", help="NAME=VALUE; lists are filtered by it. Several times for more."),
]
State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        envvar="HIVEMESH_STATE__FOLDER",
        help="The state folder (default: ./.hivemesh in a checkout, else the XDG state folder).",
        show_default=False,
    ),
]
# Anywhere on the command line, or by environment: which platform is meant, and as whom.
REMOTE = {
    "--server": "HIVEMESH_SERVER",
    "--token-file": "HIVEMESH_TOKEN_FILE",
    "--ca-file": "HIVEMESH_CA_FILE",
}
STATE = "--state"
TOKEN = "HIVEMESH_TOKEN"  # noqa: S105 - the name of a variable
_chosen: dict[str, str] = {}
_last: dict[str, Path | None] = {}


@dataclass(frozen=True, slots=True)
class Remote:
    """A platform that is reached over its people listener."""

    url: str
    token_file: str
    ca_file: str


def take_remote(words: Sequence[str]) -> list[str]:
    """Remember the options of `REMOTE`; returns the command line without them.

    `--state` is remembered too, for `here`; the commands take it.
    """
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        name, separator, value = word.partition("=")
        if name == STATE:
            value = value if separator else next(waiting, "")
            _chosen[STATE] = value
            rest += [word] if separator or not value else [word, value]
        elif name not in REMOTE:
            rest.append(word)
        elif separator:
            _chosen[name] = value
        else:
            _chosen[name] = next(waiting, "")
    return rest


def remote() -> Remote | None:
    """The platform that `--server` or HIVEMESH_SERVER names, or None where none is named.

    Raises:
        BadParameter: one of the options stands without its value.
    """
    bare = next((name for name, value in _chosen.items() if not value), "")
    if bare:
        message = f"{bare} needs a value"
        raise typer.BadParameter(message)
    found = {name: _chosen.get(name) or os.environ.get(key, "") for name, key in REMOTE.items()}
    if not found["--server"]:
        return None
    return Remote(found["--server"], found["--token-file"], found["--ca-file"])


def here(command: str) -> str:
    """A command that people are told, with the options that make it reach the same platform."""
    return " ".join((command, *(f"{name} {shlex.quote(value)}" for name, value in _chosen.items())))


def state_folder(chosen: Path | None) -> Path:
    """The state folder that this command works on."""
    if chosen is not None:
        return chosen.expanduser().resolve()
    from hivemesh_platform.configuration import Surroundings, state_folder_of

    return state_folder_of(Surroundings.of_process())


def client(state: Path | None, *, timeout_s: float = 60.0) -> "Client":
    """A client of the platform that runs on the state folder, or of the one that was named."""
    _last["state"] = state
    return _client(state, timeout_s)


def again(*, timeout_s: float) -> "Client":
    """Another client of the platform that this command has spoken to last."""
    return _client(_last.get("state"), timeout_s)


def _client(state: Path | None, timeout_s: float) -> "Client":
    from hivemesh_sdk.client import Client

    named = remote()
    if named is None:
        return Client.from_state(state_folder(state), timeout_s=timeout_s)
    ca_file = Path(named.ca_file).expanduser() if named.ca_file else None
    return Client.from_server(named.url, _token(named), ca_file=ca_file, timeout_s=timeout_s)


def _token(named: Remote) -> str:
    """The token of the named platform: from a file, or from the environment; never from a flag."""
    from hivemesh_sdk.errors import ConfigurationError

    if not named.token_file:
        token = os.environ.get(TOKEN, "")
    elif named.token_file == "-":  # noqa: S105 - a file's name
        import sys

        token = sys.stdin.readline()
    else:
        token = Path(named.token_file).expanduser().read_text(encoding="ascii")
    if not token.strip():
        message = f"no API token for {named.url}; give --token-file FILE or set {TOKEN}"
        raise ConfigurationError(message, slug="token-missing")
    return token.strip()
