"""`hivemesh-worker run`: joins a platform and serves until told to end."""

import argparse
import os

from hivemesh_sdk.lifecycle.environment import read_environment
from hivemesh_sdk.lifecycle.location import locate
from hivemesh_sdk.lifecycle.process import run_worker


def run(options: argparse.Namespace) -> int:
    """Run the worker; what it is told comes from the environment."""
    return run_worker(locate(options.worker), read_environment(os.environ))
