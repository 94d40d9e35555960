"""The step routes: bare ASGI in front of the shell, because this is the hot path.

`PUT` creates and answers with the first page, `GET …/events` goes on, `DELETE` ends.
"""

import asyncio
import itertools
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import NoReturn

import msgspec
import structlog

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.acknowledged import acknowledged_in
from hivemesh_sdk.contracts.names import (
    ACKNOWLEDGE_HEADER,
    DEADLINE_HEADER,
    EXECUTION_HEADER,
    PAGE_MEDIA_TYPE,
    REQUEST_ID_HEADER,
)
from hivemesh_sdk.contracts.pages import FramingError, decode_request
from hivemesh_sdk.contracts.problems import Problem, problem
from hivemesh_sdk.contracts.steps import MAX_WAIT_S, StepRequest
from hivemesh_sdk.errors import FatalError, HivemeshError, InvalidError, NotFoundError
from hivemesh_sdk.transport.direct import Asked, Reply
from hivemesh_sdk.worker.access import Access, Right
from hivemesh_sdk.worker.asgi import (
    Lines,
    Receive,
    Scope,
    Send,
    answer,
    answer_problem,
    problem_body,
    read_body,
)
from hivemesh_sdk.worker.execution import Execution
from hivemesh_sdk.worker.inline_step import Bodies
from hivemesh_sdk.worker.steps import StepTable

PREFIX = "/v1/steps/"
MAX_REQUEST_ID = 128
OTHERS_WAIT_S = 0.1  # for an execution behind whose answer others wait; it is then read on
ANSWER_S = 0.05  # of the caller's deadline, kept for the way back

_KEY = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_STEP = re.compile(f"{PREFIX}({_KEY.pattern})")
_WAIT = re.compile(rb"(?:^|[,; ])wait=(\d{1,4}(?:\.\d+)?)")
_METHODS = {"": "GET, PUT, DELETE", "events": "GET"}
_PAGE_TYPE = b"content-type: " + PAGE_MEDIA_TYPE.encode()
_JSON_TYPE = b"content-type: application/json"
_EXECUTION = EXECUTION_HEADER.encode() + b": "
_DEADLINE = DEADLINE_HEADER.encode()
_ACKNOWLEDGE = ACKNOWLEDGE_HEADER.encode()
_REQUEST_ID = REQUEST_ID_HEADER.encode()
_ID_LINE = _REQUEST_ID + b": %b"
_OWN_ID_LINE = _REQUEST_ID + b": w-%d"

_log = structlog.get_logger("hivemesh.routes")
_encode = msgspec.json.Encoder().encode

RequestHeaders = Mapping[bytes, bytes]
Wanted = tuple[str, StepRequest, Bodies, Right]  # what `StepTable.put` takes


