"""`hivemesh-worker health`: the probe of a container, run inside it."""

import argparse
import sys

import msgspec

from hivemesh_sdk.cli.failures import FAILURE, OK
from hivemesh_sdk.lifecycle.health import judge
from hivemesh_sdk.lifecycle.location import locate


def run(options: argparse.Namespace) -> int:
    """Say whether the worker that runs here is healthy; exit 1 where it is not."""
    name = locate(options.worker).manifest.metadata.name
    verdict = judge(name)
    if options.output == "json":
        document = {"worker": name, "healthy": verdict.healthy, "state": verdict.reason}
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    else:
        sys.stdout.write(f"{name}: {verdict.reason}\n")
    return OK if verdict.healthy else FAILURE
