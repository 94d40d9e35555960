"""Where the platform's replicas were reached last, kept across restarts of a worker.

Only addresses: whoever answers there proves itself, by the root that the token names.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from hivemesh_sdk.lifecycle.environment import Address
from hivemesh_sdk.lifecycle.private import private_folder
from hivemesh_sdk.safeio.names import file_name
from hivemesh_sdk.trust.keys import write_private_file

MOST = 16  # replicas
_log = structlog.get_logger("hivemesh.lifecycle")


class Replicas(msgspec.Struct, frozen=True):
    """Addresses of the replicas that live."""

    platforms: tuple[str, ...] = ()
    enrolments: tuple[str, ...] = ()


class Remembered:
    """The replicas as a worker was told of them last; a file of the worker's user holds them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.replicas = Replicas()

    @classmethod
    def of(cls, worker: str, given: Sequence[Address]) -> "Remembered":
        """Read what an earlier process with the same settings has left."""
        name = hashlib.sha256(",".join(sorted(map(str, given))).encode()).hexdigest()[:16]
        found = cls(private_folder() / f"{file_name(worker)}-{name}.replicas")
        try:
            found.replicas = msgspec.json.decode(found._path.read_bytes(), type=Replicas)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            _log.info("replicas_not_remembered", detail=str(error))
        return found

    def learn(self, platforms: Sequence[str], enrolments: Sequence[str]) -> None:
        """Take over what a replica has told; nothing where there is one alone."""
        told = Replicas(tuple(platforms[:MOST]), tuple(enrolments[:MOST]))
        if not platforms or told == self.replicas:
            return
        self.replicas = told
        try:
            write_private_file(self._path, msgspec.json.encode(told))
        except OSError as error:
            _log.info("replicas_not_remembered", detail=str(error))
