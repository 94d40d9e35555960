"""Holds each exchange with a platform in this process against the published description."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema_rs
from hivemesh_sdk.contracts.names import NDJSON_MEDIA_TYPE, PROBLEM_MEDIA_TYPE
from hivemesh_sdk.contracts.problems import CATALOGUE
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "platform.openapi.json"
READ = {"application/json", PROBLEM_MEDIA_TYPE, NDJSON_MEDIA_TYPE}
PROBLEM = "/components/schemas/Problem"
LINES = 50  # of a body of lines, that are looked at

broken: list[str] = []  # what the description does not say, in this process


@cache
def document():
    return json.loads(PAGE.read_text())


class Held:
    """Stands in an application, and notes what differs from the description."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked, told = _Body(), _Body()

        async def received() -> Message:
            message = await receive()
            asked.add(message)
            return message

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.start(message["headers"], message["status"])
            told.add(message)
            await send(message)

        if scope["type"] == "http":
            asked.start(scope["headers"])
        await self._app(scope, received, sent)
        if scope["type"] == "http" and told.is_whole and scope["method"] != "HEAD":
            place = getattr(scope.get("route"), "path_format", "")
            name = f"{scope['method']} {place or scope['path']}"
            try:
                found = list(_found(scope["method"], place, asked, told))
            except Exception as error:  # noqa: BLE001 - what stands in front hides it
                found = [repr(error)]
            broken.extend(f"{name}: {one}" for one in found)


class _Body:
    """A body, kept where it is JSON."""

    def __init__(self) -> None:
        self.media_type, self.status, self.is_whole = "", 0, False
        self._blocks: list[bytes] = []

    def start(self, headers: list[tuple[bytes, bytes]], status: int = 0) -> None:
        found = dict(headers).get(b"content-type", b"").decode("latin-1")
        self.media_type, self.status = found.partition(";")[0].strip().lower(), status

    def add(self, message: Message) -> None:
        if message["type"] in {"http.request", "http.response.body"}:
            if self.media_type in READ or not self.media_type:
                self._blocks.append(message.get("body", b""))
            self.is_whole = not message.get("more_body", False)

    @property
    def data(self) -> bytes:
        return b"".join(self._blocks)

    def values(self) -> list[object]:
        if self.media_type == NDJSON_MEDIA_TYPE:
            return [json.loads(line) for line in self.data.splitlines()[:LINES]]
        return [json.loads(self.data)] if self.media_type in READ else []


def _found(method: str, place: str, asked: _Body, told: _Body) -> Iterator[str]:
    operation = document()["paths"].get(place, {}).get(method.lower())
    if operation is None:
        if place or told.status not in {404, 405}:
            yield "no such operation"
        return
    if told.status >= 400:
        yield from _refusal(operation, told)
        return
    pointer = _pointer("paths", place, method.lower())
    if str(told.status) not in operation["responses"]:
        yield f"status {told.status} is not described"
        return
    content = operation["responses"][str(told.status)].get("content", {})
    yield from _mismatches(f"{pointer}/responses/{told.status}", content, told)
    reads = operation.get("requestBody", {}).get("content", {})
    if asked.media_type in reads and asked.media_type in READ and asked.data:
        first = asked.values()[:1]  # behind the first line come lines of input
        yield from _errors(_schema(f"{pointer}/requestBody", asked.media_type), first, "read")


def _refusal(operation: dict[str, Any], told: _Body) -> Iterator[str]:
    """What differs of a refusal: each operation lists all that it may answer with."""
    if told.media_type != PROBLEM_MEDIA_TYPE:
        yield f"a refusal is {told.media_type!r}"
        return
    found = told.values()[0]
    yield from _errors(PROBLEM, [found], "refused")
    slug = found["type"].removeprefix("urn:hivemesh:problem:")
    row = CATALOGUE.get(slug)
    listed = operation["responses"].get(str(told.status), {}).get("$ref", "").rpartition("/")[2]
    if row is None or (row.code, row.status) != (found["code"], told.status):
        yield f"status {told.status} with {found['type']} {found['code']}"
    elif slug not in listed.split("."):
        yield f"{slug} ({told.status}) is not listed; name it in the route's @declares"


def _mismatches(pointer: str, content: dict[str, object], told: _Body) -> Iterator[str]:
    if not content:
        if told.data:
            yield f"status {told.status} has a body"
    elif told.media_type in content:
        if told.media_type in READ:
            yield from _errors(_schema(pointer, told.media_type), told.values(), "answered")
    elif "*/*" not in content:
        yield f"status {told.status} is {told.media_type!r}"


def _errors(pointer: str, values: list[object], what: str) -> Iterator[str]:
    for value in values:
        for error in _validator(pointer).iter_errors(value):
            where = "/".join(str(part) for part in error.instance_path)
            yield f"{what} /{where}: {error.message[:300]}"


@cache
def _validator(pointer: str):
    reference = {"$ref": f"urn:hivemesh:api#{quote(pointer)}"}
    return jsonschema_rs.Draft202012Validator(reference, registry=_registry())


@cache
def _registry():
    return jsonschema_rs.Registry([("urn:hivemesh:api", _closed(document()))])


def _closed(value):
    """Schemas that take no members but their own: what is sent is described."""
    if isinstance(value, list):
        return [_closed(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _closed(below) for key, below in value.items()}
    if value.get("type") == "object" and "properties" in value:
        found.setdefault("additionalProperties", False)
    return found


def _schema(pointer: str, media_type: str) -> str:
    return f"{pointer}/{_pointer('content', media_type, 'schema').removeprefix('/')}"


def _pointer(*parts: str) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)
