"""Finds text that was decoded with the wrong character set, and puts it right where it can.

A reader that must guess reads UTF-8 as Windows-1252 ("cafÃ©"), or leaves U+FFFD where a byte has no
meaning. charset-normalizer is asked for such text alone: it costs milliseconds, and good mail is
most of the mail.
"""

import re

_TWICE_DECODED = re.compile("[\u00c2-\u00f4][\u0080-\u00bf\u0152-\u0178\u2013-\u2122]")
_ASK_FROM = 3  # one such pair may be meant
_SAMPLE = 2_000  # characters; enough to tell an alphabet, bounded cost
_LOST = "\ufffd"


def repaired(text: str) -> str:
    """Return text with a wrong decoding undone, or the same text where that gives no better one."""
    if text.isascii() or len(_TWICE_DECODED.findall(text, 0, _SAMPLE)) < _ASK_FROM:
        return text
    try:
        data = text.encode("cp1252")
    except UnicodeEncodeError:
        return text
    return _decoded(data) or text


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes  # noqa: PLC0415 - 20 ms that good mail does not pay

    best = from_bytes(data[:_SAMPLE], threshold=0.1).best()
    if best is None or best.could_be_from_charset[0] in {"cp1252", "latin_1"}:
        return None
    return data.decode(best.encoding, "replace")


def garbled_share(text: str) -> float:
    """Return how much of the text nobody can read, 0 to 1.

    Text that holds U+FFFD is measured by charset-normalizer's mess detection; other text is taken
    as readable.
    """
    sample = text[:_SAMPLE]
    lost = sample.count(_LOST)
    if not lost:
        return 0.0
    from charset_normalizer.md import mess_ratio  # noqa: PLC0415 - as above

    return min(1.0, lost / len(sample) + mess_ratio(sample, 1.0))
