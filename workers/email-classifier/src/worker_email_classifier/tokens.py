"""Turns words into numbers: CRC-32 of each normalised word, hashed again for pairs of words.

No word is kept: a model knows bucket numbers. Addresses, host names, numbers and dates are either
replaced by one number for their kind or dropped, so that nothing personal and nothing that belongs
to one archive becomes evidence.
"""

import re
from zlib import crc32

import numpy as np
import numpy.typing as npt

BUCKET_BITS = 18
_MEMO_ENTRIES = 60_000  # about 8 MiB
_SPACES = bytes.maketrans(b',;()[]{}<>"*|~`^', b" " * 16)
_NOT_LETTERS = bytes(set(range(128)) - set(b"abcdefghijklmnopqrstuvwxyz"))
_HOST = re.compile(rb"(?:[\w-]{2,}\.)+[a-z]{2,6}[.:/?!]*")
_CALENDAR = frozenset(
    b"mon tue tues wed thu thur thurs fri sat sun monday tuesday wednesday thursday friday saturday"
    b" sunday jan feb mar apr may jun jul aug sep sept oct nov dec january february march april"
    b" june july august september october november december gmt utc est edt cst cdt mst mdt pst pdt"
    b" cet cest bst ist am pm".split()
)
DROPPED = 0
_ADDRESS, _LINK, _PERCENT = 1, 2, 3
_MONEY = 8  # plus the number of digits
_SUBJECT = b"s:"


class Words(dict[bytes, int]):
    """Remembers the number of every word seen, so that only new words are looked at."""

    def __init__(self, salt: bytes = b"") -> None:
        super().__init__()
        self._salt = salt

    def __missing__(self, word: bytes) -> int:
        if len(self) >= _MEMO_ENTRIES:
            self.clear()
        number = _number(word, self._salt)
        self[word] = number
        return number

    def numbers(self, text: bytes) -> list[int]:
        """Return one number per word of a lower-case text, 0 for a word that is no evidence."""
        return list(map(self.__getitem__, text.translate(_SPACES).split()))


def subject_words() -> Words:
    """Return a memo whose numbers differ from those of the same words in a body."""
    return Words(_SUBJECT)


def _number(word: bytes, salt: bytes) -> int:
    if b"@" in word:
        return _ADDRESS
    if b"://" in word or word.startswith(b"www.") or _HOST.fullmatch(word):
        return _LINK
    digits = sum(48 <= byte < 58 for byte in word)
    if digits:
        return _figure(word, digits)
    letters = word.translate(None, _NOT_LETTERS)
    if not 2 <= len(letters) <= 24 or letters in _CALENDAR:
        return DROPPED
    return crc32(salt + letters) | 16  # 0 to 15 are the kinds above


def _figure(word: bytes, digits: int) -> int:
    if b"$" in word or b"\xc2\xa3" in word or b"\xe2\x82\xac" in word:
        return _MONEY + min(digits, 7)
    return _PERCENT if b"%" in word else DROPPED


def pairs(numbers: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Hash each number with the one that follows it."""
    mixed = numbers[:-1] * np.uint32(0x9E3779B1) ^ numbers[1:] * np.uint32(0x85EBCA77)
    return np.asarray(mixed ^ (mixed >> np.uint32(15)), np.uint32)


def buckets(numbers: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Fold numbers into the model's buckets."""
    folded = numbers ^ (numbers >> np.uint32(BUCKET_BITS))
    return (folded & np.uint32((1 << BUCKET_BITS) - 1)).astype(np.int64)
