"""Framing of steps and pages: one JSON line, then as many bytes of body as the line says.

The reader never parses a body, so the platform hands the same bytes on.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from hivemesh_sdk.contracts.steps import (
    Event,
    MemberEvent,
    RecordsEvent,
    ResultEvent,
    StepRequest,
)
from hivemesh_sdk.contracts.unreadable import UNREADABLE

MAX_LINE_BYTES = 1024 * 1024

_WITH_BODY = (
    RecordsEvent,
    MemberEvent,
    ResultEvent,
)  # a tuple: a union is taken apart at each check
_encode = msgspec.json.Encoder().encode
_decode_event = msgspec.json.Decoder(Event).decode
_decode_request = msgspec.json.Decoder(StepRequest).decode


class FramingError(ValueError):
    """The bytes do not follow the framing: a line is malformed or a body is cut short."""


class Frame(NamedTuple):
    """An event and the bytes that follow its line."""

    event: Event
    body: bytes = b""


def encode_request(request: StepRequest, bodies: Sequence[bytes] = ()) -> list[bytes]:
    """Frame a step request; `bodies` are the inline inputs in order."""
    return [_encode(request), b"\n", *bodies]


def decode_request(data: bytes) -> tuple[StepRequest, list[bytes | None]]:
    """Split a request into its document and, per input, the inline bytes or None.

    Raises:
        FramingError: the first line is no step request or an inline input is cut short.
    """
    line, start = _line(data, 0)
    try:
        request = _decode_request(line)
    except UNREADABLE as error:
        message = f"the first line is no step request: {error}"
        raise FramingError(message) from error
    inputs: list[bytes | None] = []
    for part in request.inputs:
        if part.bytes is None:
            inputs.append(None)
            continue
        body = data[start : start + part.bytes]
        if len(body) != part.bytes:
            message = "an inline input is cut short"
            raise FramingError(message)
        inputs.append(body)
        start += part.bytes
    if start != len(data):
        message = f"{len(data) - start} bytes follow the last input"
        raise FramingError(message)
    return request, inputs


def encode_event(frame: Frame) -> list[bytes]:
    """Frame one event; its `bytes` field must equal the length of the body."""
    return [_encode(frame.event), b"\n", frame.body]


def decode_page(data: bytes) -> Iterator[Frame]:
    """Yield the frames of a page in order.

    Raises:
        FramingError: a line is no event or a body is cut short.
    """
    start = 0
    while start < len(data):
        line, start = _line(data, start)
        try:
            event = _decode_event(line)
        except UNREADABLE as error:
            message = f"a line of the page is no event: {error}"
            raise FramingError(message) from error
        end = start
        if isinstance(event, _WITH_BODY):
            end += event.bytes or 0
            if not start <= end <= len(data):
                message = f"the body of event {event.no} is cut short"
                raise FramingError(message)
        yield Frame(event, data[start:end])
        start = end


def _line(data: bytes, start: int) -> tuple[bytes, int]:
    end = data.find(b"\n", start, start + MAX_LINE_BYTES)
    if end < 0:
        message = "a line is longer than 1 MiB or does not end"
        raise FramingError(message)
    return data[start:end], end + 1
