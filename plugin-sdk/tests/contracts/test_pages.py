"""The framing of requests and pages: one line of JSON, then as many bytes as it says."""

import hashlib

import msgspec
import pytest
from hivemesh_sdk.contracts.pages import (
    Frame,
    FramingError,
    decode_page,
    decode_request,
    encode_event,
    encode_request,
)
from hivemesh_sdk.contracts.steps import (
    InputPart,
    LogEvent,
    ProgressEvent,
    RecordsEvent,
    ResultEvent,
    StepRequest,
)
from hypothesis import given
from hypothesis import strategies as st


def request(*inputs: InputPart) -> StepRequest:
    return StepRequest(
        capability="text.count@1", kind="map", attempt=1, epoch=1, inputs=list(inputs)
    )


def records(no: int, body: bytes) -> Frame:
    digest = hashlib.sha256(body).hexdigest()
    count = body.count(b"\n")
    return Frame(RecordsEvent(no=no, count=count, sha256=digest, bytes=len(body)), body)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_a_request_comes_back_with_its_inputs(bodies):
    sent = request(*(InputPart(bytes=len(body)) for body in bodies))
    assert decode_request(b"".join(encode_request(sent, bodies))) == (sent, bodies)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_a_page_comes_back_whatever_its_bodies_hold(bodies):
    frames = [records(no, body) for no, body in enumerate(bodies, 1)]
    frames.append(Frame(ResultEvent(no=len(frames) + 1)))
    page = b"".join(chunk for frame in frames for chunk in encode_event(frame))
    assert list(decode_page(page)) == frames


def test_inputs_by_reference_have_no_bytes():
    sent = request(InputPart(count=2), InputPart(bytes=1))
    _, bodies = decode_request(b"".join(encode_request(sent, [b"x"])))
    assert bodies == [None, b"x"]


def test_members_that_a_reader_does_not_know_are_ignored():
    line = msgspec.json.encode({**msgspec.to_builtins(request()), "later": 1})
    assert decode_request(line + b"\n")[0] == request()
    page = b'{"type":"progress","no":1,"done":2,"later":{}}\n'
    assert next(decode_page(page)).event == ProgressEvent(no=1, done=2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}\n",
        b"{",
        b'{"capability":"a.b@1","kind":"dance","attempt":1,"epoch":1}\n',
        b'{"parameters":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}\n",
        b'{"capability":"\xff","kind":"call","attempt":1,"epoch":1}\n',
        b"x" * (1024 * 1024 + 1) + b"\n",
    ],
)
def test_what_is_no_request_is_refused(data):
    with pytest.raises(FramingError):
        decode_request(data)


@pytest.mark.parametrize("body", [b"ab", b"abcd"])
def test_an_input_of_another_length_is_refused(body):
    head, line_feed = encode_request(request(InputPart(bytes=3)))
    with pytest.raises(FramingError):
        decode_request(head + line_feed + body)


@pytest.mark.parametrize("data", [b"\n", b'{"type":"dance","no":1}\n', b'{"type":"log"'])
def test_what_is_no_event_is_refused(data):
    with pytest.raises(FramingError):
        list(decode_page(data))


def test_a_body_that_is_cut_short_is_refused():
    page = b"".join(encode_event(records(1, b"abc\n")))
    with pytest.raises(FramingError, match="event 1 is cut short"):
        list(decode_page(page[:-1]))


def test_a_negative_length_is_refused():
    page = b'{"type":"result","no":1,"bytes":-5}\n{}'
    with pytest.raises(FramingError):
        list(decode_page(page))


def test_events_before_a_broken_one_are_given():
    page = b"".join(encode_event(Frame(LogEvent(no=1, level="info", message="x"))))
    frames = decode_page(page + b"{\n")
    assert next(frames).event.no == 1
    with pytest.raises(FramingError):
        next(frames)
