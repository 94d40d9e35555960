"""A whole platform in this process, on loopback, with its state in a temporary folder."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hivemesh_platform.app import Platform
from hivemesh_platform.configuration import Loaded, Surroundings, load
from hivemesh_platform.server import serving
from hivemesh_sdk.client import Client
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.lifecycle.platform import PlatformClient
from hivemesh_sdk.transport import MeshClient
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.trust.enrolment import Identity, Newcomer, enrol
from hivemesh_sdk.trust.tokens import Token
from registry_support import manifest, registration


def configured(folder: Path, environment: dict[str, str] | None = None, **flags: object) -> Loaded:
    surroundings = Surroundings(
        environment=environment or {},
        working_folder=folder,
        home=folder,
        system_file=folder / "none.yaml",
    )
    defaults = {
        "state.folder": str(folder / "state"),
        "api.port": 0,
        "api.enrolment_port": 0,
        "workers.supervise": False,
        "workers.folders": [str(folder / "workers")],
    }
    return load(surroundings, {**defaults, **flags})


def install(folder: Path, found: Manifest | None = None) -> Manifest:
    found = found or manifest()
    place = folder / "workers" / found.metadata.name
    place.mkdir(parents=True, exist_ok=True)
    (place / "plugin.yaml").write_text(json.dumps(found.document()))  # JSON is YAML
    return found


@asynccontextmanager
async def platform(
    folder: Path, environment: dict[str, str] | None = None, **flags: object
) -> AsyncIterator[Platform]:
    loaded = configured(folder, environment, **flags)
    for name in ("", "logs", "run"):
        (loaded.state_folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    async with serving(loaded) as found:
        yield found


async def ask(found: Platform, method: str, *arguments: object, **options: object):
    """Call one method of the `Client` with the operator's certificate, in a thread."""

    def work():
        with Client.from_state(found.state_folder) as client:
            return getattr(client, method)(*arguments, **options)

    return await asyncio.to_thread(work)


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("https://").rpartition(":")
    return host, int(port)


async def join(found: Platform, worker: Manifest, *, token: str | None = None) -> Identity:
    secret = token or await found.enrolment.create_token(worker.metadata.name)
    newcomer = Newcomer(worker=worker.metadata.name, manifest_digest=worker.digest())
    host, port = address(found.enrolment_url)
    return await enrol(host, port, Token.parse(secret), newcomer)


@asynccontextmanager
async def member(found: Platform, worker: Manifest) -> AsyncIterator[tuple[str, PlatformClient]]:
    """A worker that has enrolled and registered, without any code of its own."""
    identity = await join(found, worker)
    host, port = address(found.mesh_url)
    async with MeshClient(identity.source()) as mesh:
        client = PlatformClient(mesh, Target.platform(host, port, identity.bundle.trust_domain))
        await client.register(identity.svid.id.instance, registration(worker))
        yield identity.svid.id.instance, client
