"""Artifacts in a folder, and secrets: the fake of the platform's artifact store, for tests and local runs."""

import asyncio
import hashlib
from pathlib import Path

from hivemesh_sdk.contracts.artifacts import Artifact, Grant, GrantRequest
from hivemesh_sdk.contracts.secrets import SecretLease, SecretRequest
from hivemesh_sdk.contracts.submits import SubmitReply, SubmitRequest
from hivemesh_sdk.contracts.tickets import ExchangeReply, ExchangeRequest
from hivemesh_sdk.errors import NotFoundError


class FolderPlatform:
    """A `PlatformPort` over a folder that holds each artifact under its digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.granted: list[GrantRequest] = []
        self.secrets: dict[str, str] = {}
        self.submitted: dict[str, SubmitRequest] = {}  # by key
        self.exchanged: list[ExchangeRequest] = []
        self.lent: list[SecretRequest] = []
        self.sent: list[tuple[int, int]] = []  # offset and length of each read

    def add(self, data: bytes, name: str | None = None) -> Artifact:
        """Store bytes as a person would and return their reference."""
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / digest).write_bytes(data)
        return Artifact(sha256=digest, size=len(data), name=name)

    def content(self, reference: Artifact) -> bytes:
        """The bytes of an artifact."""
        return (self.folder / reference.sha256).read_bytes()

    async def grant(self, request: GrantRequest, *, ticket: str) -> Grant:
        """Grant everything that is there, and every upload."""
        self.granted.append(request)
        present = (self.folder / request.sha256).exists()
        if request.operation == "get" and not present:
            raise NotFoundError(request.sha256, slug="artifact-missing")
        return Grant(
            method=request.operation.upper(),
            url=f"/v1/artifacts/{request.sha256}",
            headers={},
            expires_in_s=300,
            present=present,
        )

    async def get(self, grant: Grant, offset: int, length: int) -> bytes:
        """Read a part of an artifact."""
        self.sent.append((offset, length))
        return await asyncio.to_thread(self._read, self._path(grant), offset, length)

    async def put(self, grant: Grant, data: bytes | Path, size: int) -> None:
        """Store an artifact."""
        content = data if isinstance(data, bytes) else await asyncio.to_thread(data.read_bytes)
        await asyncio.to_thread(self._path(grant).write_bytes, content)

    async def lend(self, request: SecretRequest, *, ticket: str) -> SecretLease:
        """Lend any secret of `secrets`."""
        self.lent.append(request)
        value = self.secrets.get(request.path)
        if value is None:
            raise NotFoundError(request.path, slug="secret-missing")
        name = f"lease{len(self.lent)}"
        return SecretLease(id=name, path=request.path, version=1, value=value, expires_in_s=60.0)

    async def submit(self, request: SubmitRequest, *, ticket: str) -> SubmitReply:
        """Accept every job, once for a key."""
        self.submitted.setdefault(f"{request.step}.{request.name}", request)
        return SubmitReply(job=f"job_{request.step}.{request.name}")

    async def exchange(self, request: ExchangeRequest) -> ExchangeReply:
        """Give the same ticket back: what it allows is not looked at here."""
        self.exchanged.append(request)
        return ExchangeReply(ticket=request.ticket, expires_in_s=60)

    def _path(self, grant: Grant) -> Path:
        return self.folder / grant.url.rsplit("/", 1)[1]

    def _read(self, path: Path, offset: int, length: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
