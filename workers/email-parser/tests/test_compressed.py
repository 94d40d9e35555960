"""Gzip streams: members, truncation, damage, bombs."""

import gzip
import io

import pytest
from worker_email_parser.compressed import RATIO_FREE, GzipStream, foreign_format
from worker_email_parser.errors import GzipDamagedError, GzipRatioError, GzipTruncatedError

TEXT = b"".join(b"line %d\n" % number for number in range(50_000))


def read(data, size=7_000):
    stream = GzipStream(io.BytesIO(data))
    return b"".join(iter(lambda: stream.read(size), b""))


def test_members_one_after_another_are_one_stream():
    assert read(gzip.compress(TEXT) + gzip.compress(b"more") + b"\0\0") == TEXT + b"more"


def test_a_file_cut_off_says_how_far_it_was_read():
    with pytest.raises(GzipTruncatedError, match="ends early") as caught:
        read(gzip.compress(TEXT)[:-3000])
    assert 0 < caught.value.offset < len(TEXT)


@pytest.mark.parametrize(
    "data", [gzip.compress(TEXT)[:500] + b"x" * 500, gzip.compress(TEXT) + b"junk"]
)
def test_a_damaged_file_is_refused(data):
    with pytest.raises(GzipDamagedError):
        read(data)


def test_a_bomb_is_refused_before_it_grows():
    with pytest.raises(GzipRatioError, match="grows more than 100 times") as caught:
        read(gzip.compress(b"\0" * (4 * RATIO_FREE)), size=1024 * 1024)
    assert caught.value.offset <= RATIO_FREE + 1024 * 1024


def test_other_compressions_are_named():
    assert foreign_format(b"BZh91AY") == "bzip2"
    assert foreign_format(b"From x") is None
