"""JSON Schemas (2020-12) of every document of the wire contract, made from the types themselves."""

from collections.abc import Mapping

from pydantic import BaseModel, JsonValue

from hivemesh_sdk.contracts.artifacts import Artifact, Grant, GrantRequest, Tree
from hivemesh_sdk.contracts.instances import (
    Discovery,
    Heartbeat,
    HeartbeatReply,
    Registration,
    RegistrationReply,
)
from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.pipeline import Pipeline
from hivemesh_sdk.contracts.policy import PolicyDocument, SignedPolicy, SignedRule
from hivemesh_sdk.contracts.printable import schema, schema_components
from hivemesh_sdk.contracts.problems import Problem
from hivemesh_sdk.contracts.secrets import SecretLease, SecretRequest
from hivemesh_sdk.contracts.steps import (
    Command,
    Event,
    ExecutionStatus,
    StepRequest,
    WorkerStatus,
)
from hivemesh_sdk.contracts.submits import SubmitReply, SubmitRequest
from hivemesh_sdk.contracts.tickets import ExchangeReply, ExchangeRequest, Ticket
from hivemesh_sdk.trust.bundle import BundleDocument
from hivemesh_sdk.trust.wire import EnrolRequest, IdentityAnswer, RenewRequest

DIALECT = "https://json-schema.org/draft/2020-12/schema"

WRITTEN: Mapping[str, type[BaseModel]] = {
    "manifest": Manifest,
    "pipeline": Pipeline,
    "policy": PolicyDocument,
}
MESSAGES: Mapping[str, object] = {
    "step-request": StepRequest,
    "event": Event,
    "worker-status": WorkerStatus,
    "execution-status": ExecutionStatus,
    "command": Command,
    "registration": Registration,
    "registration-reply": RegistrationReply,
    "heartbeat": Heartbeat,
    "heartbeat-reply": HeartbeatReply,
    "discovery": Discovery,
    "artifact": Artifact,
    "tree": Tree,
    "grant-request": GrantRequest,
    "ticket": Ticket,
    "exchange-request": ExchangeRequest,
    "exchange-reply": ExchangeReply,
    "grant": Grant,
    "signed-policy": SignedPolicy,
    "signed-rule": SignedRule,
    "submit-request": SubmitRequest,
    "submit-reply": SubmitReply,
    "secret-request": SecretRequest,
    "secret-lease": SecretLease,
    "problem": Problem,
}

JOINING: Mapping[str, object] = {  # what a worker sends and gets before it serves anything
    "enrol-request": EnrolRequest,
    "renew-request": RenewRequest,
    "identity-answer": IdentityAnswer,
    "bundle": BundleDocument,
}


def documents() -> dict[str, JsonValue]:
    """One schema per document, by its name; each stands alone."""
    written = {name: _written(name, model) for name, model in WRITTEN.items()}
    messages = {name: _message(name, kind) for name, kind in {**MESSAGES, **JOINING}.items()}
    return {**written, **messages}


def components() -> dict[str, JsonValue]:
    """The machine messages as the components of an OpenAPI document."""
    template = "#/components/schemas/{name}"
    roots, found = schema_components(list(MESSAGES.values()), template)
    event = list(MESSAGES).index("event")
    return dict(sorted({**found, "Event": roots[event]}.items()))


def _written(name: str, model: type[BaseModel]) -> JsonValue:
    return {**_head(name), **model.model_json_schema(by_alias=True)}


def _message(name: str, kind: object) -> JsonValue:
    return {**_head(name), **schema(kind)}


def _head(name: str) -> dict[str, JsonValue]:
    return {"$schema": DIALECT, "$id": f"urn:hivemesh:schema:v1:{name}"}
