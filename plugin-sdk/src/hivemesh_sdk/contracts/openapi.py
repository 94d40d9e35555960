"""The worker's HTTP surface as OpenAPI 3.1: what a worker in any language has to serve."""

from pydantic import JsonValue

from hivemesh_sdk.contracts.manifest import Manifest
from hivemesh_sdk.contracts.names import (
    ACKNOWLEDGE_HEADER,
    DEADLINE_HEADER,
    EXECUTION_HEADER,
    PAGE_MEDIA_TYPE,
    PROBLEM_MEDIA_TYPE,
    REQUEST_ID_HEADER,
    TICKET_HEADER,
)
from hivemesh_sdk.contracts.problems import CATALOGUE
from hivemesh_sdk.contracts.schemas import components

Object = dict[str, JsonValue]

_TICKET_PROBLEMS = ("ticket-missing", "ticket-invalid", "ticket-expired", "signature-invalid")


def worker_openapi() -> Object:
    """The whole document."""
    schemas = components()
    schemas["Manifest"] = Manifest.model_json_schema(
        by_alias=True, ref_template="#/components/schemas/Manifest/$defs/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hivemesh worker",
            "version": "1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Every request comes over mutual TLS 1.3; see protocol.md.",
        },
        "security": [{"mesh": []}],
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "mesh": {"type": "mutualTLS", "description": "a certificate of the installation"}
            },
        },
    }


def _paths() -> Object:
    return {
        "/": {"get": _json("what the worker is and what it runs", "WorkerStatus")},
        "/v1/manifest": {"get": _json("plugin.yaml as JSON", "Manifest")},
        "/v1/status": {"get": _json("slots and executions", "WorkerStatus")},
        "/v1/commands": {"post": _command()},
        "/v1/steps/{key}": {
            "parameters": [_path_parameter("key", "run.node.seq")],
            "put": _put(),
            "get": _read_step(),
            "delete": _delete(),
        },
        "/v1/steps/{key}/events": {
            "parameters": [_path_parameter("key", "run.node.seq")],
            "get": _events(),
        },
        "/metrics": {"get": _metrics()},
    }


def _put() -> Object:
    return {
        "operationId": "putStep",
        "summary": "create a step, or find its execution again, and take the first page",
        "parameters": [
            _header(TICKET_HEADER, "the step's ticket", required=True),
            _header("Prefer", "wait=SECONDS: how long the first page may take, at most 20"),
            _acknowledge(),
            _header(DEADLINE_HEADER, "remaining milliseconds of this exchange"),
            _header(REQUEST_ID_HEADER, "returned and logged"),
        ],
        "requestBody": {
            "required": True,
            "description": "one line of JSON (StepRequest), then the inline inputs in order",
            "content": {PAGE_MEDIA_TYPE: {"schema": {"$ref": _ref("StepRequest")}}},
        },
        "responses": {
            "200": _page(),
            **_problems(
                ("malformed", "unknown-capability", "idempotency-mismatch", "stale-attempt"),
                ("options-invalid", "input-invalid", "overloaded", "draining", "not-authorized"),
                ("data-class-exceeded", "ticket-replayed", *_TICKET_PROBLEMS),
            ),
        },
    }


def _events() -> Object:
    return {
        "operationId": "readEvents",
        "summary": "acknowledge up to `after` and take the next page; never creates",
        "parameters": [
            _query("execution", {"type": "string"}, required=True),
            _query("epoch", {"type": "integer"}, required=True),
            _query("after", {"type": "integer", "minimum": 0}, required=True),
            _header(TICKET_HEADER, "the step's ticket, fresh or as before", required=True),
            _header("Prefer", "wait=SECONDS: how long the page may take, at most 20"),
            _acknowledge(),
        ],
        "responses": {
            "200": _page(),
            **_problems(("execution-unknown", "stale-reader"), _TICKET_PROBLEMS),
        },
    }


def _read_step() -> Object:
    return {
        "operationId": "readStep",
        "summary": "the state of a step",
        "responses": {
            "200": _content("the execution", "ExecutionStatus"),
            **_problems(("execution-unknown",)),
        },
    }


def _delete() -> Object:
    return {
        "operationId": "deleteStep",
        "summary": "cancel a running execution; acknowledge and forget an ended one",
        "parameters": [
            _query("attempt", {"type": "integer", "minimum": 1}, required=True),
            _acknowledge(),
        ],
        "responses": {
            "200": _content("it has ended and is forgotten", "ExecutionStatus"),
            "202": _content("it is being ended", "ExecutionStatus"),
            **_problems(("execution-unknown", "stale-attempt")),
        },
    }


def _command() -> Object:
    return {
        "operationId": "command",
        "summary": "drain: take no new steps",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _ref("Command")}}},
        },
        "responses": {
            "200": _content("the state after the command", "WorkerStatus"),
            **_problems(("malformed", "not-authorized")),
        },
    }


def _metrics() -> Object:
    text: Object = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "metrics",
        "summary": "metrics in the Prometheus text format",
        "responses": {"200": {"description": "metrics", "content": text}},
    }


def _json(summary: str, schema: str) -> Object:
    return {"summary": summary, "responses": {"200": _content(summary, schema)}}


def _content(description: str, schema: str) -> Object:
    body: Object = {"application/json": {"schema": {"$ref": _ref(schema)}}}
    return {"description": description, "content": body}


def _page() -> Object:
    event: Object = {"$ref": _ref("Event")}
    return {
        "description": "events: a line of JSON each, then as many bytes of body as the line says",
        "headers": {EXECUTION_HEADER: {"schema": {"type": "string"}, "required": True}},
        "content": {PAGE_MEDIA_TYPE: {"schema": event}},
    }


def _problems(*groups: tuple[str, ...]) -> Object:
    """Responses by status; rows of the catalogue that share a status share a response."""
    by_status: dict[str, list[str]] = {}
    for slug in (slug for group in groups for slug in group):
        row = CATALOGUE[slug]
        by_status.setdefault(str(row.status), []).append(f"`{slug}`: {row.title}")
    return {
        status: {
            "description": "; ".join(lines),
            "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": _ref("Problem")}}},
        }
        for status, lines in sorted(by_status.items())
    }


def _acknowledge() -> Object:
    return _header(ACKNOWLEDGE_HEADER, "KEY:ATTEMPT,…: answers of other steps that were recorded")


def _path_parameter(name: str, description: str) -> Object:
    schema: Object = {"type": "string"}
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
    }


def _query(name: str, schema: Object, *, required: bool) -> Object:
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _header(name: str, description: str, *, required: bool = False) -> Object:
    schema: Object = {"type": "string"}
    found: Object = {"name": name, "in": "header", "description": description, "schema": schema}
    return {**found, "required": True} if required else found


def _ref(name: str) -> str:
    return f"#/components/schemas/{name}"
