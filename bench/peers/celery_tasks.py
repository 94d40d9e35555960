"""The tasks of the comparison as Celery has them."""

import os
import time

from celery import Celery

FOLDER = os.environ["PEER_FOLDER"]
app = Celery(
    "peer",
    broker=f"redis+socket://{FOLDER}/redis.sock",
    backend=f"redis+socket://{FOLDER}/redis.sock?virtual_host=1",
)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=64,
    broker_transport_options={"visibility_timeout": 3600},
)


@app.task
def do(number):
    return number


@app.task
def busy(number):
    until = time.thread_time() + 0.005
    while time.thread_time() < until:
        pass
    return number


@app.task
def when(number):
    return time.time()
