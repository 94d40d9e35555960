"""`hivemesh init`: the CA, the trust bundle and one enrolment credential per worker, for containers."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from hivemesh_platform.cli import output

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

    A second call keeps what is there. Undo: delete the folder's `platform` and `credentials`.

    Example:  hivemesh init --folder certs --worker email-parser
    """
    names = worker or sorted(path.parent.name for path in Path("workers").glob("*/plugin.yaml"))
    made = asyncio.run(_make(folder.resolve(), names))
    owned = _give(folder, uid)
    if fmt in {"json", "yaml"}:
        output.show_document(
            {"folder": str(folder), "made": made, "owned_by": uid if owned else None}, fmt
        )
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


async def _make(folder: Path, workers: list[str]) -> list[str]:
    from hivemesh_sdk.clock import SystemClock
    from hivemesh_sdk.trust.keys import pem, write_private_file

    from hivemesh_platform.app import DATABASE, open_trust
    from hivemesh_platform.configuration import Surroundings, load
    from hivemesh_platform.storage.database import Database
    from hivemesh_platform.storage.migrate import ensure_schema
    from hivemesh_platform.trust.service import EnrolmentService
    from hivemesh_platform.trust.store import SqlEnrolmentStore

    state, made = folder / STATE, []
    for part in (state, folder / CREDENTIALS):
        part.mkdir(parents=True, exist_ok=True, mode=0o700)
    clock = SystemClock()
    authority = open_trust(load(Surroundings.of_process()).settings, state, clock)
    bundle = folder / BUNDLE
    if not bundle.exists():
        bundle.write_bytes(pem(authority.bundle().roots))
        made.append(BUNDLE)
    ensure_schema(state / DATABASE)
    async with Database(state / DATABASE) as database:
        service = EnrolmentService(authority, SqlEnrolmentStore(database), clock)
        for name in workers:
            path = folder / CREDENTIALS / name
            if not path.exists():
                credential = await service.create_credential(name)
                write_private_file(path, credential.encode() + b"\n")
                made.append(f"{CREDENTIALS}/{name}")
    return made


def _give(folder: Path, uid: int) -> bool:
    """Hand the private files to the images' user; only root may."""
    if os.geteuid() == uid:
        return True
    if os.geteuid() != 0:
        return False
    for part in (folder / STATE, folder / CREDENTIALS):
        for path in (part, *part.rglob("*")):
            os.chown(path, uid, uid)
    return True
