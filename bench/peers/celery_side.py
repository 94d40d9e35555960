"""Celery with Redis (append-only file, synced each second).

`celery_side.py FOLDER PROCESSES JOBS BUSY CALLS`
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    folder, processes = Path(sys.argv[1]), sys.argv[2]
    jobs, busy_jobs, calls = map(int, sys.argv[3:6])
    programs = Path(sys.executable).parent
    os.environ["PEER_FOLDER"] = str(folder)
    socket = folder / "redis.sock"
    server = subprocess.Popen(
        [
            programs / "redis-server",
            "--port",
            "0",
            "--unixsocket",
            socket,
            "--dir",
            folder,
            "--appendonly",
            "yes",
            "--save",
            "",
        ],
        stdout=subprocess.DEVNULL,
    )
    here = Path(__file__).parent
    worker = subprocess.Popen(
        [programs / "celery", "-A", "celery_tasks", "worker", "-c", processes, "-l", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"],
        cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        print(json.dumps(measured(socket, jobs, busy_jobs, calls)))
    finally:
        for one in (worker, server):
            one.terminate()
            one.wait(30)


def measured(socket: Path, jobs: int, busy_jobs: int, calls: int) -> dict[str, object]:
    import redis
    from celery import group
    from celery_tasks import busy, do, when

    while not socket.exists():
        time.sleep(0.05)
    results = redis.Redis(unix_socket_path=str(socket), db=1)
    do.delay(0).get(timeout=60)
    waits = []
    for number in range(calls):
        sent = time.time()
        waits.append(when.delay(number).get(timeout=30) - sent)
    found: dict[str, object] = {"waits": waits}
    for name, task, count in (("noop", do, jobs), ("busy", busy, busy_jobs)):
        before = results.dbsize()
        started = time.perf_counter()
        group(task.s(number) for number in range(count)).apply_async()
        found[f"{name}_submit_s"] = time.perf_counter() - started
        while results.dbsize() < before + count:
            time.sleep(0.02)
        found[f"{name}_s"] = time.perf_counter() - started
    return found


if __name__ == "__main__":
    main()
