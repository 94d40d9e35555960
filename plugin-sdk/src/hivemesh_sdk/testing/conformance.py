"""The conformance suite: what every worker, in any language, has to do. It needs no platform.

Inherit it in a worker's tests; it starts the worker as a process, which joins a fake platform:

    class TestConformance(WorkerConformance):
        pass

The worker's folder is found from the test's file, its examples from `tests/examples.yaml`.
Override the fixtures `worker_folder`, `worker_command` or `examples` where that does not fit.
"""

import hashlib
import inspect
import json
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hivemesh_sdk.contracts.manifest import Capability
from hivemesh_sdk.contracts.names import PROTOCOL
from hivemesh_sdk.contracts.problems import Problem, slug_of
from hivemesh_sdk.contracts.steps import ExecutionState, Limits, StepKind, WorkerStatus
from hivemesh_sdk.testing.examples import EXAMPLES_FILE, Example, load_examples
from hivemesh_sdk.testing.harness import WorkerHarness
from hivemesh_sdk.testing.instance import Outcome, Page, Step
from hivemesh_sdk.testing.pki import ThrowawayCA
from hivemesh_sdk.transport.connection import Response
from hivemesh_sdk.trust.contexts import anonymous_context
from hivemesh_sdk.trust.identity import SpiffeId
from hivemesh_sdk.trust.source import IdentitySource

FIRST_KIND: Mapping[str, StepKind] = {
    "call": "call",
    "map": "map",
    "source": "source",
    "reducer": "add",
}
SMALL = Limits(records=3)
CHECKPOINTS = 8  # a source is started again at so many of its checkpoints

# Claims that make a ticket one of somebody else, and what a worker answers to it.
FOREIGN: Mapping[str, tuple[dict[str, Any], int, str]] = {
    "for another worker": ({"aud": ["another"]}, 403, "not-authorized"),
    "of another instance": ({"azp": "spiffe://x.y/worker/another/i1"}, 403, "not-authorized"),
    "for another capability": ({"cap": "another.thing@1"}, 403, "not-authorized"),
    "of another step": ({"step": "run_another.node.1"}, 403, "not-authorized"),
    "of another attempt": ({"attempt": 2}, 403, "not-authorized"),
    "expired": ({"iat": 1_000_000_000, "exp": 1_000_000_300}, 401, "ticket-expired"),
    "of the future": ({"iat": 4_000_000_000, "exp": 4_000_000_300}, 401, "ticket-not-yet-valid"),
}


