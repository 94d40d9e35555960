"""plugin.yaml: how a worker describes itself. Written by people, so unknown keys are refused."""

import hashlib
import json
from typing import Annotated, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.names import CAPABILITY_ID, EGRESS_RULE, WORKER_NAME
from hivemesh_sdk.contracts.references import pattern_problem

CapabilityKind = Literal["call", "map", "source", "reducer"]
Where = Literal["inline", "process"]


class Written(BaseModel):
    """What people write: frozen, and unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Metadata(Written):
    """Who the worker is and who made it."""

    name: Annotated[str, Field(pattern=f"^{WORKER_NAME.pattern}$")]
    version: str
    publisher: str = ""
    description: str = ""
    license: str = ""

    @field_validator("version")
    @classmethod
    def _is_a_version(cls, value: str) -> str:
        try:
            Version(value)
        except InvalidVersion as error:
            message = f"{value!r} is no version; write it like 1.2.3"
            raise ValueError(message) from error
        return value


class Runtime(Written):
    """Where the code is: `module:attribute` of the `Worker`, and the container image."""

    entrypoint: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    image: str = ""


class Capability(Written):
    """One thing that the worker can do.

    `input`, `output` and `options` are JSON Schemas; where they are left out, `hivemesh-worker
    check` derives them from the code.
    """

    id: Annotated[str, Field(pattern=f"^{CAPABILITY_ID.pattern}$")]
    kind: CapabilityKind
    description: str = ""
    run_in: Where = "process"
    slots: Annotated[int, Field(ge=1, le=256)] = 1
    input: dict[str, JsonValue] | None = None
    output: dict[str, JsonValue] | None = None
    options: dict[str, JsonValue] | None = None
    idempotency: Literal["natural", "key", "none"] = "natural"
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 300
    idle_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 300
    max_retries: Annotated[int, Field(ge=0, le=100)] = 3
    retry_base_s: Annotated[float, Field(gt=0, le=3600)] | None = None  # None: as the platform says
    retry_max_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    data_class: DataClass = DataClass.INTERNAL
    data_class_max: DataClass = DataClass.PERSONAL
    declassifies: tuple[DataClass, ...] = ()


EgressRule = Annotated[str, Field(pattern=f"^{EGRESS_RULE.pattern}$", max_length=300)]


class DatasetPermissions(Written):
    """Datasets by name."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


class Permissions(Written):
    """What the worker asks for; nothing else is granted."""

    egress: tuple[EgressRule, ...] = ()
    secrets: tuple[str, ...] = ()
    datasets: DatasetPermissions = DatasetPermissions()
    call: tuple[str, ...] = ()
    scratch_mb: Annotated[int, Field(ge=0)] = 0
    devices: tuple[str, ...] = ()

    @field_validator("secrets")
    @classmethod
    def _are_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            wrong = pattern_problem(pattern)
            if wrong:
                raise ValueError(wrong)
        return value


class Resources(Written):
    """Limits of one instance; memory is what its processes may hold together."""

    memory_mb: Annotated[int, Field(ge=32)] = 512
    cpu: Annotated[float, Field(gt=0)] = 1.0
    pids: Annotated[int, Field(ge=8)] = 128
    disk_mb: Annotated[int, Field(ge=0)] = 1024


class Manifest(Written):
    """The whole of plugin.yaml."""

    apiVersion: Literal["hivemesh/v1"]  # noqa: N815 - the field's name on the wire
    kind: Literal["Worker"]
    metadata: Metadata
    platform: str = ">=0.1,<1"
    runtime: Runtime
    capabilities: Annotated[tuple[Capability, ...], Field(min_length=1)]
    permissions: Permissions = Permissions()
    resources: Resources = Resources()
    labels: dict[str, str] = {}

    @field_validator("platform")
    @classmethod
    def _is_a_range(cls, value: str) -> str:
        try:
            SpecifierSet(value)
        except InvalidSpecifier as error:
            message = f"{value!r} is no version range; write it like >=0.1,<1"
            raise ValueError(message) from error
        return value

    @field_validator("capabilities")
    @classmethod
    def _ids_differ(cls, value: tuple[Capability, ...]) -> tuple[Capability, ...]:
        ids = [capability.id for capability in value]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            message = f"declared twice: {', '.join(twice)}"
            raise ValueError(message)
        return value

    def capability(self, name: str) -> Capability | None:
        """The capability with this id, or None where the manifest does not list it."""
        return next((one for one in self.capabilities if one.id == name), None)

    def accepts_platform(self, version: str) -> bool:
        """Whether this platform version lies in the range the manifest asks for."""
        return SpecifierSet(self.platform).contains(Version(version), prereleases=True)

    def document(self) -> dict[str, JsonValue]:
        """The JSON form: what is given, without defaults.

        So a field that is added with a default later changes no digest.
        """
        return self.model_dump(mode="json", exclude_unset=True)

    def digest(self) -> str:
        """SHA-256 of the JSON form in the canonical notation of RFC 8785."""
        return hashlib.sha256(canonical_json(self.document())).hexdigest()


def canonical_json(value: JsonValue) -> bytes:
    """JSON as every language writes it: keys sorted, no spaces, 300 instead of 300.0 (RFC 8785)."""
    text = json.dumps(
        _whole_numbers(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return text.encode()


def _whole_numbers(value: JsonValue) -> JsonValue:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole_numbers(below) for key, below in value.items()}
    return [_whole_numbers(below) for below in value] if isinstance(value, list) else value
