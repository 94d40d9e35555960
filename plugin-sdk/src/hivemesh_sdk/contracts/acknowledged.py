"""Recorded answers as a request names them, so that the worker need not keep them any longer."""

from collections.abc import Iterable, Iterator

MOST = 32  # in one request


def acknowledgement(steps: Iterable[tuple[str, int]]) -> str:
    """The value of the header for steps by key and attempt."""
    return ",".join(f"{key}:{attempt}" for key, attempt in steps)


def acknowledged_in(value: bytes) -> Iterator[tuple[str, int]]:
    """Keys and attempts that the header names; what is not of its form says nothing."""
    for part in value.split(b",")[:MOST]:
        key, _, attempt = part.decode("latin-1").strip().rpartition(":")
        if attempt.isascii() and attempt.isdigit() and len(attempt) <= 9:
            yield key, int(attempt)
