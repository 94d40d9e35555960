"""The `hivemesh-worker` command: run, check, call and prove a worker without a platform."""

from hivemesh_sdk.cli.main import main

__all__ = ["main"]
