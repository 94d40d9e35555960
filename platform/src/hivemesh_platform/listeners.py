"""The sockets of the listeners, opened before anything else so that a taken port is told at once."""

import errno
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hivemesh_sdk.errors import ConfigurationError, ConflictError

from hivemesh_platform.settings import ApiSettings

PEOPLE_PORT = 8445


class PortTakenError(ConflictError):
    """Another program listens on the port."""

    slug = "port-taken"


@dataclass(frozen=True, slots=True)
class Sockets:
    """One bound socket per listener."""

    mesh: socket.socket
    enrolment: socket.socket
    people: socket.socket

    @classmethod
    def open(cls, api: ApiSettings, memory: Path) -> Self:
        """Bind all; port 0 takes the one of the last start where it is free, else any.

        Workers that outlived a killed platform find the next one at the same port.

        Raises:
            PortTakenError: a fixed port is taken, or named twice.
            ConfigurationError: the host is no address of this machine.
        """
        check_ports(api)
        last, bound = _remembered(memory), dict[str, socket.socket]()
        try:
            for name, (host, port, key) in _wanted(api).items():
                bound[name] = _bind(host, port, last.get(name, 0), key)
        except BaseException:
            for one in bound.values():
                one.close()
            raise
        memory.write_text(json.dumps({name: one.getsockname()[1] for name, one in bound.items()}))
        return cls(**bound)

    def close(self) -> None:
        """Close all."""
        for one in (self.mesh, self.enrolment, self.people):
            one.close()


def check_ports(api: ApiSettings) -> None:
    """Look whether each listener has an address of its own.

    Raises:
        PortTakenError: two of them have the same.
    """
    taken: dict[tuple[str, int], str] = {}
    for host, port, key in _wanted(api).values():
        other = taken.setdefault((host, port), key)
        if port and other != key:
            message = f"api.{other} and api.{key} are both {port}; set another one (0 = any)"
            raise PortTakenError(message)


def _wanted(api: ApiSettings) -> dict[str, tuple[str, int, str]]:
    """Host, port and key of each listener."""
    return {
        "mesh": (api.host, api.port, "port"),
        "enrolment": (api.host, api.enrolment_port, "enrolment_port"),
        "people": (api.people_host, _people_port(api), "people_port"),
    }


def _people_port(api: ApiSettings) -> int:
    if api.people_port is not None:
        return api.people_port
    return PEOPLE_PORT if api.port else 0


def _bind(host: str, port: int, last: int, key: str) -> socket.socket:
    if port == 0 and last:
        try:
            return _bound(host, last)
        except OSError:
            pass
    try:
        return _bound(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} of {host} is taken; set api.{key} (0 = any free one)"
            raise PortTakenError(message) from error
        message = f"cannot listen on {host!r} port {port}: {error.strerror or error}"
        raise ConfigurationError(message, slug="configuration-invalid") from error


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(2048)
    except BaseException:
        found.close()
        raise
    return found


def _remembered(memory: Path) -> dict[str, int]:
    try:
        document = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in document.items() if isinstance(value, int)}
