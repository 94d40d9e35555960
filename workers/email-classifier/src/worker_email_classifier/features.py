"""Turns messages into numbers for the linear model: one sparse row of words, one row of measures."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker_email_classifier.structure import NAMES, measure
from worker_email_classifier.text import Reading, own_words, subject_of
from worker_email_classifier.tokens import (
    BUCKET_BITS,
    DROPPED,
    Words,
    buckets,
    pairs,
    subject_words,
)

BUCKETS = 1 << BUCKET_BITS
_MOST_WORDS = 1_000  # of one body; bounds the cost of one message

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Rows for `count` messages: bucket `buckets[i]` is in row `rows[i]`, each at most once."""

    count: int
    rows: Integers
    buckets: Integers
    measures: Floats


class Extractor:
    """Reads messages in batches. Keeps nothing of them but the memo of word numbers."""

    def __init__(self) -> None:
        self._body = Words()
        self._subject = subject_words()

    def features(self, readings: list[Reading]) -> Features:
        """Return the features of a batch."""
        words: list[int] = []
        lengths: list[int] = []
        measures: list[list[float]] = []
        for reading in readings:
            subject = subject_of(reading.message).lower().encode("utf-8", "replace")
            numbers = self._subject.numbers(subject)
            numbers += self._body.numbers(subject)
            numbers += self._body.numbers(own_words(reading.lowered))[:_MOST_WORDS]
            words += numbers
            lengths.append(len(numbers))
            measures.append(measure(reading))
        rows, columns = _sparse(words, lengths)
        return Features(
            count=len(readings),
            rows=rows,
            buckets=columns,
            measures=np.asarray(measures, np.float32).reshape(len(readings), len(NAMES)),
        )


def _sparse(words: list[int], lengths: list[int]) -> tuple[Integers, Integers]:
    numbers = np.array(words, np.uint32)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    told = numbers != DROPPED
    numbers, rows = numbers[told], rows[told]
    together = rows[:-1] == rows[1:]
    keys = np.concatenate(
        (
            (rows << BUCKET_BITS) | buckets(numbers),
            (rows[:-1][together] << BUCKET_BITS) | buckets(pairs(numbers)[together]),
        )
    )
    keys.sort()  # np.unique costs seven times as much
    if len(keys):
        keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))]
    return keys >> BUCKET_BITS, keys & (BUCKETS - 1)
