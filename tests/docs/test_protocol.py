"""The examples of the protocol's page are what the framing says."""

import hashlib
import re
from pathlib import Path

import msgspec
import pytest
from hivemesh_sdk.contracts import names, steps
from hivemesh_sdk.contracts.pages import decode_page, decode_request
from hivemesh_sdk.contracts.problems import CATALOGUE, Problem
from hivemesh_sdk.contracts.steps import RecordsEvent, ResultEvent

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "protocol.md"
TEXT = PAGE.read_text(encoding="utf-8")


def examples(language: str) -> list[bytes]:
    return [block.encode() for block in re.findall(rf"```{language}\n(.*?\n)```", TEXT, re.DOTALL)]


@pytest.mark.parametrize("example", examples("hivemesh-request"))
def test_a_request_in_the_text_is_one(example):
    request, bodies = decode_request(example)
    assert [body.count(b"\n") for body in bodies] == [part.count for part in request.inputs]


@pytest.mark.parametrize("example", examples("hivemesh-page"))
def test_a_page_in_the_text_is_one(example):
    *_, last_line = example.splitlines(keepends=True)
    if not last_line.startswith(b'{"type"'):
        example = example[:-1]  # a body that ends without a line feed
    frames = list(decode_page(example))
    for frame in frames:
        if isinstance(frame.event, RecordsEvent | ResultEvent) and frame.body:
            assert frame.event.sha256 == hashlib.sha256(frame.body).hexdigest()
    assert len(frames) == example.count(b'{"type"') - example.count(b'"problem":{"type"')


@pytest.mark.parametrize("example", examples("json"))
def test_a_problem_in_the_text_is_one(example):
    assert msgspec.json.decode(example, type=Problem).code == "HM-1206"


def test_every_slug_of_the_text_is_in_the_catalogue():
    refused = re.findall(r"\b4\d\d `([a-z-]+)`|\b5\d\d `([a-z-]+)`", TEXT)
    assert {first or second for first, second in refused} <= set(CATALOGUE)


def test_the_statuses_of_the_text_are_those_of_the_catalogue():
    for status, slug in re.findall(r"\b([45]\d\d) `([a-z-]+)`", TEXT):
        assert CATALOGUE[slug].status == int(status), slug


def test_limits_are_those_of_the_code():
    mebibyte = 1024 * 1024
    assert 8 * mebibyte == steps.MAX_PAGE_BYTES
    assert 4 * mebibyte == steps.MAX_RECORD_BYTES
    assert steps.LARGE_FIELD_BYTES == 256 * 1024
    assert (steps.Limits().records, steps.Limits().seconds) == (500, 1.0)
    assert steps.MAX_WAIT_S == 20.0


@pytest.mark.parametrize(
    "header", [names.EXECUTION_HEADER, names.DEADLINE_HEADER, names.TICKET_HEADER, "x-request-id"]
)
def test_every_header_is_described(header):
    assert f"`{header}" in TEXT.lower()
