"""The platform's own certificate and the operator's: made at the start, renewed at half life.

Where the platform's comes from files, the one of the authority serves newcomers alone: they know
only the fingerprint of the authority's root.

Looks at the wall clock on each tick, because monotonic timers stand still while a laptop sleeps.
Where it was set back before a certificate's begin, the certificate is made anew.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding
from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.files import FileIdentitySource, IdentityPaths
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.keys import new_key, pem, write_private_file
from hivemesh_sdk.trust.source import IdentitySource

from hivemesh_platform.settings import TrustSettings
from hivemesh_platform.trust.authority import Authority

TICK_S = 1.0


class OperatorFiles:
    """`operator/` in the state folder: what the `hivemesh` command shows as its identity.

    One key per start of the platform, so that a reader never meets a key and a certificate that
    do not belong together.
    """

    def __init__(self, folder: Path, authority: Authority, clock: Clock) -> None:
        self._folder = folder
        self._authority = authority
        self._clock = clock
        self._key = new_key()
        self._identity = SpiffeId.user(authority.trust_domain, "operator")
        self._valid_from = self._renew_at = clock.now()

    def write_endpoint(self, host: str, port: int, others: Sequence[tuple[str, int]] = ()) -> None:
        """Say where the mesh listeners are, ours first; written last, when it answers."""
        document = {
            "host": host,
            "port": port,
            "server_name": f"platform.{self._authority.trust_domain}",
            "others": others,
        }
        self._write("endpoint.json", json.dumps(document).encode())

    def renew(self, *, force: bool = False) -> None:
        """Write key, certificate and bundle where half of the certificate's life is over."""
        now = self._clock.now()
        early = self._authority.would_begin_sooner(self._valid_from)
        if not force and not early and now < self._renew_at:
            return
        issued = self._authority.issue(self._identity, self._key.public_key())
        self._valid_from = issued.chain[0].not_valid_before_utc
        self._renew_at = now + (issued.not_after - now) / 2
        private = self._key.private_bytes(
            Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._write("bundle.pem", pem(self._authority.bundle().roots))
        self._write("key.pem", private)
        self._write("certificate.pem", issued.pem.encode("ascii"))

    def remove(self) -> None:
        """Take the endpoint and the key away when the platform stops."""
        for name in ("endpoint.json", "key.pem", "certificate.pem"):
            (self._folder / name).unlink(missing_ok=True)

    def _write(self, name: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private_file(self._folder / name, content)


class OwnIdentity:
    """Keeps the certificates of this process and of its operator fresh."""

    def __init__(
        self, sources: "Sources", authority: Authority, operator: OperatorFiles, clock: Clock
    ) -> None:
        self._source = sources.embedded
        self._files = sources.files
        self._authority = authority
        self._operator = operator
        self._clock = clock
        self._log = structlog.get_logger("hivemesh.trust")

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            await self.tick()

    async def tick(self) -> None:
        """Renew what has lived half of its life; announce a changed bundle."""
        self._follow_files()
        bundle = self._authority.bundle()
        changed = bundle.sequence != self._source.bundle().sequence
        if changed or self._is_due():
            svid = await asyncio.to_thread(self._authority.svid, self._source.svid().id)
            self._source.update(svid=svid, bundle=bundle)
        try:
            await asyncio.to_thread(self._operator.renew, force=changed)
        except OSError as error:
            self._log.warning("operator_files_not_written", detail=str(error))

    def _follow_files(self) -> None:
        """Take over what the files hold now, and have everybody trust their roots."""
        if self._files is None:
            return
        self._files.reload()
        self._authority.trust_also(self._files.file_roots)
        bundle = self._authority.bundle()
        if bundle.sequence != self._files.bundle().sequence:
            self._files.update(bundle=bundle)

    def _is_due(self) -> bool:
        svid = self._source.svid()
        early = self._authority.would_begin_sooner(svid.not_before)
        return early or self._clock.now() >= self._authority.renewal_due(svid.not_after)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the platform's identity comes from."""

    embedded: IdentitySource  # from the authority; what newcomers see
    files: FileIdentitySource | None = None

    @property
    def mesh(self) -> IdentitySource:
        """The identity that peers see."""
        return self.files or self.embedded


def open_sources(
    settings: TrustSettings, own: SpiffeId, authority: Authority, clock: Clock
) -> Sources:
    """The sources that the settings name.

    Raises:
        ConfigurationError: the files make no identity, or that of somebody else.
    """
    files = identity_files(settings, own, clock)
    if files is None:
        return Sources(IdentitySource(authority.svid(own), authority.bundle()))
    authority.trust_also(files.file_roots)
    files.update(bundle=authority.bundle())
    svid = authority.svid(own)
    return Sources(IdentitySource(svid, authority.bundle(), refusals=files.refusals), files)


def identity_files(
    settings: TrustSettings, own: SpiffeId, clock: Clock
) -> FileIdentitySource | None:
    """The identity that the settings name as files, None where they name none; raises as `open_sources`."""
    key, chain, bundle = settings.identity_key, settings.identity_chain, settings.identity_bundle
    if settings.identity != "files" or key is None or chain is None or bundle is None:
        return None

    def expect(found: SpiffeId) -> None:
        if found != own:
            message = f"the files hold {str(found)!r}; the platform needs {str(own)!r}"
            raise ConfigurationError(message, slug="configuration-invalid")

    paths = IdentityPaths(key=key, chain=chain, bundle=bundle)
    return FileIdentitySource(paths, clock=clock, expected=expect)
