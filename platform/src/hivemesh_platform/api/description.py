"""The published description of the API: OpenAPI 3.1, made from routes, types and permissions.

Nothing serves it: `docs/reference/platform.openapi.json` is generated from it, and the tests hold
each answer against that file.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from hivemesh_sdk.contracts.names import PROBLEM_MEDIA_TYPE
from hivemesh_sdk.contracts.printable import schema_components
from hivemesh_sdk.contracts.problems import CATALOGUE, Problem
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from hivemesh_platform.api.declared import ANY, JSON, Content, Declared, declared_by
from hivemesh_platform.api.permissions import ROUTES, Needs

Object = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_RESPONSES = "#/components/responses/"
_OTHER = "other"
_REFERENCE = re.compile(_SCHEMAS + "([^/]+)")

# Refusals that follow from what a route is, not from what it does.
_OF_ALL = ("internal", "database-unreachable")
_OF_KNOWN = ("no-peer-identity", "token-missing", "token-refused", "host-not-allowed")
_OF_PROCESSES = ("no-peer-identity", "not-found")  # to people there is no such route
_OF_TOKENS = ("token-rate-limited",)
_OF_BODIES = ("malformed", "media-type-unsupported", "too-large", "invalid")
_OF_CHANGES = ("audit-unavailable", "storage-full")


def describe(newcomers: FastAPI, members: FastAPI) -> Object:
    """The document of what the enrolment listener serves, and of what the two others do."""
    known, strangers = _routes(members.routes), _routes(newcomers.routes)
    found = get_openapi(title="Hivemesh platform", version="1", routes=[*known, *strangers])
    types = _Types()
    for route in (*known, *strangers):
        for method in sorted(route.methods or ()):
            needs = ROUTES[f"{method} {route.path}"] if route in known else None
            operation = found["paths"][route.path_format][method.lower()]
            _complete(operation, route, needs, types)
    for route in strangers:
        found["paths"][route.path_format]["servers"] = [_server("enrolment", 8444)]
    schemas = _united(found["components"]["schemas"], types.components())
    schemas["JsonValue"] = {"description": "any JSON value"}
    return {
        "openapi": found["openapi"],
        "info": {**found["info"], **_INFO},
        "servers": [_server("mesh", 8443), _server("people", 8445)],
        "paths": _untitled(found["paths"]),
        "components": {
            "schemas": _untitled(_reachable(schemas, {"Problem", *_named(found["paths"])})),
            "responses": _shared(found["paths"]),
            "securitySchemes": _SECURITY,
        },
    }


_INFO: Object = {
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    "description": "What programs and workers ask of the platform. The mesh listener knows its "
    "callers by client certificates, the people listener by API tokens; both serve the same "
    "routes, those for processes on the mesh alone. The names beside a security scheme are the "
    "permissions that the caller needs, see permissions.md. Lists are pages: ask again with "
    "`after` set to `next` until it is null. Answers may have further members in later versions.",
}
_SECURITY: Object = {
    "mesh": {
        "type": "mutualTLS",
        "description": "a certificate of this installation: a worker's, a replica's or a person's",
    },
    "token": {"type": "http", "scheme": "bearer", "description": "an API token, `hm1.…`"},
}


class _Types:
    """The types that routes have declared, beside those that FastAPI knows."""

    def __init__(self) -> None:
        self._messages: dict[type, None] = {Problem: None}
        self._models: dict[type[BaseModel], None] = {}

    def schema(self, content: Content, *, is_read: bool) -> Object:
        """The schema of a body; that of a type is a reference."""
        if isinstance(content.of, Mapping):
            return dict(content.of)
        if not issubclass(content.of, BaseModel):
            self._messages[content.of] = None
        elif is_read:  # FastAPI knows the models of answers
            self._models[content.of] = None
        return {"$ref": _SCHEMAS + content.of.__name__}

    def components(self) -> Object:
        """The schemas of all that was referred to."""
        _, messages = schema_components(list(self._messages), _SCHEMAS + "{name}")
        template = _SCHEMAS + "{model}"
        _, models = models_json_schema(
            [(one, "validation") for one in self._models], ref_template=template
        )
        return _united(models.get("$defs", {}), messages)


def _routes(routes: Iterable[object]) -> list[APIRoute]:
    """All routes; routers that were included may show as one entry with routes of its own."""
    found: list[APIRoute] = []
    for one in routes:
        if isinstance(one, APIRoute):
            found.append(one)
        else:
            found += _routes(getattr(getattr(one, "original_router", one), "routes", ()))
    return found


def _complete(operation: Object, route: APIRoute, needs: Needs | None, types: _Types) -> None:
    """Say of an operation what FastAPI does not know."""
    told = declared_by(route.endpoint)
    operation["operationId"] = _camel(route.name)
    operation["summary"] = operation.pop("description").rstrip(".")
    operation["description"] = "Needs no identity." if needs is None else f"Needs {needs.text()}."
    operation["tags"] = [route.path.removeprefix("/v1/").strip("/").partition("/")[0]]
    operation["security"] = [] if needs is None else _security(needs)
    headers = [
        {
            "name": one.name,
            "in": "header",
            "required": one.required,
            "description": one.description,
            "schema": {"type": "string"},
        }
        for one in told.headers
    ]
    parameters = [*operation.get("parameters", []), *headers]
    if parameters:
        operation["parameters"] = parameters
    if told.reads is not None:
        body = _body(told.reads, types, is_read=True)
        operation["requestBody"] = {**body, "required": True}
    problems = _problems(operation, route, told, needs)
    operation["responses"] = {**_answers(operation, route, told, types), **problems}


def _security(needs: Needs) -> list[Object]:
    if needs.everybody:
        return [{"mesh": []}, {"token": []}]
    found: list[Object] = [
        {scheme: list(actions)} for actions in needs.alternatives for scheme in _SECURITY
    ]
    processes = needs.processes or ("artifacts:transfer" if needs.workers else "")
    return [*found, {"mesh": [processes]}] if processes else found


def _answers(operation: Object, route: APIRoute, told: Declared, types: _Types) -> Object:
    status = str(route.status_code or 200)
    known = operation["responses"][status]
    if not told.answers:
        return {status: {**known, "description": operation["summary"]}}
    return {
        str(code or status): {"description": "nothing new"}
        if one is None
        else {"description": operation["summary"], **_body(one, types, is_read=False)}
        for code, one in told.answers.items()
    }


def _body(content: Content, types: _Types, *, is_read: bool) -> Object:
    schema = types.schema(content, is_read=is_read)
    kinds = [content.media_type]
    if kinds == [ANY]:
        kinds.insert(0, "application/octet-stream")  # that generators of clients know
    found: Object = {"content": {kind: {"schema": schema} for kind in kinds}}
    return {"description": content.description, **found} if content.description else found


def _problems(operation: Object, route: APIRoute, told: Declared, needs: Needs | None) -> Object:
    """Responses by status; problems that share a status share a response."""
    slugs = [*_OF_ALL, *told.problems]
    places = {one["in"] for one in operation.get("parameters", [])}
    if needs is not None:
        slugs += _OF_PROCESSES if needs.processes else (*_OF_KNOWN, *_OF_TOKENS)
        slugs += () if needs.everybody else ("not-authorized",)
    if "GET" not in (route.methods or ()):
        slugs += _OF_CHANGES
    if "path" in places:
        slugs.append("not-found")
    if places & {"path", "query"}:
        slugs.append("invalid")
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]
        slugs += _OF_BODIES if JSON in content or told.reads is None else ("too-large",)
    by_status: dict[str, set[str]] = {}
    for slug in slugs:
        by_status.setdefault(str(CATALOGUE[slug].status), set()).add(slug)
    found = {status: ".".join(sorted(some)) for status, some in sorted(by_status.items())}
    return {status: {"$ref": _RESPONSES + name} for status, name in found.items()} | {
        "default": {"$ref": _RESPONSES + _OTHER}
    }


def _shared(paths: Object) -> Object:
    """The refusals that operations refer to; those that share a status are one response."""
    names = {
        answer["$ref"].removeprefix(_RESPONSES)
        for operations in paths.values()
        for operation in operations.values()
        if isinstance(operation, dict)
        for answer in operation["responses"].values()
        if "$ref" in answer
    }
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": _SCHEMAS + "Problem"}}}
    return {name: {"description": _meaning(name), "content": content} for name in sorted(names)}


def _meaning(name: str) -> str:
    if name == _OTHER:
        return "any other refusal, see errors.md"
    return "; ".join(f"`{slug}`: {CATALOGUE[slug].title}" for slug in name.split("."))


def _server(listener: str, port: int) -> Object:
    return {
        "url": "https://{host}:{port}",
        "description": f"the {listener} listener",
        "variables": {"host": {"default": "localhost"}, "port": {"default": str(port)}},
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _united(ours: Object, others: Object) -> Object:
    """All schemas; what both have under a name is one type, told by two libraries."""
    for name in ours.keys() & others.keys():
        one, other = ours[name], others[name]
        values = set(one.get("enum", ()))
        if one != other and (not values or values != set(other.get("enum", ()))):
            message = f"two types of the API are called {name}"
            raise ValueError(message)
    return {**others, **ours}


def _reachable(schemas: Object, waiting: set[str]) -> Object:
    """The schemas that are referred to, directly or by others."""
    found: Object = {}
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = schemas[name]
            waiting |= _named(schemas[name])
    return found


def _untitled(value: Any) -> Any:
    """Without the titles that Pydantic makes of the names."""
    if isinstance(value, dict):
        return {
            key: _untitled(below)
            for key, below in value.items()
            if key != "title" or not isinstance(below, str)
        }
    return [_untitled(one) for one in value] if isinstance(value, list) else value


def _named(value: object) -> set[str]:
    if isinstance(value, dict):
        below = set().union(*map(_named, value.values()))
        target = value.get("$ref")
        match = _REFERENCE.match(target) if isinstance(target, str) else None
        return below | ({match[1]} if match else set())
    return set().union(*map(_named, value)) if isinstance(value, list) else set()
