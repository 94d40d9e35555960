"""Reads what a worker process is told at its start from environment variables."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.names import IDENTIFIER
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.trust.files import IdentityPaths

PLATFORM = "HIVEMESH_PLATFORM"
PLATFORM_ID = "HIVEMESH_PLATFORM_ID"
ENROLMENT = "HIVEMESH_ENROLMENT"
TOKEN_FD = "HIVEMESH_TOKEN_FD"  # noqa: S105 - the name of a variable
CREDENTIAL_FILE = "HIVEMESH_CREDENTIAL_FILE"
IDENTITY_KEY = "HIVEMESH_IDENTITY_KEY"
IDENTITY_CHAIN = "HIVEMESH_IDENTITY_CHAIN"
IDENTITY_BUNDLE = "HIVEMESH_IDENTITY_BUNDLE"
HOST = "HIVEMESH_HOST"
PORT = "HIVEMESH_PORT"
ADVERTISE_HOST = "HIVEMESH_ADVERTISE_HOST"
INSTANCE = "HIVEMESH_INSTANCE"
ALONE_S = "HIVEMESH_ALONE_S"
LOG_LEVEL = "HIVEMESH_LOG_LEVEL"
LOG_CLASS_MAX = "HIVEMESH_LOG_CLASS_MAX"


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where the platform is, how this process may enrol, where it listens."""

    platform: Address  # the mesh listener
    enrolment: Address
    more_platforms: tuple[Address, ...] = ()  # of further replicas
    more_enrolments: tuple[Address, ...] = ()
    identity: IdentityPaths | None = None  # files that somebody else keeps fresh
    platform_id: str = ""  # who must answer there; empty: any replica of the own trust domain
    token_fd: int | None = None  # a pipe or socket from the supervisor
    credential_file: Path | None = None  # a mounted deployment credential
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    advertise_host: str = "127.0.0.1"  # under which others reach it
    instance: str = ""  # empty: the platform gives a name
    alone_s: float = 120.0  # a supervised worker goes on so long without its platform; 0: for ever
    log_level: str = "info"
    log_class_max: DataClass = DataClass.INTERNAL  # of the data whose text the log may have

    @property
    def enrolments(self) -> tuple[Address, ...]:
        """Where the replicas enrol that the settings name."""
        return (self.enrolment, *self.more_enrolments)

    @property
    def supervised(self) -> bool:
        """Whether a supervisor started this process and will start another one."""
        return self.token_fd is not None


def read_environment(variables: Mapping[str, str]) -> Environment:
    """Read and check the variables.

    Raises:
        ConfigurationError: one is missing or wrong; the message names it.
    """
    token_fd = _number(variables, TOKEN_FD) if variables.get(TOKEN_FD) else None
    credential = variables.get(CREDENTIAL_FILE)
    identity = _identity(variables)
    if sum((token_fd is not None, bool(credential), identity is not None)) != 1:
        message = f"set exactly one of {TOKEN_FD}, {CREDENTIAL_FILE} and {IDENTITY_KEY}"
        raise ConfigurationError(message)
    host = variables.get(HOST) or "127.0.0.1"
    platform, *platforms = _addresses(variables, PLATFORM)
    enrolment, *enrolments = (
        (platform,) if identity is not None else _addresses(variables, ENROLMENT)
    )
    return Environment(
        platform=platform,
        enrolment=enrolment,
        more_platforms=tuple(platforms),
        more_enrolments=tuple(enrolments),
        identity=identity,
        platform_id=_platform_id(variables),
        token_fd=token_fd,
        credential_file=Path(credential) if credential else None,
        host=host,
        port=_number(variables, PORT),
        advertise_host=variables.get(ADVERTISE_HOST) or _reachable(host),
        instance=_instance(variables),
        alone_s=float(_number(variables, ALONE_S, 120)),
        log_level=variables.get(LOG_LEVEL, "info").lower(),
        log_class_max=_data_class(variables, LOG_CLASS_MAX),
    )


def _addresses(variables: Mapping[str, str], name: str) -> tuple[Address, ...]:
    """One address per replica, with commas between them."""
    texts = [text.strip() for text in variables.get(name, "").split(",") if text.strip()]
    if not texts:
        message = f"{name} is not set; write it like https://127.0.0.1:8443"
        raise ConfigurationError(message)
    return tuple(_address(name, text) for text in texts)


def address_of(url: str) -> Address | None:
    """Read an address that a replica has told; None where it is none."""
    try:
        return _address("", url)
    except ConfigurationError:
        return None


def _address(name: str, text: str) -> Address:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        message = f"{name}={text!r} is no address"
        raise ConfigurationError(message) from error
    if parts.scheme != "https" or not host or port is None or parts.path not in {"", "/"}:
        message = f"{name}={text!r} must look like https://127.0.0.1:8443"
        raise ConfigurationError(message)
    return Address(host, port)


def _identity(variables: Mapping[str, str]) -> IdentityPaths | None:
    names = (IDENTITY_KEY, IDENTITY_CHAIN, IDENTITY_BUNDLE)
    given = [name for name in names if variables.get(name)]
    if not given:
        return None
    if len(given) < len(names):
        missing = [name for name in names if name not in given]
        message = f"{given[0]} is set, {' and '.join(missing)} not; an identity is three files"
        raise ConfigurationError(message)
    key, chain, bundle = (Path(variables[name]) for name in names)
    return IdentityPaths(key=key, chain=chain, bundle=bundle)


def _platform_id(variables: Mapping[str, str]) -> str:
    rule = variables.get(PLATFORM_ID, "")
    if rule and not (rule.startswith("spiffe://") and "/platform/" in rule):
        message = f"{PLATFORM_ID}={rule!r} must look like spiffe://<trust domain>/platform/*"
        raise ConfigurationError(message)
    return rule


def _data_class(variables: Mapping[str, str], name: str) -> DataClass:
    text = variables.get(name) or DataClass.INTERNAL
    try:
        return DataClass(text)
    except ValueError as error:
        message = f"{name}={text!r} must be one of {', '.join(DataClass)}"
        raise ConfigurationError(message) from error


def _number(variables: Mapping[str, str], name: str, default: int = 0) -> int:
    text = variables.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        message = f"{name}={text!r} is no whole number"
        raise ConfigurationError(message)
    return int(text)


def _instance(variables: Mapping[str, str]) -> str:
    name = variables.get(INSTANCE, "")
    if name and not IDENTIFIER.fullmatch(name):
        message = f"{INSTANCE}={name!r} must consist of letters, digits and hyphens"
        raise ConfigurationError(message)
    return name


def _reachable(host: str) -> str:
    return socket.gethostname() if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared only
