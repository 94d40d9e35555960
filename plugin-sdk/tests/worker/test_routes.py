"""The HTTP surface of steps: forms, refusals, waiting, and who may do what."""

import asyncio

import pytest
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.testing.fake_policies import EverythingAllowed
from hivemesh_sdk.testing.tickets import ThrowawayTickets
from hivemesh_sdk.worker.access import Access, Own
from hivemesh_sdk.worker.metrics import StepMetrics
from hivemesh_sdk.worker.routes import StepRoutes
from hivemesh_sdk.worker.steps import Slots, StepTable
from worker_harness import (
    HOLDER,
    KEYS,
    NEIGHBOUR,
    OPERATOR,
    PLATFORM,
    TICKETS,
    ask,
    ask_directly,
    request_body,
    ticket,
    until,
)

BODY = request_body("a.call@1", "call", [b"1"])


class Echo:
    """A runner that answers a call with its input and leaves all else running."""

    def __init__(self):
        self.executions = []

    def start(self, execution, request, bodies):
        self.executions.append(execution)
        if execution.kind == "call":
            execution.succeed(bodies[0] if bodies else None, "", [])
            execution.release()
        return self

    def cancel(self):
        pass

    def kill(self):
        pass

    def credit(self, count):
        pass

    def cpu_s(self):
        return 0.0


class Surface:
    """The routes over a fake runner."""

    def __init__(self, create=ask):
        self.create = create
        self.clock = ManualClock()
        self.runner = Echo()
        slots = {name: Slots(4, self.runner, StepMetrics()) for name in ("a.call@1", "a.read@1")}
        self.table = StepTable(slots, self.clock)
        own = Own(
            worker="sample",
            identity=lambda: str(HOLDER),
            keys=lambda: KEYS,
            clearances={},
            policies=EverythingAllowed(),
        )
        self.routes = StepRoutes(self.table, Access(own, self.clock), self.clock)
        self.tickets = ThrowawayTickets(
            TICKETS.signing, PLATFORM.uri, now=lambda: self.clock.now().timestamp()
        )

    def ticket(self, key="r.s.1", capability="a.call@1"):
        return ticket(key, capability, tickets=self.tickets)

    async def put(self, key="r.s.1", *, body=None, capability="a.call@1", **options):
        body = request_body("a.call@1", "call", [b"1"]) if body is None else body
        options["headers"] = {**self.ticket(key, capability), **options.get("headers", {})}
        return await self.create(self.routes, "PUT", f"/v1/steps/{key}", body=body, **options)

    async def read(self, key="r.s.1", **options):
        headers = options.pop("headers", {"prefer": "wait=0"})
        body = request_body("a.read@1", "source", **options)
        return await self.put(key, body=body, capability="a.read@1", headers=headers)

    async def get(self, path):
        return await ask(self.routes, "GET", path, headers=self.ticket(capability="a.read@1"))


@pytest.fixture(params=[ask, ask_directly])
def surface(request):
    return Surface(create=request.param)


async def test_a_unary_call_is_one_exchange(surface):
    answer = await surface.put()
    assert answer.result == 1
    assert answer.headers["content-type"] == "application/vnd.hivemesh.events"
    assert answer.execution


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_only_the_platform_may_run_steps(surface, method):
    await surface.read()
    for who in (OPERATOR, NEIGHBOUR):
        headers = surface.ticket()
        answer = await ask(
            surface.routes, method, "/v1/steps/r.s.1", body=BODY, headers=headers, who=who
        )
        neighbour = {  # it neither has created the step, nor is the ticket signed for others
            "PUT": (401, "signature-invalid"),
            "DELETE": (404, "execution-unknown"),
        }
        expected = (403, "not-authorized") if who is OPERATOR else neighbour[method]
        assert (answer.status, answer.slug) == expected


async def test_events_are_for_the_platform_and_status_for_people_too(surface):
    await surface.read()
    events = await ask(surface.routes, "GET", "/v1/steps/r.s.1/events", who=OPERATOR)
    assert events.status == 403
    assert (await ask(surface.routes, "GET", "/v1/steps/r.s.1", who=OPERATOR)).status == 200
    assert (await ask(surface.routes, "GET", "/v1/steps/r.s.1", who=NEIGHBOUR)).status == 403


async def test_no_identity_is_refused(surface):
    answer = await surface.put(who=None)
    assert (answer.status, answer.slug) == (401, "no-peer-identity")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\n",
        b"not json\n",
        b"[]\n",
        b'{"kind":"\xff"}\n',
        b'{"parameters":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}\n",
        request_body("a.call@1", "call", [b"123"])[:-1],
    ],
)
async def test_a_malformed_body_is_a_problem(surface, body):
    answer = await surface.put(body=body)
    assert (answer.status, answer.slug) == (400, "malformed")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_unknown_fields_are_ignored(surface):
    body = request_body("a.call@1", "call", [b"1"])
    assert (await surface.put(body=b'{"later":1,' + body[1:])).result == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/steps/r.s.1", 405),
        ("PUT", "/v1/steps/r.s.1/events", 405),
        ("GET", "/v1/steps/r.s.1/other", 404),
        ("PUT", "/v1/steps/", 404),
        ("PUT", "/v1/steps/a b", 404),
        ("GET", "/v1/steps/r.s.9", 404),
        ("DELETE", "/v1/steps/r.s.9?attempt=1", 404),
        ("GET", "/v1/steps/r.s.9/events?execution=x&epoch=1&after=0", 404),
    ],
)
async def test_what_is_not_there(surface, method, path, status):
    headers = surface.ticket("r.s.9")
    answer = await ask(surface.routes, method, path, headers=headers)
    assert answer.status == status
    assert answer.problem.status == status
    assert status != 405 or answer.headers["allow"]


