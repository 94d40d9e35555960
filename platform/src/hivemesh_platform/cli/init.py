"""`hivemesh init`: the CA, the trust bundle and one enrolment credential per worker, for containers."""

import asyncio
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hivemesh_platform.cli import output

if TYPE_CHECKING:
    from hivemesh_platform.settings import Settings

IMAGE_UID = 10001  # the user of the shipped images
STATE, CREDENTIALS, BUNDLE = "platform", "credentials", "bundle.pem"


def init(
    folder: Annotated[Path, typer.Option("--folder", help="Where the files go.")] = Path("certs"),
    worker: Annotated[
        list[str] | None,
        typer.Option("--worker", help="A worker's name; default: those of ./workers."),
    ] = None,
    uid: Annotated[int, typer.Option(help="The user that owns the files.")] = IMAGE_UID,
    fmt: output.Format = "table",
) -> None:
    """Make what Compose mounts: platform state with the CA, trust bundle, worker credentials.

    A second call makes what is missing and keeps the rest, whether or not the platform runs. After
    a change of the root it writes bundle and credentials anew, with the root that is used now.
    Undo: delete the folder's `platform`, `credentials` and `bundle.pem`.

    Example:  hivemesh init --folder certs --worker email-parser
    """
    names = worker or sorted(path.parent.name for path in Path("workers").glob("*/plugin.yaml"))
    folder = folder.resolve()
    made = [] if _given_away(folder, uid) else _make(folder, names)
    owned = _give(folder, uid)
    if fmt in {"json", "yaml"}:
        document = {"folder": str(folder), "made": made, "owned_by": uid if owned else None}
        output.show_document(document, fmt)
        return
    for name in made:
        typer.echo(f"made {folder / name}", err=True)
    typer.echo(f"{folder} is complete: CA, trust bundle, {len(names)} worker credentials", err=True)
    if not owned:
        typer.echo(
            f"! the files belong to you, not to user {uid} of the images; "
            f"fix: sudo chown -R {uid} {folder / STATE} {folder / CREDENTIALS}",
            err=True,
        )


def _given_away(folder: Path, uid: int) -> bool:
    """Whether the files belong to the images' user already and this user cannot look into them."""
    state = folder / STATE
    return os.geteuid() not in {0, uid} and state.is_dir() and state.stat().st_uid == uid


def _make(folder: Path, workers: list[str]) -> list[str]:
    from hivemesh_platform.configuration import Surroundings, load
    from hivemesh_platform.storage.opening import place_of

    state, credentials, bundle = folder / STATE, folder / CREDENTIALS, folder / BUNDLE
    for part in (state, credentials):
        part.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = place_of(load(Surroundings.of_process()).settings.database, state)
    if not place.exists():  # whoever deleted the state has made the rest worthless
        for path in (bundle, *credentials.iterdir()):
            path.unlink(missing_ok=True)
    missing = [name for name in workers if not (credentials / name).exists()]
    made = [] if bundle.exists() and not missing else asyncio.run(_make_missing(folder, missing))
    return [*made, *_follow_root(folder)]


async def _make_missing(folder: Path, workers: list[str]) -> list[str]:
    from hivemesh_sdk.clock import SystemClock
    from hivemesh_sdk.trust.keys import pem, write_private_file

    from hivemesh_platform.app import open_trust
    from hivemesh_platform.audit.aside import AsideTrail
    from hivemesh_platform.audit.model import Actor
    from hivemesh_platform.audit.trail import FOLDER
    from hivemesh_platform.configuration import Surroundings, load
    from hivemesh_platform.storage.opening import open_database, place_of
    from hivemesh_platform.trust.service import EnrolmentService
    from hivemesh_platform.trust.store import SqlEnrolmentStore

    state, bundle, made = folder / STATE, folder / BUNDLE, []
    clock = SystemClock()
    _log_warnings_only()
    settings = load(Surroundings.of_process()).settings
    authority = open_trust(settings, _keys(settings, state), clock)
    if not bundle.exists():
        bundle.write_bytes(pem(authority.bundle().roots))
        made.append(BUNDLE)
    place = place_of(settings.database, state)
    place.ensure_schema()
    async with open_database(settings.database, place) as database:
        trail = AsideTrail(_home(settings, state) / FOLDER, clock)  # the platform may be running
        service = EnrolmentService(authority, SqlEnrolmentStore(database), clock, audit=trail)
        by = Actor(id=f"command:init:uid={os.geteuid()}")
        for name in workers:
            credential = await service.create_credential(name, by=by)
            write_private_file(folder / CREDENTIALS / name, credential.encode() + b"\n")
            made.append(f"{CREDENTIALS}/{name}")
    return made


def _follow_root(folder: Path) -> list[str]:
    """Write bundle and credentials anew that name a root which is used no longer."""
    from hivemesh_sdk.clock import SystemClock
    from hivemesh_sdk.trust.keys import pem, read_private_file, write_private_file
    from hivemesh_sdk.trust.tokens import Token

    from hivemesh_platform.app import open_trust
    from hivemesh_platform.configuration import Surroundings, load

    settings = load(Surroundings.of_process()).settings
    authority = open_trust(settings, _keys(settings, folder / STATE), SystemClock())
    written = []
    if (folder / BUNDLE).read_bytes() != (roots := pem(authority.bundle().roots)):
        (folder / BUNDLE).write_bytes(roots)
        written.append(BUNDLE)
    for path in sorted((folder / CREDENTIALS).iterdir()):
        token = Token.parse(read_private_file(path).decode())
        if token.root_sha256 != authority.root_sha256:
            token = replace(token, root_sha256=authority.root_sha256)
            write_private_file(path, token.reveal().encode() + b"\n")
            written.append(f"{CREDENTIALS}/{path.name}")
    return written


def _log_warnings_only() -> None:
    """Keep standard output for the answer: what is made is said there."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _give(folder: Path, uid: int) -> bool:
    """Hand the private files to the images' user; only root may."""
    if (folder / STATE).stat().st_uid == uid and os.geteuid() != 0:
        return True
    if os.geteuid() != 0:
        return False
    for part in (folder / STATE, folder / CREDENTIALS):
        for path in (part, *part.rglob("*")):
            # The containers write here: a link of theirs must not give another file away.
            os.chown(path, uid, uid, follow_symlinks=False)
    return True


def _home(settings: "Settings", state: Path) -> Path:
    """The folder below which the platform that takes up our records has its trail."""
    shared = settings.replica.shared_folder
    return state if shared is None else _keys(settings, state) / "replicas" / settings.replica.id


def _keys(settings: "Settings", state: Path) -> Path:
    """The folder below which the keys of the authority are."""
    shared = settings.replica.shared_folder
    return state if shared is None else shared.expanduser().absolute()
