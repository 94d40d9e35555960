"""Where our own packages come from: the checkout, or the wheels that the platform ships.

They are never looked up on an index, where anybody could publish the name.
"""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hivemesh_sdk.errors import FatalError
from packaging.utils import parse_wheel_filename
from packaging.version import Version

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
    newest = max(wheels.glob("hivemesh_sdk-*.whl"), key=_version, default=None)
    if newest is None:
        message = (
            "the SDK's wheel is missing from this installation; "
            "install hivemesh-platform again, from a wheel that `make build` made"
        )
        raise WorkerEnvironmentError(message)
    return newest


def _version(wheel: Path) -> Version:
    return parse_wheel_filename(wheel.name)[1]


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
