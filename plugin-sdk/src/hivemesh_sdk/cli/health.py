"""`hivemesh-worker health`: the probe of a container, run inside it."""

import argparse
import sys

import msgspec

from hivemesh_sdk.failures import FAILURE, OK
from hivemesh_sdk.lifecycle.health import judge


def run(options: argparse.Namespace) -> int:
    """Say whether the worker that runs here is healthy; exit 1 where it is not."""
    verdict = judge(options.worker)
    if options.output == "json":
        document = {"worker": verdict.worker, "healthy": verdict.healthy, "state": verdict.reason}
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    else:
        sys.stdout.write(f"{verdict.worker}: {verdict.reason}\n")
    return OK if verdict.healthy else FAILURE
