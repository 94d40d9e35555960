"""Instances on the wire: registration, heartbeats and discovery."""

from typing import Literal

import msgspec

HEARTBEAT_S = 2.0
LEASE_S = 8.0  # four missed heartbeats, so that a lost step is placed again within 10 s
MAX_REFUSALS = 64  # in one heartbeat


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """`PUT /v1/instances/{id}`: an instance says where it listens and what it serves.

    `manifest` is the JSON form of plugin.yaml, `manifest_digest` its SHA-256 (canonical JSON).
    """

    worker: str
    version: str
    manifest_digest: str
    manifest: dict[str, object]
    sdk_version: str
    protocol: int
    host: str
    port: int
    incarnation: str
    slots: dict[str, int]
    labels: dict[str, str] = {}
    pid: int = 0
    clock: float = 0.0  # of the sender, in seconds since 1970; 0 where it does not say


class RegistrationReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the platform makes of a registration."""

    state: Literal["live", "incompatible"]
    reason: str = ""
    heartbeat_s: float = HEARTBEAT_S
    lease_s: float = LEASE_S


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance has refused since it said so last: whom, why and how often.

    `peer` is a SPIFFE ID, empty where the connection had none. `reason` is a slug.
    """

    peer: str
    reason: str
    count: int


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/instances/{id}/heartbeat`; cpu and memory are fractions 0..1 of own limits.

    By `bundle_sequence` and `issuer` the platform knows when a new root or issuer may be used, and
    when the one before it may go. `refusals` go to its audit trail.
    """

    slots: dict[str, int]
    active: dict[str, int]
    cpu: float
    memory: float
    draining: bool = False
    incarnation: str = ""
    bundle_sequence: int = 0  # of the trust bundle that the instance uses
    issuer: str = ""  # id of the issuer of its certificate, as bundles call it
    refusals: list[Refusal] = []
    clock: float = 0.0  # as in a registration


class HeartbeatReply(msgspec.Struct, frozen=True, kw_only=True):
    """`bundle_sequence` tells whether the trust bundle has to be fetched again.

    `platforms` are the mesh addresses of the replicas that live, `enrolments` where they enrol.
    """

    bundle_sequence: int = 0
    platforms: list[str] = []
    enrolments: list[str] = []
    lease_s: float = LEASE_S


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One live instance as others may call it."""

    instance: str
    worker: str
    version: str
    identity: str
    host: str
    port: int
    capabilities: list[str]
    labels: dict[str, str] = {}
    load: float = 0.0


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/discovery?after=VERSION&wait=SECONDS`: all live endpoints, when they changed."""

    version: int
    endpoints: list[Endpoint]