class StepRoutes:
    """Translates between HTTP and the table of steps."""

    def __init__(self, table: StepTable, access: Access, clock: Clock) -> None:
        self._table = table
        self._access = access
        self._clock = clock
        self._waiting: dict[_Reader | _Sleeper, float] = {}
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request below `/v1/steps/`."""
        headers = dict(scope["headers"])
        given = self._given(headers)
        try:
            self._settle(scope, headers)
            await self._answer(scope, headers, receive, send, given)
        except (HivemeshError, FramingError) as error:
            await answer_problem(send, _document(error, scope, headers, given), given)

    def takes(self, scope: Scope) -> bool:
        """Whether `direct` answers this request: a step is created."""
        path: str = scope["path"]
        return scope["method"] == "PUT" and path.startswith(PREFIX)

    def direct(
        self, scope: Scope, headers: RequestHeaders, body: bytes, reply: Reply
    ) -> Asked | None:
        """Read a `PUT`, to answer it by plain calls: this is what is asked most."""
        given = self._given(headers)
        try:
            if _ACKNOWLEDGE in headers:
                self._settle(scope, headers)
            address = _STEP.fullmatch(scope["path"])
            if address is None:
                _refuse_address(scope, given)
            wanted = self._wanted(address[1], scope, headers, body)
        except (HivemeshError, FramingError) as error:
            status, document = problem_body(_document(error, scope, headers, given), given)
            reply.answer(status, given, document)
            return None
        return partial(self._put, wanted, scope, headers, given, reply)

    def _put(
        self, wanted: Wanted, scope: Scope, headers: RequestHeaders, given: Lines, reply: Reply
    ) -> None:
        """Create the step that a direct request asks for, and answer when there is something to say."""
        try:
            execution = self._table.put(*wanted)
        except HivemeshError as error:
            status, document = problem_body(_document(error, scope, headers, given), given)
            reply.answer(status, given, document)
            return
        seconds = 0.0 if execution.has_news(0) else _patience(headers)
        if reply.others_wait:
            seconds = min(seconds, OTHERS_WAIT_S)
        if seconds > 0:
            reader = _Reader(self, execution, headers, given, reply)
            execution.wake(reader)
            self._waiting[reader] = self._clock.monotonic() + seconds
            reply.later()
        else:
            status, chunks = self._first_page(execution, 0, headers, given)
            reply.answer(status, given, b"".join(chunks))

    def tick(self) -> None:
        """Let those answer who have waited long enough."""
        now = self._clock.monotonic()
        for waiter in [one for one, until in self._waiting.items() if now >= until]:
            waiter.execution.forget(waiter)
            waiter.wake()

    @property
    def waiting(self) -> bool:
        """Whether anybody waits for an event."""
        return bool(self._waiting)

    async def _answer(  # the shape of an ASGI application, and what was read already
        self, scope: Scope, headers: RequestHeaders, receive: Receive, send: Send, given: Lines
    ) -> None:
        key, _, rest = scope["path"][len(PREFIX) :].partition("/")
        if not _KEY.fullmatch(key) or rest not in _METHODS:
            raise NotFoundError(scope["path"])
        match (scope["method"], rest):
            case ("PUT", ""):
                self._access.require_holder(scope, headers)  # before the body is read
                wanted = self._wanted(key, scope, headers, await read_body(receive))
                execution = self._table.put(*wanted)
                await self._page(execution, 0, headers, send, given)
            case ("GET", "events"):
                await self._events(key, scope, headers, send, given)
            case ("GET", ""):
                self._access.require_reader(scope)
                await self._status(self._table.look(key), 200, send, given)
            case ("DELETE", ""):
                await self._delete(key, scope, send, given)
            case _:
                _refuse_method(given, rest)

    def _given(self, headers: RequestHeaders) -> Lines:
        """What every answer says."""
        request_id = headers.get(_REQUEST_ID)
        if request_id:
            return [_ID_LINE % request_id[:MAX_REQUEST_ID]]
        return [_OWN_ID_LINE % next(self._numbers)]

    def _settle(self, scope: Scope, headers: RequestHeaders) -> None:
        """Drop the answers that the peer has recorded, whatever becomes of the request itself."""
        named = headers.get(_ACKNOWLEDGE)
        if named is None:
            return
        self._access.require_member(scope)
        for key, attempt in acknowledged_in(named):
            execution = self._table.get(key)
            if execution is not None and self._access.is_owner(scope, execution):
                self._table.settle(execution, attempt)

    def _wanted(self, key: str, scope: Scope, headers: RequestHeaders, body: bytes) -> Wanted:
        caller = self._access.require_holder(scope, headers)  # before anything of the body is read
        request, bodies = decode_request(body)
        right = self._access.begin(caller, headers, key, request, self._table.get(key))
        return key, request, bodies, right

    async def _events(
        self, key: str, scope: Scope, headers: RequestHeaders, send: Send, given: Lines
    ) -> None:
        self._access.require_holder(scope, headers)
        query = _query(scope)
        after = _number(query, "after")
        self._access.go_on(scope, headers, self._table.look(key))  # before anything changes
        execution = self._table.find(key, query.get("execution", ""), _number(query, "epoch"))
        if after > execution.last_no:
            message = f"event {after} has not happened; the last one is {execution.last_no}"
            raise InvalidError(message)
        self._table.acknowledge(execution, after)
        await self._page(execution, after, headers, send, given)

    async def _delete(self, key: str, scope: Scope, send: Send, given: Lines) -> None:
        self._access.require_member(scope)
        attempt = _number(_query(scope), "attempt")
        whole = self._table.with_member(key, attempt)
        if whole is not None and self._access.is_owner(scope, whole):
            self._table.drop_member(whole, key)
            await self._status(whole, 202, send, given)
            return
        present = self._table.look(key)
        execution = None
        if self._access.is_owner(scope, present):
            execution = self._table.delete(key, attempt)
        if execution is None:  # whose it is, is nobody else's business
            message = f"key {key!r}"
            raise NotFoundError(message, slug="execution-unknown")
        await self._status(execution, 200 if execution.released else 202, send, given)

    async def _page(
        self,
        execution: Execution,
        after: int,
        headers: RequestHeaders,
        send: Send,
        given: Lines,
    ) -> None:
        if not execution.has_news(after):
            seconds = _patience(headers)
            if seconds > 0:
                await self._wait(execution, seconds)
        status, chunks = self._first_page(execution, after, headers, given)
        await answer(send, status, given, chunks)

    def _first_page(
        self, execution: Execution, after: int, headers: RequestHeaders, given: Lines
    ) -> tuple[int, Sequence[bytes]]:
        """Status and body: the events after a number, or why nothing had begun; adds headers."""
        if execution.refused is not None:
            self._table.forget(execution)
            status, document = problem_body(_traced(execution.refused, headers), given)
            return status, (document,)
        given += (_PAGE_TYPE, _EXECUTION + execution.id.encode())
        return 200, execution.page(after)

    def finish(self, reader: "_Reader") -> None:
        """Answer a direct request that has waited."""
        del self._waiting[reader]
        try:
            status, chunks = self._first_page(reader.execution, 0, reader.headers, reader.given)
            reader.reply.answer(status, reader.given, b"".join(chunks))
        except Exception as error:  # noqa: BLE001 - the boundary of a request
            reader.reply.fail_directly(error)

    async def _wait(self, execution: Execution, seconds: float) -> None:
        sleeper = _Sleeper(execution)
        execution.wake(sleeper)
        self._waiting[sleeper] = self._clock.monotonic() + seconds
        try:
            await sleeper.woken
        finally:
            del self._waiting[sleeper]
            execution.forget(sleeper)

    async def _status(self, execution: Execution, status: int, send: Send, given: Lines) -> None:
        given += (_JSON_TYPE, _EXECUTION + execution.id.encode())
        await answer(send, status, given, (_encode(execution.status()),))


class _Reader(msgspec.Struct, eq=False):
    """A direct request that waits for the first event."""

    routes: StepRoutes
    execution: Execution
    headers: RequestHeaders
    given: Lines
    reply: Reply

    def wake(self) -> None:
        """Answer now."""
        self.routes.finish(self)


class _Sleeper:
    """A request with a task that waits for an event."""

    __slots__ = ("execution", "woken")

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """Let the task go on."""
        if not self.woken.done():
            self.woken.set_result(None)


def _patience(headers: RequestHeaders) -> float:
    """Seconds to wait: what is preferred, at most 20, and less than the caller's deadline."""
    return _seconds(headers.get(b"prefer"), headers.get(_DEADLINE))


