"""A worker process that joins by a token, and that nobody starts again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hivemesh_sdk.testing.process import WorkerProcess
from stolen_ca import port_of
from whole_platform import Installation, Shared, until


@contextmanager
def joined(
    platform: Installation, shared: Shared, worker: Path, *, mesh: int = 0, **variables: str
) -> Iterator[WorkerProcess]:
    """Run an instance until the end of the block; variables are added to its environment."""
    folders = shared.environments.glob(f"{worker.name}@*")
    newest = max(folders, key=lambda folder: folder.stat().st_mtime)
    command = [str(newest / "bin" / "python"), "-P", "-m", "hivemesh_sdk.cli", "run", str(worker)]
    told = {
        "HIVEMESH_PLATFORM": f"https://127.0.0.1:{mesh or port_of(platform, 'mesh')}",
        "HIVEMESH_ENROLMENT": f"https://127.0.0.1:{port_of(platform, 'enrolment')}",
        "HIVEMESH_ADVERTISE_HOST": "127.0.0.1",
        "HIVEMESH_ALONE_S": "60",
        **variables,
    }
    before = len(platform.instances(worker.name))
    with platform.client() as client:
        token = client.join_token(worker.name)
    with WorkerProcess(command, told, token, cwd=platform.state.parent) as found:
        until(lambda: len(platform.instances(worker.name)) > before, 60, "the worker has joined")
        yield found
