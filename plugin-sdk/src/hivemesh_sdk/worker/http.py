"""`context.http`: requests to the outside, limited to what the manifest declares.

Internal targets need a rule under `egress` in the policy as well. The library behind it is loaded
by the first request, since most workers never leave the mesh.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from hivemesh_sdk.safeio.egress import Egress
from hivemesh_sdk.safeio.hops import FetchLimits, Response

if TYPE_CHECKING:
    from hivemesh_sdk.safeio.fetch import Fetcher


class Http:
    """Requests of one worker process; connections are used again for a few seconds."""

    def __init__(
        self, declared: Sequence[str], internal: Callable[[], Sequence[str]] = tuple
    ) -> None:
        self._declared = tuple(declared)
        self._internal = internal
        self._opened: tuple[str, ...] = ()
        self._fetcher: Fetcher | None = None

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        limits: FetchLimits | None = None,
    ) -> Response:
        """Send a request and return the whole answer, whatever its status.

        Raises:
            EgressDeniedError: the URL, a redirect or an address is not allowed.
            InvalidError: URL or headers cannot be sent; `FetchTooLargeError`: too much came.
            FetchFailedError: no complete answer came in time.
        """
        return self._current().request(method, url, headers=headers, content=content, limits=limits)

    async def request_async(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        limits: FetchLimits | None = None,
    ) -> Response:
        """Like `request`, for capabilities that run `inline`."""
        return await self._current().request_async(
            method, url, headers=headers, content=content, limits=limits
        )

    def _current(self) -> "Fetcher":
        """The fetcher of the present rules; a change of the policy drops its connections."""
        from hivemesh_sdk.safeio.fetch import Fetcher  # noqa: PLC0415 - loaded when it is used

        opened = tuple(self._internal())
        if self._fetcher is None or opened != self._opened:
            self._fetcher = Fetcher(Egress(self._declared, opened))
            self._opened = opened
        return self._fetcher


NO_HTTP = Http(())
