"""Masks the values of secrets in what a process writes: the second line, behind `Secret`.

A value is known raw, as JSON writes it, in base64 (also inside a longer text), in hexadecimal
and as part of a URL. Values of fewer than four bytes are not masked: they are part of any text.
What refuses an answer looks for values of at least eight bytes, for the same reason.
"""

import base64
import json
import re
import threading
from collections import Counter, deque
from typing import TextIO
from urllib.parse import quote, quote_plus

MASK = "***"
_LEAST_BYTES = 4
_LEAST_TELLING_BYTES = 8
_RETIRED = 16  # values of ended leases that are still masked: a line about them may come late


class Redactor:
    """The secrets that are in use in a process; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[str] = Counter()
        self._retired: deque[str] = deque(maxlen=_RETIRED)
        self._text: re.Pattern[str] | None = None
        self._masked: tuple[bytes, ...] = ()
        self._sought: tuple[bytes, ...] = ()

    def add(self, value: str) -> None:
        """Mask a value until it was removed as often as it was added."""
        with self._lock:
            self._values[value] += 1
            self._compile()

    def remove(self, value: str) -> None:
        """Take back one `add`."""
        with self._lock:
            self._drop(value)
            self._compile()

    def retire(self, value: str) -> None:
        """Take back one `add`, and mask the value in texts for a while yet."""
        with self._lock:
            self._drop(value)
            if value not in self._retired:
                self._retired.append(value)
            self._compile()

    def clear(self) -> None:
        """Forget every value."""
        with self._lock:
            self._values.clear()
            self._retired.clear()
            self._compile()

    def masked(self, text: str) -> str:
        """The text with a mask in place of each secret."""
        pattern = self._text
        return text if pattern is None else pattern.sub(MASK, text)

    def masked_bytes(self, data: bytes) -> bytes:
        """The same for JSON or any other bytes."""
        for form in self._masked:
            if form in data:
                data = data.replace(form, MASK.encode())
        return data

    def finds(self, data: bytes) -> bool:
        """Whether the bytes hold a secret that is lent at the moment, in any of its forms."""
        return any(form in data for form in self._sought)

    def _drop(self, value: str) -> None:
        self._values[value] -= 1
        if self._values[value] <= 0:
            del self._values[value]

    @property
    def seeks_any(self) -> bool:
        """Whether a secret is lent that `finds` looks for."""
        return bool(self._sought)

    @property
    def longest(self) -> int:
        """Bytes of the longest form that `finds` looks for."""
        return max(map(len, self._sought), default=0)

    def _compile(self) -> None:
        found = {form for value in (*self._values, *self._retired) for form in forms(value)}
        longest = sorted(found, key=len, reverse=True)
        self._text = re.compile("|".join(map(re.escape, longest))) if longest else None
        self._masked = tuple(one.encode() for one in longest)
        telling = [one for one in self._values if len(one.encode()) >= _LEAST_TELLING_BYTES]
        self._sought = tuple(form.encode() for value in telling for form in forms(value))


class MaskedStream:
    """A text stream that masks what is written to it; everything else is the stream's own."""

    def __init__(self, stream: TextIO, redactor: Redactor) -> None:
        self._stream = stream
        self._redactor = redactor

    def write(self, text: str) -> int:
        """Write the masked text."""
        self._stream.write(self._redactor.masked(text))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def forms(value: str) -> frozenset[str]:
    """The forms in which a value may stand in a text."""
    raw = value.encode()
    if len(raw) < _LEAST_BYTES:
        return frozenset()
    found = {value, quote(value, safe=""), quote(value), quote_plus(value), raw.hex()}
    found |= {raw.hex().upper(), json.dumps(value)[1:-1], repr(value)[1:-1]}
    found.add(json.dumps(value, ensure_ascii=False)[1:-1])
    found |= {_lower_escapes(one) for one in (quote(value, safe=""), quote(value))}
    for offset in range(3):
        found |= _base64(raw, offset)
    return frozenset(one for one in found if len(one) >= _LEAST_BYTES)


def _base64(raw: bytes, offset: int) -> set[str]:
    """The characters of base64 that depend on the value alone, `offset` bytes behind a triple."""
    first = {0: 0, 1: 2, 2: 3}[offset]
    whole = (offset + len(raw)) // 3 * 4
    rest = {0: 0, 1: 1, 2: 2}[(offset + len(raw)) % 3]
    padded = bytes(offset) + raw
    return {
        encode(padded).decode()[first : whole + rest]
        for encode in (base64.b64encode, base64.urlsafe_b64encode)
    }


def _lower_escapes(text: str) -> str:
    return re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), text)


REDACTOR = Redactor()  # of this process: a log line does not know whose secret it might hold