async def test_the_request_id_comes_back_and_one_is_made(surface):
    given = await surface.put(headers={"x-request-id": "abc"})
    assert given.headers["x-request-id"] == "abc"
    assert (await surface.put()).headers["x-request-id"]


async def test_a_strange_request_id_does_no_harm(surface):
    answer = await surface.put(body=b"", headers={"x-request-id": "é" * 1000})
    assert answer.status == 400
    assert len(answer.headers["x-request-id"]) <= 128


async def test_a_problem_names_request_and_trace(surface):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = await surface.put(body=b"", headers={"x-request-id": "abc", "traceparent": trace})
    assert answer.problem.request_id == "abc"
    assert answer.problem.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_a_long_poll_answers_at_the_first_event(surface):
    first = await surface.read()
    assert first.frames == []
    path = f"/v1/steps/r.s.1/events?execution={first.execution}&epoch=1&after=0"
    waiting = asyncio.create_task(surface.get(path))
    await until(lambda: surface.routes.waiting)
    surface.runner.executions[0].records(
        b"{}\n", count=1, sha256="", checkpoint=b"1", cost=3, more=False
    )
    assert (await waiting).kinds == ["records"]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 20.0),
        ({"prefer": "wait=3"}, 3.0),
        ({"prefer": "respond-async, wait=60"}, 20.0),
        ({"hivemesh-deadline-ms": "2000"}, 1.95),
    ],
)
async def test_a_long_poll_ends_without_an_event(surface, headers, seconds):
    waiting = asyncio.create_task(surface.read(headers=headers))
    await until(lambda: surface.routes.waiting)
    surface.clock.advance(seconds - 0.01)
    surface.routes.tick()
    await asyncio.sleep(0)
    assert not waiting.done()
    surface.clock.advance(0.02)
    surface.routes.tick()
    assert (await waiting).frames == []


async def test_what_was_not_sent_cannot_be_acknowledged(surface):
    first = await surface.read()
    path = f"/v1/steps/r.s.1/events?execution={first.execution}&epoch=1&after=9"
    assert (await surface.get(path)).status == 422


@pytest.mark.parametrize("value", ["-1", "x", "1e3", "9" * 30, "%31"])
async def test_numbers_in_the_query_are_checked(surface, value):
    first = await surface.read()
    path = f"/v1/steps/r.s.1/events?execution={first.execution}&epoch=1&after={value}"
    assert (await surface.get(path)).status == 422


async def test_a_refused_slot_says_when_to_come_back(surface):
    for number in range(4):
        await surface.read(f"r.s.{number}")
    answer = await surface.read("r.s.9")
    assert (answer.status, answer.slug) == (429, "overloaded")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(("body", "status"), [(BODY, 200), (b"", 400)])
async def test_a_request_acknowledges_other_steps_whatever_becomes_of_it(surface, body, status):
    for number in (1, 2):
        await surface.put(f"r.s.{number}")
    named = {"hivemesh-acknowledge": "r.s.1:1,r.s.2:1,r.s.7:1"}
    assert (await surface.put("r.s.3", body=body, headers=named)).status == status
    for number in (1, 2):
        answer = await ask(surface.routes, "GET", f"/v1/steps/r.s.{number}")
        assert answer.slug == "execution-unknown"


async def test_a_page_acknowledges_other_steps_too(surface):
    await surface.put("r.s.2")
    first = await surface.read()
    path = f"/v1/steps/r.s.1/events?execution={first.execution}&epoch=1&after=0"
    headers = {
        **surface.ticket(capability="a.read@1"),
        "prefer": "wait=0",
        "hivemesh-acknowledge": "r.s.2:1",
    }
    assert (await ask(surface.routes, "GET", path, headers=headers)).status == 200
    answer = await ask(surface.routes, "GET", "/v1/steps/r.s.2")
    assert answer.slug == "execution-unknown"


@pytest.mark.parametrize(
    "named", ["r.s.1", "r.s.1:", "r.s.1:x", "r.s.1:2", ":1", ",", "r.s.1:²", "r.s.1:" + "9" * 30]
)
async def test_an_acknowledgement_that_names_no_answer_does_nothing(surface, named):
    await surface.put()
    assert (await surface.put("r.s.2", headers={"hivemesh-acknowledge": named})).status == 200
    assert (await ask(surface.routes, "GET", "/v1/steps/r.s.1")).status == 200


async def test_what_runs_goes_on_though_it_is_acknowledged(surface):
    await surface.read()
    await surface.put("r.s.2", headers={"hivemesh-acknowledge": "r.s.1:1"})
    assert (await ask(surface.routes, "GET", "/v1/steps/r.s.1")).status == 200
    assert not surface.runner.executions[0].ended


@pytest.mark.parametrize("who", [OPERATOR, NEIGHBOUR, None])
async def test_nobody_acknowledges_what_another_has_created(surface, who):
    await surface.put()
    headers = {**surface.ticket("r.s.2"), "hivemesh-acknowledge": "r.s.1:1"}
    await surface.create(
        surface.routes, "PUT", "/v1/steps/r.s.2", body=BODY, headers=headers, who=who
    )
    assert (await ask(surface.routes, "GET", "/v1/steps/r.s.1")).status == 200


async def test_a_waiting_reader_that_goes_away_is_forgotten():
    surface = Surface()
    waiting = asyncio.create_task(surface.read(headers={}))
    await until(lambda: surface.routes.waiting)
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert not surface.routes.waiting
    assert not surface.runner.executions[0].waited_for
