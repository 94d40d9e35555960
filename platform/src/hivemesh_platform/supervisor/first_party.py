"""Where our own packages come from: the checkout, or the wheels that the platform ships.

They are never looked up on an index, where anybody could publish the name.
"""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hivemesh_sdk.errors import FatalError

SDK = "hivemesh-sdk"
_WHEELS = Path(__file__).parent.parent / "wheels"


class WorkerEnvironmentError(FatalError):
    """The environment of a worker could not be built."""

    slug = "worker-environment-failed"


def sdk_source(project: Path | None, wheels: Path = _WHEELS) -> Path:
    """The folder or wheel of the SDK.

    Raises:
        WorkerEnvironmentError: there is neither.
    """
    if project is not None and (project / "plugin-sdk" / "pyproject.toml").is_file():
        return project / "plugin-sdk"
    editable = _editable()
    if editable is not None:
        return editable
    shipped = sorted(wheels.glob("hivemesh_sdk-*.whl"))
    if shipped:
        return shipped[-1]
    message = "the SDK's wheel is missing from this installation; install hivemesh-platform again"
    raise WorkerEnvironmentError(message)


def _editable() -> Path | None:
    """The folder that the running SDK is installed from, as PEP 610 records it."""
    try:
        text = distribution(SDK).read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    document = json.loads(text) if text else {}
    if not document.get("dir_info", {}).get("editable"):
        return None
    folder = Path(unquote(urlsplit(document["url"]).path))
    return folder if (folder / "pyproject.toml").is_file() else None
