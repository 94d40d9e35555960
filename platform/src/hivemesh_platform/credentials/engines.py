"""Engines of a vault that make credentials for each step: database users and their like.

`{{ vault.db.reader.password }}` is the field `password` of what `database/creds/reader` answers,
where the settings map `db` to `database/creds`. All fields that a step asks for come from one
answer, which the vault takes back when the step ends.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from hivemesh_sdk.clock import Clock
from pydantic import JsonValue

from hivemesh_platform.credentials.errors import SecretMissingError
from hivemesh_platform.credentials.model import StoredSecret
from hivemesh_platform.credentials.vault_http import VaultClient, quoted

MARGIN_S = 1.0  # what is left of a lease is not given out any more


@dataclass(frozen=True, slots=True)
class Made:
    """One answer of an engine."""

    fields: Mapping[str, JsonValue] = field(repr=False)
    lease: str
    until: float  # monotonic


class Engines:
    """What the vault has made for the steps that run."""

    def __init__(self, client: VaultClient, engines: Mapping[str, str], clock: Clock) -> None:
        self._client = client
        self._engines = {name: path.strip("/") for name, path in engines.items()}
        self._clock = clock
        self._made: dict[tuple[str, str], Made] = {}
        self._lock = asyncio.Lock()

    def makes(self, path: str) -> bool:
        """Whether a path is one of an engine."""
        return path.partition(".")[0] in self._engines

    async def read(self, path: str, holder: str) -> StoredSecret:
        """Return a field of what was made for the holder, or have it made.

        Raises:
            SecretMissingError: the engine makes nothing of this name, or there is no holder.
        """
        name, _, rest = path.partition(".")
        role, _, wanted = rest.rpartition(".")
        if not role or not holder:
            message = f"{path!r} is made for a step, as {name}.<role>.<field>, and for nobody else"
            raise SecretMissingError(message)
        place = quoted(f"{self._engines[name]}/{role.replace('.', '/')}")
        async with self._lock:
            made = self._made.get((holder, place))
            if made is None or self._clock.monotonic() >= made.until - MARGIN_S:
                made = self._made[holder, place] = await self._make(place, path)
        value = made.fields.get(wanted)
        if not isinstance(value, str):
            message = f"the vault's answer for {path!r} has no text {wanted!r}"
            raise SecretMissingError(message)
        left = made.until - self._clock.monotonic()
        return StoredSecret(path=path, version=0, value=value, lease=made.lease, lease_s=left)

    def forget(self, lease: str) -> None:
        """Forget what was made under a lease."""
        for key, made in tuple(self._made.items()):
            if made.lease == lease:
                del self._made[key]

    async def _make(self, place: str, path: str) -> Made:
        asked = self._clock.monotonic()
        answer = await self._client.get(place)
        data = None if answer is None else answer.get("data")
        if answer is None or not isinstance(data, dict):
            message = f"the vault makes nothing for {path!r}"
            raise SecretMissingError(message)
        seconds = answer.get("lease_duration")
        life = float(seconds) if isinstance(seconds, int | float) and seconds else 0.0
        lease = answer.get("lease_id")
        return Made(data, lease if isinstance(lease, str) else "", asked + life)