@lru_cache(maxsize=64)
def _seconds(preferred: bytes | None, deadline: bytes | None) -> float:
    seconds = MAX_WAIT_S
    if preferred is not None:
        match = _WAIT.search(preferred)
        if match is not None:
            seconds = min(seconds, float(match[1]))
    if deadline is not None and deadline.isdigit() and len(deadline) <= 18:
        seconds = min(seconds, int(deadline) / 1000 - ANSWER_S)
    return seconds


def _document(
    error: HivemeshError | FramingError, scope: Scope, headers: RequestHeaders, given: Lines
) -> Problem:
    request_id = _text(given[0].partition(b": ")[2])
    if isinstance(error, HivemeshError):
        document = error.problem(instance=scope["path"], request_id=request_id)
    else:
        document = problem("malformed", str(error), request_id=request_id)
    return _traced(document, headers)


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace")


def _query(scope: Scope) -> dict[str, str]:
    pairs = scope["query_string"].decode("ascii", "replace").split("&")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        message = f"{name}={text!r} is no number"
        raise InvalidError(message)
    return int(text)


def _refuse_address(scope: Scope, given: Lines) -> NoReturn:
    key, _, rest = scope["path"][len(PREFIX) :].partition("/")
    if not (rest in _METHODS and _KEY.fullmatch(key)):
        raise NotFoundError(scope["path"])
    _refuse_method(given, rest)


def _refuse_method(given: Lines, rest: str) -> NoReturn:
    given.append(b"allow: " + _METHODS[rest].encode())
    message = f"this address takes {_METHODS[rest]}"
    raise FatalError(message, slug="method-not-allowed")


def _traced(document: Problem, headers: RequestHeaders) -> Problem:
    parts = headers.get(b"traceparent", b"").split(b"-")
    if len(parts) != 4:
        return document
    return msgspec.structs.replace(document, trace_id=_text(parts[1]))
