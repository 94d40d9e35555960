"""A real worker process and the fake platform: identity, solitude, draining, memory."""

import os
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from hivemesh_sdk.lifecycle.health import judge
from hivemesh_sdk.testing.harness import WorkerHarness
from hivemesh_sdk.testing.instance import Step
from hivemesh_sdk.testing.process import memory_of

TEXT_WORKER = Path(__file__).parents[1] / "testing" / "text-worker"
MEBIBYTE = 1024 * 1024

pytestmark = pytest.mark.integration


def spin(length: int) -> Step:
    return Step.of("text.spin@1", "call", bodies=[str(length).encode()])


def test_a_certificate_is_renewed_before_it_expires():
    with WorkerHarness(TEXT_WORKER, lifetime=timedelta(seconds=4)) as worker:
        worker.wait_for(lambda platform: platform.renewals >= 2)
        assert len(worker.platform.enrolments) == 1
        assert worker.status().worker == "text"


def test_an_expired_worker_enrols_again_under_its_name():
    with WorkerHarness(TEXT_WORKER, lifetime=timedelta(seconds=2)) as worker:
        worker.platform.refuses_renewals = True
        worker.platform.lifetime = timedelta(hours=1)  # of the second certificate
        worker.process.give_token(worker.platform.new_token())
        worker.wait_for(lambda platform: len(platform.enrolments) == 2)
        worker.platform.refuses_renewals = False
        worker.forget_and_wait(worker.member.instance)
        assert worker.platform.enrolments[1].instance == worker.member.instance


def test_a_worker_alone_for_too_long_ends_by_itself():
    with WorkerHarness(TEXT_WORKER, variables={"HIVEMESH_ALONE_S": "1"}) as worker:
        worker.run(worker.platform.close_listeners())
        assert worker.process.wait(within_s=30) == 7
        assert '"event": "alone"' in worker.process.log()


def test_a_stopping_worker_lets_running_steps_end_and_their_results_be_read():
    with WorkerHarness(TEXT_WORKER) as worker:
        key = worker.key()
        page = worker.put(key, spin(22), wait_s=0)
        worker.process.process.terminate()
        if not page.ended:
            page = worker.events(key, page.execution, after=page.last)
        assert page.frames[-1].body == b"false"
        assert worker.process.wait(within_s=40) == 0


def test_a_killed_worker_leaves_no_process_behind():
    with WorkerHarness(TEXT_WORKER) as worker:
        worker.put(worker.key(), spin(30), wait_s=0)
        children = psutil.Process(worker.process.pid).children(recursive=True)
        worker.process.process.kill()
        worker.process.wait(within_s=10)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert children
        assert not alive


def test_the_status_is_answered_while_c_code_holds_the_interpreter():
    with WorkerHarness(TEXT_WORKER) as worker:
        key = worker.key()
        worker.put(key, spin(30), wait_s=0)
        worker.until(lambda status: any(one.executor_cpu_s > 0.2 for one in status.executions))
        assert [one.key for one in worker.status().executions] == [key]
        worker.forget(key)
        worker.until_idle("text.spin@1")


def test_front_and_executor_stay_below_100_mib():
    with WorkerHarness(TEXT_WORKER) as worker:
        worker.complete(worker.key(), spin(3))
        front = psutil.Process(worker.process.pid)
        processes = [front, *front.children(recursive=True)]
        assert len(processes) == 2
        assert sum(memory_of(one.pid) for one in processes) < 100 * MEBIBYTE


def test_the_probe_sees_a_live_worker(tmp_path):
    with WorkerHarness(TEXT_WORKER, variables={"TMPDIR": str(tmp_path)}) as worker:
        worker.wait_for(lambda platform: len(worker.member.heartbeats) > 1)
        folder = tmp_path / f"hivemesh-{os.getuid()}"
        assert judge("text", folder=folder).reason == "live"
        worker.process.stop(within_s=40)
        assert not list(folder.iterdir())


def test_no_secret_reaches_the_log():
    with WorkerHarness(TEXT_WORKER, variables={"HIVEMESH_LOG_LEVEL": "debug"}) as worker:
        token = worker.platform.enrolments[0].token
        worker.process.stop(within_s=40)
        assert token.split(".")[2] not in worker.process.log()


def test_a_refused_token_ends_the_worker_with_a_coded_error():
    with (
        pytest.raises(AssertionError, match=r"error\[HM-1106\]"),
        WorkerHarness(TEXT_WORKER, honest=False),
    ):
        pytest.fail("it joined")


def test_whom_a_worker_has_refused_is_told_with_a_heartbeat():
    def told(worker):
        return [one for beat in worker.member.heartbeats for one in beat.refusals]

    with WorkerHarness(TEXT_WORKER) as worker:
        stranger = worker.platform.ca.worker("stranger", "s1")
        for _ in range(3):
            assert worker.request_as(stranger, "GET", "/v1/status").status == 403
        worker.wait_for(lambda _: sum(one.count for one in told(worker)) > 0)
        assert worker.process.stop(within_s=40) == 0
        assert sum(one.count for one in told(worker)) == 3
        assert {(one.peer, one.reason) for one in told(worker)} == {(str(stranger), "not-a-reader")}
