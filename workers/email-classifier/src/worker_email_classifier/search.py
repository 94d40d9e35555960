"""Finds which of many phrases a text holds, for the cost of searching for a few of them.

A phrase can be in a text only if its groups of four bytes are. Those of the text are noted in a
table once; only phrases of which some groups are noted there are searched for.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

_GROUP = 4  # bytes
_LOOKED_UP = 6  # groups of a phrase; with more of them hardly a phrase less is searched for
_TABLE = 1 << 14  # a body of 6,000 bytes fills a fifth of it
_FIRST, _SECOND = np.uint16(59), np.uint16(1657)


class Finder:
    """Holds the phrases and where in the table their groups are."""

    def __init__(self, phrases: Iterable[bytes]) -> None:
        """Take phrases of at least four bytes."""
        self._phrases = sorted(phrases)
        places = [_spread(_groups(phrase)) for phrase in self._phrases]
        self._places = np.array(places).T.copy()

    def found_in(self, text: bytes) -> set[bytes]:
        """Return the phrases that the text holds."""
        if len(text) < _GROUP:
            return set()
        noted = np.zeros(_TABLE, np.bool_)
        noted[_groups(text)] = True
        (possible,) = np.logical_and.reduce(noted[self._places]).nonzero()
        phrases = map(self._phrases.__getitem__, possible.tolist())
        return {phrase for phrase in phrases if phrase in text}


def _groups(text: bytes) -> npt.NDArray[np.intp]:
    """Hash each group of four bytes to a place in the table."""
    letters = np.frombuffer(text, np.uint8).astype(np.uint16)
    twos = letters[:-1] * _FIRST ^ letters[1:]
    fours = (twos[:-2] * _SECOND ^ twos[2:]) & np.uint16(_TABLE - 1)
    return fours.astype(np.intp)  # an index of another type costs numpy more than this


def _spread(groups: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Choose groups from all over a phrase, some twice where it is short."""
    return groups[np.linspace(0, len(groups) - 1, _LOOKED_UP).round().astype(np.intp)]
