import pytest
from api_support import OPERATOR, WORKER, call
from fastapi import FastAPI, Request
from hivemesh_platform.api import absence, errors
from hivemesh_platform.api.access import before_body
from hivemesh_platform.api.bodies import decoded, router
from hivemesh_platform.api.requests import RequestIds
from hivemesh_platform.cli.completion import command_lines
from hivemesh_sdk.contracts.instances import Heartbeat
from hivemesh_sdk.errors import ConflictError, NotFoundError, RetryableError
from pydantic import BaseModel, ConfigDict


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int
    names: list[str] = []


@pytest.fixture
def app() -> RequestIds:
    found = FastAPI()
    routes = router()

    @routes.post("/orders")
    @before_body("run:pipeline")
    async def order(body: Order) -> Order:
        return body

    @routes.get("/orders/{name}")
    async def one(name: str, limit: int = 1) -> None:
        raise NotFoundError

    @routes.post("/beats")
    async def beat(request: Request) -> None:
        await decoded(request, Heartbeat)

    @routes.get("/busy")
    async def busy() -> None:
        raise RetryableError("later", delay_s=3.0, slug="overloaded")

    @routes.get("/taken")
    async def taken() -> None:
        raise ConflictError("held by somebody else")

    @routes.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret detail")

    found.include_router(routes)
    errors.install(found)
    return RequestIds(found)


async def test_a_valid_body_is_taken(app: RequestIds) -> None:
    answer = await call(app, "POST", "/orders", body={"count": 3})
    assert (answer.status, answer.json()["count"]) == (200, 3)


