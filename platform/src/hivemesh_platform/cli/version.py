"""What `hivemesh --version` prints."""

from importlib.metadata import version

from hivemesh_sdk.contracts.names import PROTOCOL


def text() -> str:
    """Versions of platform, SDK, API and wire protocol on one line."""
    return (
        f"hivemesh {version('hivemesh-platform')} (SDK {version('hivemesh-sdk')}, "
        f"API v1, protocol v{PROTOCOL})"
    )