class WorkerConformance:
    """Inherit this; the class name must begin with `Test`."""

    # What a worker may adapt

    @pytest.fixture(scope="class")
    @classmethod
    def worker_folder(cls) -> Path:
        """The folder with plugin.yaml: the first one above the file of the test class."""
        for folder in Path(inspect.getfile(cls)).resolve().parents:
            if (folder / "plugin.yaml").is_file():
                return folder
        pytest.fail("no plugin.yaml above this test; override the fixture `worker_folder`")

    @pytest.fixture(scope="class")
    @classmethod
    def worker_command(cls) -> Sequence[str] | None:
        """How the worker is started; None: `hivemesh-worker run FOLDER` of this environment."""
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def examples(cls, worker_folder: Path) -> Mapping[str, Example]:
        """Options and input per capability."""
        return load_examples(worker_folder)

    @pytest.fixture(scope="class")
    @classmethod
    def worker(
        cls, worker_folder: Path, worker_command: Sequence[str] | None
    ) -> Iterator[WorkerHarness]:
        """The running worker that the tests share."""
        with WorkerHarness(worker_folder, command=worker_command) as harness:
            yield harness

    @pytest.fixture
    def fresh_worker(
        self, worker_folder: Path, worker_command: Sequence[str] | None
    ) -> Iterator[WorkerHarness]:
        """A worker for one test, which may end it."""
        with WorkerHarness(worker_folder, command=worker_command) as harness:
            yield harness

    # What it says of itself

    def test_status_names_worker_version_and_protocol(self, worker: WorkerHarness) -> None:
        """`GET /v1/status` and `GET /` answer with the same form."""
        metadata = worker.manifest.metadata
        for path in ("/v1/status", "/"):
            status = _decoded(worker.request("GET", path), WorkerStatus)
            assert (status.worker, status.version) == (metadata.name, metadata.version)
            assert status.protocol == PROTOCOL
            assert status.instance == worker.member.instance

    def test_status_lists_the_slots_of_every_capability(self, worker: WorkerHarness) -> None:
        """Totals are those of the manifest."""
        totals = {name: slots.total for name, slots in worker.status().slots.items()}
        assert totals == {one.id: one.slots for one in worker.manifest.capabilities}

    def test_load_is_told_as_fractions(self, worker: WorkerHarness) -> None:
        """CPU and memory lie between 0 and 1."""
        status = worker.status()
        assert 0.0 <= status.cpu <= 1.0
        assert 0.0 < status.memory <= 1.0

    def test_manifest_is_that_of_plugin_yaml(self, worker: WorkerHarness) -> None:
        """`GET /v1/manifest` is the JSON form of the file."""
        response = worker.request("GET", "/v1/manifest")
        assert response.status == 200
        assert json.loads(response.body) == worker.manifest.document()

    def test_registration_is_that_of_plugin_yaml(self, worker: WorkerHarness) -> None:
        """Digest, slots and versions are what the platform consented to."""
        registration = worker.member.registration
        assert registration.manifest_digest == worker.manifest.digest()
        assert registration.manifest == worker.manifest.document()
        assert registration.slots == {one.id: one.slots for one in worker.manifest.capabilities}
        assert registration.protocol == PROTOCOL

    def test_metrics_are_in_the_text_format(self, worker: WorkerHarness) -> None:
        """`GET /metrics` is for Prometheus."""
        response = worker.request("GET", "/metrics")
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/plain")
        assert b"# TYPE " in response.body

    # What it refuses

    def test_an_unknown_path_is_a_problem(self, worker: WorkerHarness) -> None:
        """404 in the one form of every refusal."""
        _expect(worker.request("GET", "/v1/nothing"), 404, "not-found")

    def test_a_wrong_method_names_the_right_ones(self, worker: WorkerHarness) -> None:
        """405 with `Allow`."""
        response = worker.request("DELETE", "/v1/status")
        _expect(response, 405, "method-not-allowed")
        assert "GET" in response.headers["allow"]

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"\n", id="empty line"),
            pytest.param(b"{}\n", id="empty object"),
            pytest.param(b"{", id="cut short"),
            pytest.param(b"[1]\n", id="a list"),
            pytest.param(b"\xff\n", id="no UTF-8"),
            pytest.param(b'{"a": 1}', id="no line feed"),
        ],
    )
    def test_a_malformed_step_is_refused(self, worker: WorkerHarness, body: bytes) -> None:
        """The first line must be a step request."""
        step = Step.of(_any(worker).id, FIRST_KIND[_any(worker).kind])
        key = worker.key()
        ticket = worker.ticket(key, step)
        response = worker.request("PUT", f"/v1/steps/{key}", body, hivemesh_ticket=ticket)
        _expect(response, 400, "malformed")

    def test_an_input_that_is_cut_short_is_refused(self, worker: WorkerHarness) -> None:
        """The bytes that a line announces must follow it."""
        step = Step.of(_any(worker).id, FIRST_KIND[_any(worker).kind], bodies=[b"{}\n"])
        cut = Step(step.request, (b"{",))
        _refused(worker.put(worker.key(), cut), 400, "malformed")

    @pytest.mark.parametrize(
        "key",
        [
            pytest.param("a%20b.c.1", id="a space"),
            pytest.param("x" * 300, id="too long"),
            pytest.param("a/b/c", id="slashes"),
            pytest.param("a~b.c.1", id="a tilde"),
            pytest.param("", id="empty"),
        ],
    )
    def test_a_bad_step_key_is_refused(self, worker: WorkerHarness, key: str) -> None:
        """Keys consist of letters, digits, `_`, `-` and `.`, and are not long."""
        page = worker.put(key, Step.of(_any(worker).id, FIRST_KIND[_any(worker).kind]))
        assert page.status in {400, 404, 422}, page

    def test_a_capability_that_is_not_declared_is_refused(self, worker: WorkerHarness) -> None:
        """A worker serves what its manifest lists and nothing else."""
        page = worker.put(worker.key(), Step.of("conformance.unknown@1", "call"))
        _refused(page, 404, "unknown-capability")

    def test_a_kind_that_the_capability_has_not_is_refused(self, worker: WorkerHarness) -> None:
        """A reducer cannot be mapped, nothing but a reducer merges."""
        for capability in worker.manifest.capabilities:
            kind: StepKind = "map" if capability.kind == "reducer" else "merge"
            page = _begun(worker, Step.of(capability.id, kind, bodies=[b"{}\n"]))
            assert page.status == 422 or _problem(page) is not None, page

    def test_an_unknown_option_is_named_by_pointer(self, worker: WorkerHarness) -> None:
        """422 before anything runs."""
        for capability in _with_options(worker):
            kind: StepKind = (
                "result" if capability.kind == "reducer" else FIRST_KIND[capability.kind]
            )
            bodies = [] if capability.kind in {"source", "reducer"} else [b"{}\n"]
            step = Step.of(capability.id, kind, parameters={"zzz": 1}, bodies=bodies)
            page = worker.put(worker.key(), step)
            _refused(page, 422, "options-invalid")
            assert page.problem is not None
            assert [error.pointer for error in page.problem.errors] == ["/zzz"]

    # What it computes

    def test_every_example_ends_well(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """Events are numbered without gaps, batches carry their count and digest."""
        for capability, step in _steps(worker, examples):
            outcome = worker.complete(worker.key(), step)
            assert outcome.problem is None, f"{capability.id}: {outcome.problem}"
            numbers = [frame.event.no for frame in outcome.frames]
            assert numbers == sorted(set(numbers))
            for event, body in outcome.batches:
                assert event.count == body.count(b"\n")
                assert event.sha256 == hashlib.sha256(body).hexdigest()

    def test_unknown_fields_of_a_request_are_ignored(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """A newer platform may say more than this worker knows."""
        _, step = _first(worker, examples)
        document = {**msgspec.to_builtins(step.request), "added_later": {"x": 1}}
        body = msgspec.json.encode(document) + b"\n" + b"".join(step.bodies)
        key = worker.key()
        ticket = worker.ticket(key, step)
        response = worker.request(
            "PUT", f"/v1/steps/{key}", body, prefer="wait=20", hivemesh_ticket=ticket
        )
        assert response.status == 200, response.body
        worker.delete(key)

    def test_a_map_answers_a_single_record_as_a_call(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """Every map is also a call with one record."""
        for capability, step in _steps(worker, examples, "map"):
            record, *_ = step.bodies[0].splitlines()
            single = Step.of(
                capability.id, "call", parameters=step.request.parameters, bodies=[record]
            )
            outcome = worker.complete(worker.key(), single)
            json.loads(outcome.result)

    def test_a_bad_record_costs_no_other_record(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """A line that is no JSON is rejected with its position, the batch goes on."""
        for capability, step in _steps(worker, examples, "map"):
            good = worker.complete(worker.key(), step)
            body = step.bodies[0] + b"{this is no JSON\n"
            bad = Step.of(capability.id, "map", parameters=step.request.parameters, bodies=[body])
            outcome = worker.complete(worker.key(), bad)
            assert len(outcome.lines) == len(good.lines)
            assert len(outcome.rejected) == len(good.rejected) + 1

    def test_a_source_goes_on_from_each_of_its_checkpoints(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """The records after a checkpoint are those that a restart there gives."""
        for _, step in _steps(worker, examples, "source"):
            whole = worker.complete(worker.key(), step.but(limits=SMALL))
            read = 0
            for event, body in whole.batches[:CHECKPOINTS]:
                read += body.count(b"\n")
                rest = worker.complete(worker.key(), step.but(checkpoint=event.checkpoint))
                assert rest.lines == whole.lines[read:]

    def test_a_reducer_gives_the_same_result_for_every_partition(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """One batch, or one batch per record merged pairwise from the right."""
        for capability, step in _steps(worker, examples, "reducer"):
            example = examples[capability.id]
            together = _add(worker, step)
            lines = step.bodies[0].splitlines(keepends=True)
            states = [_add(worker, Step.of(capability.id, "add", bodies=[line])) for line in lines]
            while len(states) > 1:
                right, left = states.pop(), states.pop()
                states.append(_unary(worker, Step.of(capability.id, "merge", bodies=[right, left])))
            results = [
                _unary(
                    worker,
                    Step.of(
                        capability.id,
                        "result",
                        parameters=example.parameters(worker.put_path),
                        bodies=[state],
                    ),
                )
                for state in (together, states[0])
            ]
            assert json.loads(results[0]) == json.loads(results[1])

    # What makes it durable

    def test_the_same_request_finds_the_same_execution(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """A lost answer costs no second execution."""
        _, step = _first(worker, examples)
        key = worker.key()
        first, second = worker.put(key, step), worker.put(key, step)
        assert first.execution
        assert first.execution == second.execution
        worker.delete(key)

    def test_another_body_under_the_same_key_is_refused(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """422 `idempotency-mismatch`, and the first execution is untouched."""
        capability, step = _first(worker, examples)
        key = worker.key()
        first = worker.put(key, step)
        other = Step.of(capability.id, step.request.kind, bodies=[b'{"other": 1}\n'])
        _refused(worker.put(key, other), 422, "idempotency-mismatch")
        assert worker.put(key, step).execution == first.execution
        worker.delete(key)

    def test_a_lower_attempt_is_refused(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """409 `stale-attempt`."""
        _, step = _first(worker, examples)
        key = worker.key()
        worker.put(key, step.but(attempt=2))
        _refused(worker.put(key, step), 409, "stale-attempt")
        worker.delete(key, attempt=2)

    def test_a_higher_attempt_begins_anew_or_finds_the_result(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """Batches are made again; a stored unary result is returned as it is."""
        for capability, step in _steps(worker, examples):
            key = worker.key()
            first = worker.put(key, step)
            _drained(worker, key, first)
            second = worker.put(key, step.but(attempt=2))
            unary = capability.kind in {"call", "reducer"}
            assert second.status == 200
            assert (second.execution == first.execution) is unary, capability.id
            worker.delete(key, attempt=2)

    def test_an_acknowledged_answer_is_never_made_again(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """The same request then has the same answer, or 409; another body stays refused."""
        for capability, step in _steps(worker, examples):
            if capability.kind not in {"call", "map"}:
                continue
            first = worker.key()
            page = worker.put(first, step)
            _drained(worker, first, page)
            second = worker.key()
            worker.put(second, step, acknowledge=[(first, 1)])
            again = worker.put(first, step)
            if again.status == 200:
                assert again.execution == page.execution
            else:
                _refused(again, 409, "stale-attempt")
            other = Step.of(capability.id, step.request.kind, bodies=[b'{"other": 1}\n'])
            _refused(worker.put(first, other), 422, "idempotency-mismatch")
            worker.delete(second)

    def test_an_acknowledgement_does_not_end_what_runs(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """Nor does one of another attempt forget an answer."""
        _, step = _first(worker, examples)
        first, second = worker.key(), worker.key()
        page = worker.put(first, step, wait_s=0)
        worker.put(second, step, acknowledge=[(first, 2), (second, 1)])
        assert worker.put(first, step).execution == page.execution
        worker.delete(first)
        worker.delete(second)

    def test_an_execution_that_is_not_known_is_never_created_by_reading(
        self, worker: WorkerHarness
    ) -> None:
        """404 `execution-unknown`: the platform starts the next attempt."""
        page = worker.events(worker.key(), "0" * 24, after=0, wait_s=0)
        _refused(page, 404, "execution-unknown")

    def test_a_lower_epoch_may_not_read(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """409 `stale-reader`: another replica has taken over."""
        _, step = _first(worker, examples)
        key = worker.key()
        page = worker.put(key, step.but(epoch=5))
        stale = worker.events(key, page.execution, after=0, epoch=4, wait_s=0)
        _refused(stale, 409, "stale-reader")
        worker.delete(key)

    def test_events_are_given_again_until_they_are_acknowledged(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """`after` acknowledges; what lies behind it is not repeated."""
        _, step = _first(worker, examples)
        key = worker.key()
        first = worker.put(key, step)
        if not first.frames:
            first = worker.events(key, first.execution, after=0)
        again = worker.events(key, first.execution, after=0)
        assert again.frames[: len(first.frames)] == first.frames
        if not first.ended:
            following = worker.events(key, first.execution, after=first.last)
            assert all(frame.event.no > first.last for frame in following.frames)
        worker.delete(key)

    def test_an_execution_stands_in_the_status_until_its_code_has_stopped(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """The status is answered while work goes on, and names that work."""
        _, step = _first(worker, examples)
        key = worker.key()
        page = worker.put(key, step, wait_s=0)
        listed = {one.key for one in worker.status().executions}
        found = worker.step(key)
        assert found is not None
        assert found.execution == page.execution
        assert key in listed or found.state is ExecutionState.ENDED
        worker.forget(key)
        assert worker.step(key) is None
        worker.until(lambda status: key not in {one.key for one in status.executions})

    def test_a_cancelled_step_frees_its_slot(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """DELETE ends it, frees the slot and leaves the worker usable."""
        for capability, step in _steps(worker, examples):
            key = worker.key()
            worker.put(key, step, wait_s=0)
            assert worker.delete(key).status in {200, 202, 204}
            worker.until_idle(capability.id)
            assert worker.complete(worker.key(), step).problem is None

    def test_a_deadline_ends_a_step(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """It ends in time, or with `deadline-exceeded`; never later without a word."""
        for _, step in _steps(worker, examples):
            outcome = worker.complete(worker.key(), step.but(deadline_ms=1))
            problem = outcome.problem
            assert problem is None or slug_of(problem) == "deadline-exceeded", problem

    # How it ends

    def test_a_draining_worker_takes_no_new_step(
        self, fresh_worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """503 `draining` with Retry-After; what runs may end."""
        _, step = _first(fresh_worker, examples)
        key = fresh_worker.key()
        page = fresh_worker.put(key, step)
        command = fresh_worker.request("POST", "/v1/commands", b'{"command": "drain"}')
        assert command.status in {200, 202, 204}
        refused = fresh_worker.put(fresh_worker.key(), step)
        _refused(refused, 503, "draining")
        assert "retry-after" in refused.headers
        assert fresh_worker.status().draining
        assert fresh_worker.put(key, step).execution == page.execution

    def test_a_worker_that_is_asked_to_end_says_goodbye(self, fresh_worker: WorkerHarness) -> None:
        """SIGTERM: it gives its registration back and ends with 0."""
        assert fresh_worker.process.stop(within_s=40) == 0
        assert fresh_worker.platform.left == [fresh_worker.member.instance]

    def test_a_forgotten_instance_registers_again(self, fresh_worker: WorkerHarness) -> None:
        """`instance-unknown` in answer to a heartbeat."""
        instance = fresh_worker.member.instance
        fresh_worker.forget_and_wait(instance)
        assert fresh_worker.platform.members[instance].heartbeats

    # Whom it trusts

    def test_plain_http_is_not_answered(self, worker: WorkerHarness) -> None:
        """There is no port without TLS."""
        with socket.create_connection(_address(worker), timeout=10) as plain:
            plain.sendall(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n")
            assert not _received(plain).startswith(b"HTTP/")

    def test_a_client_without_a_certificate_is_refused(self, worker: WorkerHarness) -> None:
        """Its connection ends without an answer."""
        context = anonymous_context(worker.platform.ca.bundle())
        assert _answer_over(worker, context) == b""

    def test_a_certificate_of_another_installation_is_refused(self, worker: WorkerHarness) -> None:
        """Two installations never accept each other."""
        stranger = ThrowawayCA(worker.platform.ca.trust_domain)
        source = IdentitySource(stranger.svid(stranger.platform()), worker.platform.ca.bundle())
        assert _answer_over(worker, source.client_context()) == b""

    def test_nobody_creates_a_step_without_a_ticket(self, worker: WorkerHarness) -> None:
        """The platform and other workers are refused with 401, people with 403."""
        ca = worker.platform.ca
        step = Step.of(_any(worker).id, FIRST_KIND[_any(worker).kind])
        body = msgspec.json.encode(step.request) + b"\n"
        path = f"/v1/steps/{worker.key()}"
        _expect(worker.request("PUT", path, body), 401, "ticket-missing")
        _expect(
            worker.request_as(ca.worker("other", "i1"), "PUT", path, body), 401, "ticket-missing"
        )
        person = SpiffeId.user(ca.trust_domain, "someone")
        _expect(worker.request_as(person, "PUT", path, body), 403, "not-authorized")

    @pytest.mark.parametrize("wrong", FOREIGN)
    def test_a_foreign_ticket_is_refused(self, worker: WorkerHarness, wrong: str) -> None:
        """What the ticket says must be what is asked, also where the platform itself asks."""
        step = Step.of(_any(worker).id, FIRST_KIND[_any(worker).kind])
        key = worker.key()
        changes, status, slug = FOREIGN[wrong]
        tickets, holder = worker.platform.tickets, worker.member.peer.id
        right = tickets.claims(holder, key, step.request.capability)
        claims = msgspec.structs.replace(right, **changes)
        body = msgspec.json.encode(step.request) + b"\n"
        response = worker.request(
            "PUT", f"/v1/steps/{key}", body, hivemesh_ticket=tickets.sign(claims)
        )
        _expect(response, status, slug)

    def test_a_step_is_not_read_on_without_a_ticket(
        self, worker: WorkerHarness, examples: Mapping[str, Example]
    ) -> None:
        """Each page asks for a ticket."""
        _, step = _first(worker, examples)
        key = worker.key()
        page = worker.put(key, step)
        path = f"/v1/steps/{key}/events?execution={page.execution}&epoch=1&after=0"
        _expect(worker.request("GET", path), 401, "ticket-missing")
        worker.forget(key)


def _steps(
    worker: WorkerHarness, examples: Mapping[str, Example], kind: str | None = None
) -> Iterator[tuple[Capability, Step]]:
    """First steps of all capabilities (of a kind) that have an example; skips without any."""
    found = [
        (one, examples[one.id])
        for one in worker.manifest.capabilities
        if one.id in examples and kind in {None, one.kind}
    ]
    if not found:
        pytest.skip(_why_nothing(worker, kind))
    for capability, example in found:
        first = FIRST_KIND[capability.kind]
        options = {} if first == "add" else example.parameters(worker.put_path)
        yield (
            capability,
            Step.of(capability.id, first, parameters=options, bodies=example.bodies(first)),
        )


def _why_nothing(worker: WorkerHarness, kind: str | None) -> str:
    if kind is not None and kind not in {one.kind for one in worker.manifest.capabilities}:
        return f"the worker has no {kind}"
    return f"no example for a {kind or 'capability'} in {EXAMPLES_FILE}"


def _first(worker: WorkerHarness, examples: Mapping[str, Example]) -> tuple[Capability, Step]:
    return next(_steps(worker, examples))


def _any(worker: WorkerHarness) -> Capability:
    return worker.manifest.capabilities[0]


def _with_options(worker: WorkerHarness) -> Iterator[Capability]:
    yield from worker.manifest.capabilities


def _begun(worker: WorkerHarness, step: Step) -> Page:
    key = worker.key()
    page = worker.put(key, step)
    worker.delete(key)
    return page


def _drained(worker: WorkerHarness, key: str, page: Page) -> None:
    """Wait for the end without acknowledging the end."""
    while not page.ended:
        page = worker.events(key, page.execution, after=max(page.last - 1, 0))


def _add(worker: WorkerHarness, step: Step) -> bytes:
    return _unary(worker, step)


def _unary(worker: WorkerHarness, step: Step) -> bytes:
    outcome: Outcome = worker.complete(worker.key(), step)
    return outcome.result


def _problem(page: Page) -> Problem | None:
    return page.problem


def _decoded(response: Response, kind: type[WorkerStatus]) -> WorkerStatus:
    assert response.status == 200, response
    return msgspec.json.decode(response.body, type=kind)


def _expect(response: Response, status: int, slug: str) -> None:
    assert response.status == status, response
    assert response.headers["content-type"].startswith("application/problem+json")
    assert slug_of(msgspec.json.decode(response.body, type=Problem)) == slug


def _refused(page: Page, status: int, slug: str) -> None:
    assert (page.status, page.slug) == (status, slug), page


def _address(worker: WorkerHarness) -> tuple[str, int]:
    return worker.member.registration.host, worker.member.registration.port


def _answer_over(worker: WorkerHarness, context: ssl.SSLContext) -> bytes:
    """What a client with this context gets; with TLS 1.3 its handshake alone seems to succeed."""
    try:
        with (
            socket.create_connection(_address(worker), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=worker.member.target.server_name) as tls,
        ):
            tls.sendall(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n")
            return _received(tls)
    except (ssl.SSLError, ConnectionError):
        return b""


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096)
    except (ssl.SSLError, ConnectionError):
        return b""