@pytest.mark.parametrize(
    ("body", "status", "code", "text"),
    [
        (b"{", 400, "HM-1001", "no JSON"),
        (b"", 422, "HM-1002", "missing"),
        (b'{"count": 1, "count": 2}', 400, "HM-1001", "names the key 'count' twice"),
        (b'{"count": NaN}', 400, "HM-1001", "NaN"),
        (b"\xff", 400, "HM-1001", "UTF-8"),
        (b"[" * 100 + b"]" * 100, 400, "HM-1001", "nested deeper"),
        (b'{"count": "x"}', 422, "HM-1002", "/count"),
        (b'{"conut": 1}', 422, "HM-1002", "did you mean 'count'"),
        (b'{"count": 1, "names": [1]}', 422, "HM-1002", "/names/0"),
        (b'{"count": 1, "names": ["' + b"x" * 1024 * 1024 + b'"]}', 413, "HM-1007", "larger"),
    ],
)
async def test_a_bad_body_is_a_problem(
    app: RequestIds, body: bytes, status: int, code: str, text: str
) -> None:
    headers = {"content-type": "application/json"}
    answer = await call(app, "POST", "/orders", body=body, headers=headers)
    problem = answer.json()
    assert (answer.status, problem["code"]) == (status, code)
    assert text in problem["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


async def test_another_media_type_is_refused(app: RequestIds) -> None:
    answer = await call(
        app, "POST", "/orders", body=b"count=1", headers={"content-type": "text/plain"}
    )
    assert (answer.status, answer.json()["code"]) == (415, "HM-1005")


async def test_the_wrong_method_is_told_which_are_allowed(app: RequestIds) -> None:
    answer = await call(app, "DELETE", "/orders")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["code"] == "HM-1004"


async def test_what_is_absent_and_what_was_never_there_look_the_same(app: RequestIds) -> None:
    absent = (await call(app, "GET", "/orders/x")).json()
    never = (await call(app, "GET", "/nothing")).json()
    for answer in (absent, never):
        del answer["instance"], answer["request_id"]
    assert absent == never


async def test_a_bad_query_is_pointed_at(app: RequestIds) -> None:
    answer = await call(app, "GET", "/orders/x?limit=many")
    assert answer.json()["errors"][0]["pointer"] == "/query/limit"


async def test_who_shows_no_certificate_is_refused(app: RequestIds) -> None:
    answer = await call(app, "POST", "/orders", as_=None, body={"count": 1})
    assert (answer.status, answer.json()["code"]) == (401, "HM-1101")


def test_a_route_that_reads_a_body_has_to_name_its_action() -> None:
    routes = router()

    async def order(body: Order) -> Order:
        return body

    with pytest.raises(TypeError, match="name its action"):
        routes.post("/orders")(order)


async def test_who_has_no_rule_is_refused(app: RequestIds) -> None:
    answer = await call(app, "POST", "/orders", as_=WORKER, body={"count": 1})
    assert (answer.status, answer.json()["code"]) == (403, "HM-1105")


async def test_a_header_is_no_identity(app: RequestIds) -> None:
    forged = {"x-forwarded-client-cert": OPERATOR.uri, "x-spiffe-id": OPERATOR.uri}
    answer = await call(app, "POST", "/orders", as_=None, body={"count": 1}, headers=forged)
    assert answer.status == 401


async def test_a_delay_becomes_a_header(app: RequestIds) -> None:
    answer = await call(app, "GET", "/busy")
    assert (answer.status, answer.headers["retry-after"]) == (429, "3")
    assert answer.json()["retryable"] is True


async def test_a_conflict_is_409(app: RequestIds) -> None:
    answer = await call(app, "GET", "/taken")
    assert (answer.status, answer.json()["detail"]) == (409, "held by somebody else")


async def test_an_unexpected_error_tells_its_request_and_nothing_else(app: RequestIds) -> None:
    answer = await call(app, "GET", "/broken", headers={"x-request-id": "abc-1"})
    assert (answer.status, answer.json()["request_id"]) == (500, "abc-1")
    assert b"secret detail" not in answer.body
    assert b"Traceback" not in answer.body


async def test_the_request_id_of_the_caller_is_kept(app: RequestIds) -> None:
    answer = await call(app, "GET", "/orders/x", headers={"x-request-id": "abc-1"})
    assert (answer.headers["x-request-id"], answer.json()["request_id"]) == ("abc-1", "abc-1")


@pytest.mark.parametrize("sent", ["", "with space", "x" * 200, 'inject"quote'])
async def test_an_odd_request_id_is_replaced(app: RequestIds, sent: str) -> None:
    answer = await call(app, "GET", "/orders/x", headers={"x-request-id": sent})
    assert answer.headers["x-request-id"] not in {sent, ""}


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        (b"{", 400, ""),
        (b'{"slots": {"a": "x"}}', 422, "/slots"),
        (b'{"slots": {}}', 422, ""),
        (b'{"incarnation": "\xff"}', 400, ""),
        (b"[" * 65 + b"]" * 65, 400, ""),
        (b'{"slots": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, ""),
    ],
)
async def test_a_bad_machine_message_is_a_problem(
    app: RequestIds, body: bytes, status: int, pointer: str
) -> None:
    answer = await call(app, "POST", "/beats", body=body)
    assert answer.status == status
    assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("path", "list_"),
    [
        ("/v1/workers/nope", "worker list"),
        ("/v1/runs/nope/outputs/x", "run list"),
        ("/v1/auth/roles/nope", "auth role list"),
    ],
)
def test_an_absent_object_names_the_list_of_its_kind(path: str, list_: str) -> None:
    document = errors.document_of(NotFoundError("there is none"), instance=path, request="1")
    assert f"`hivemesh {list_}`" in document.remedy


def test_a_remedy_of_the_raiser_wins() -> None:
    error = NotFoundError("there is none", remedy="look elsewhere")
    assert errors.document_of(error, instance="/v1/runs/x", request="1").remedy == "look elsewhere"


def test_every_list_that_a_remedy_names_is_a_command() -> None:
    known = {" ".join(words) for words in command_lines()}
    assert set(absence.LISTS.values()) <= known
