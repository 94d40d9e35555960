"""The process that computes: imports the worker once, then runs one step at a time.

Started by `pool.py` as a fresh interpreter with a socket and a clean environment; it has no
keys and no way to the platform, and asks its front for artifacts and secrets. It must stay slim:
no web framework, no TLS, no Pydantic of its own.
"""

import ctypes
import gc
import hashlib
import importlib
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from hivemesh_sdk.contracts.problems import Problem, problem
from hivemesh_sdk.errors import ConfigurationError, HivemeshError
from hivemesh_sdk.redaction import REDACTOR, MaskedStream
from hivemesh_sdk.worker import channel
from hivemesh_sdk.worker.context import Context
from hivemesh_sdk.worker.definition import Worker
from hivemesh_sdk.worker.failures import StepCancelledError, problem_of, refuse_secrets, trace_of
from hivemesh_sdk.worker.http import Http
from hivemesh_sdk.worker.kinds import Capability, Job, Sink
from hivemesh_sdk.worker.line import Line, StepLine
from hivemesh_sdk.worker.remote_artifacts import RemoteArtifacts, StoringSink, borrowing, inputs
from hivemesh_sdk.worker.secrets import LeasedValues

MAX_NAMED = 1000  # artifacts in a result; more are named by the records alone
_PR_SET_PDEATHSIG = 1

Outcome = tuple[channel.Ended | channel.Failed | channel.Refused, bytes]


def main(file_descriptor: int) -> int:
    """Serve the channel; the process ends when the other end closes."""
    os.dup2(2, 1)  # what the author's code prints goes to the log
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the front, which then stops us
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a TextIOWrapper; as standard error has it
    sys.stdout = MaskedStream(sys.stdout, REDACTOR)
    sys.stderr = MaskedStream(sys.stderr, REDACTOR)
    line = Line(socket.socket(fileno=file_descriptor))
    load = line.receive_load()
    _die_with(load.parent)
    _limit(load)
    capabilities = _import(load, line)
    if capabilities is None:
        line.finish()
        return 1
    opened: list[str] = []  # internal destinations, as of the present step
    http = Http(load.egress, lambda: opened)
    while True:
        step, begin, body = line.next_step()
        opened[:] = begin.internal
        line.send(*_run(step, begin, body, capabilities, http))


def load_worker(entrypoint: str, search_path: Sequence[str]) -> Worker:
    """Import `module:attribute`.

    Raises:
        ConfigurationError: the attribute is not there or is no Worker.
    """
    sys.path[:0] = [entry for entry in search_path if entry not in sys.path]
    module, _, attribute = entrypoint.partition(":")
    worker = getattr(importlib.import_module(module), attribute, None)
    if not isinstance(worker, Worker):
        message = f"{entrypoint!r} is no hivemesh_sdk.Worker; correct `runtime.entrypoint`"
        raise ConfigurationError(message)
    return worker


