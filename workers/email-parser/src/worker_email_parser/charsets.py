"""Turns bytes of a declared, wrong or unknown character set into text. Never raises."""

import codecs
import re
from functools import lru_cache
from typing import Final

import charset_normalizer

GUESS_BYTES: Final = (
    512  # what the guess looks at: 2-3 ms; four times as much costs four times the time
)
_LOOKED_AT: Final = 32 * GUESS_BYTES
_RUNS = re.compile(rb"[\x80-\xff]{2,}")
_GUESS_AMONG: Final = [
    "big5",
    "cp1250",
    "cp1251",
    "cp1252",
    "cp1253",
    "cp1255",
    "cp1256",
    "euc_jp",
    "euc_kr",
    "gb18030",
    "koi8_r",
    "shift_jis",
]
# WHATWG: what is labelled so is in fact written in the superset
_SUPERSETS: Final = {
    "ascii": "",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "tis-620": "cp874",
    "iso8859-8-i": "iso8859-8",
}
_ALIASES: Final = {"iso-8859-8-i": "iso8859-8", "x-sjis": "cp932", "ks_c_5601-1987": "cp949"}
_HIGH: Final = bytes(range(128, 256))
_UNDECLARED: Final = frozenset(
    {"", "unknown", "unknown-8bit", "x-unknown", "default", "none", "8bit"}
)
_NO_CHARSETS: Final = frozenset(
    {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"}
)


@lru_cache(maxsize=512)
def codec_name(label: str) -> str | None:
    """Return the codec for a declared label: "" where it says nothing, None where it is unknown."""
    label = label.strip().strip("'\"").lower()
    if label in _UNDECLARED:
        return ""
    try:
        info = codecs.lookup(_ALIASES.get(label, label))
    except (LookupError, ValueError, UnicodeError):
        return None
    if info.name in _NO_CHARSETS or not getattr(info, "_is_text_encoding", True):
        return None
    return _SUPERSETS.get(info.name, info.name)


def decode(data: bytes, label: str | None, defects: list[str]) -> str:
    """Decode `data`, labelled `label`; note in `defects` what was not as declared."""
    if data.isascii() and (label is None or not _escapes(label)):
        return data.decode("ascii")
    codec = "" if label is None else codec_name(label)
    if codec is None:
        defects.append("charset-unknown")
    elif codec:
        return _decode_declared(data, codec, defects)
    else:
        defects.append("charset-undeclared")
    return _decode_undeclared(data)


@lru_cache(maxsize=512)
def _escapes(label: str) -> bool:
    """Say whether ASCII bytes may mean other characters under this label."""
    return label.lower().startswith(
        ("iso-2022", "utf-7", "utf7", "utf-16", "utf-32", "hz", "cp037")
    )


def _decode_declared(data: bytes, codec: str, defects: list[str]) -> str:
    try:
        text = data.decode(codec)
    except UnicodeError:
        defects.append("charset-wrong")
    else:
        # utf-7 and utf-16 may carry half a surrogate pair, which no JSON can
        return text if codec.startswith("utf-8") else _without_surrogates(text)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _without_surrogates(data.decode(codec, "replace"))


def _without_surrogates(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _decode_undeclared(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode(_guess(_sample(data)), "replace")


def _sample(data: bytes) -> bytes:
    """Take what there is to judge by: whole lines, so that no character is cut in two."""
    lines: list[bytes] = []
    size = 0
    for line in data[:_LOOKED_AT].splitlines():
        if not line.isascii():
            lines.append(line[:GUESS_BYTES])
            size += len(line)
            if size >= GUESS_BYTES:
                break
    return b"\n".join(lines)


@lru_cache(maxsize=256)
def _guess(sample: bytes) -> str:
    """Name the most probable character set of a text that is not UTF-8.

    Accents stand alone among ASCII letters; letters of another alphabet stand together.
    """
    together = sum(len(run) for run in _RUNS.findall(sample))
    if together < 4 or 2 * together < len(sample) - len(sample.translate(None, _HIGH)):
        return "cp1252"
    best = charset_normalizer.from_bytes(
        sample,
        steps=1,
        chunk_size=256,
        cp_isolation=_GUESS_AMONG,
        preemptive_behaviour=False,
    ).best()
    return best.encoding if best is not None else "cp1252"