def _die_with(parent: int) -> None:
    """Let the kernel end this process with its front, even while C code computes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _limit(load: channel.Load) -> None:
    with suppress(OSError):  # where memory runs out, the kernel takes this process, not the front
        Path("/proc/self/oom_score_adj").write_text("500")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if load.file_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit = load.file_bytes if hard == resource.RLIM_INFINITY else min(load.file_bytes, hard)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))


def _import(load: channel.Load, line: Line) -> Mapping[str, Capability] | None:
    try:
        worker = load_worker(load.entrypoint, load.search_path)
        capabilities = {name: Capability(one) for name, one in worker.capabilities.items()}
    except Exception as error:  # noqa: BLE001 - whatever an import raises is reported
        traceback.print_exc()
        line.send(channel.LoadFailed(problem=problem_of(error)))
        return None
    gc.freeze()  # what was imported stays; later collections need not look at it
    line.send(channel.Ready())
    return capabilities


def _run(
    step: StepLine,
    begin: channel.Begin,
    body: bytes,
    capabilities: Mapping[str, Capability],
    http: Http,
) -> Outcome:
    capability = capabilities.get(begin.capability)
    if capability is None:
        missing = f"{begin.capability!r} is in the manifest and not in the code"
        return channel.Refused(problem=problem("unknown-capability", missing)), b""
    vault = LeasedValues(borrowing(step))
    try:
        if begin.members:
            return _run_members(vault, step, begin, body, capability, http)
        return _run_with(vault, step, begin, body, capability, http)
    except BaseException as error:  # noqa: BLE001 - options may have code of the author's
        return channel.Failed(problem=_raised(error, begin, begin.key)), b""
    finally:
        step.close()
        vault.close()


def _run_with(
    vault: LeasedValues,
    step: StepLine,
    begin: channel.Begin,
    body: bytes,
    capability: Capability,
    http: Http,
) -> Outcome:
    scratch = Path(begin.scratch)
    artifacts = RemoteArtifacts(step, scratch)
    job = Job(
        kind=begin.kind,
        inputs=inputs(begin.inputs, body, artifacts),
        parameters=msgspec.json.decode(begin.parameters),
        checkpoint=begin.checkpoint,
        limits=begin.limits,
        vault=vault,
    )
    try:
        options = capability.accept(job)
    except HivemeshError as error:
        return channel.Refused(problem=problem_of(error)), b""
    context = Context(
        key=begin.key,
        capability=begin.capability,
        scratch=scratch,
        artifacts=artifacts,
        port=step,
        vault=vault,
        http=http,
        calls=step,
    )
    sink = StoringSink(step, artifacts) if begin.bodies == "direct" else step
    failed, result = _compute(capability, job, options, context, sink, begin)
    if failed is not None:
        return channel.Failed(problem=failed), b""
    stored = list(artifacts.stored.values())[:MAX_NAMED]
    if result is None:
        return channel.Ended(has_result=False, artifacts=stored), b""
    digest = hashlib.sha256(result).hexdigest()
    return channel.Ended(has_result=True, sha256=digest, artifacts=stored), result


def _run_members(
    vault: LeasedValues,
    step: StepLine,
    begin: channel.Begin,
    body: bytes,
    capability: Capability,
    http: Http,
) -> Outcome:
    """Several small calls, one after the other; each is answered before the next one begins."""
    parameters = msgspec.json.decode(begin.parameters)
    job = Job(kind=begin.kind, parameters=parameters, vault=vault)
    try:
        options = capability.accept(job)
        for number, (key, line) in enumerate(zip(begin.members, body.split(b"\n"), strict=True)):
            step.begin_member(begin.remaining_s)
            scratch = f"{begin.scratch}/{number}"
            job.inputs = (line,)
            context = Context(
                key=key,
                capability=begin.capability,
                scratch=scratch,
                artifacts=RemoteArtifacts(step, scratch),
                port=step,
                vault=vault,
                http=http,
                calls=step,
            )
            failed, result = _compute(capability, job, options, context, step, begin)
            step.member_ended(failed, result or b"")
    except StepCancelledError as error:
        return channel.Failed(problem=problem_of(error)), b""
    except HivemeshError as error:
        return channel.Refused(problem=problem_of(error)), b""
    return channel.Ended(has_result=False), b""


def _compute(
    capability: Capability,
    job: Job,
    options: object,
    context: Context,
    sink: Sink,
    begin: channel.Begin,
) -> tuple[Problem | None, bytes | None]:
    """Return why it failed, or the JSON of its result."""
    try:
        result = capability.run(job, options, context, sink)
        if result is not None:
            refuse_secrets(result, "the answer")
    except (HivemeshError, StepCancelledError) as error:
        return problem_of(error), None
    except BaseException as error:  # noqa: BLE001 - the boundary of the author's code
        return _raised(error, begin, context.key), None
    return None, result


def _raised(error: BaseException, begin: channel.Begin, key: str) -> Problem:
    trace = trace_of(error, withheld=begin.withheld)
    print(f"step {key} of {begin.capability} raised:\n{trace}", file=sys.stderr)  # noqa: T201 - the worker's log
    return problem_of(error)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
