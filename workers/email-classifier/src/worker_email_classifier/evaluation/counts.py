"""Counts right and wrong verdicts, and prints them as a table. Knows no model."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Verdicts = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Verdicts on `good` good and `spam` unwanted messages."""

    spam: int = 0
    good: int = 0
    found: int = 0
    false: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            spam=self.spam + other.spam,
            good=self.good + other.good,
            found=self.found + other.found,
            false=self.false + other.false,
        )

    @property
    def errors(self) -> int:
        return self.spam - self.found + self.false

    @property
    def accuracy(self) -> float:
        return 1.0 - self.errors / max(1, self.spam + self.good)

    @property
    def precision(self) -> float | None:
        called = self.found + self.false
        return self.found / called if called and self.spam else None

    @property
    def recall(self) -> float | None:
        return self.found / self.spam if self.spam else None

    @property
    def false_rate(self) -> float:
        return self.false / max(1, self.good)


def count(said: Verdicts, true: Verdicts) -> Counts:
    """Compare verdicts with the truth."""
    return Counts(
        spam=int(true.sum()),
        good=int((~true).sum()),
        found=int((said & true).sum()),
        false=int((said & ~true).sum()),
    )


def line(split: str, who: str, counts: Counts) -> str:
    """Return one row of the table."""
    return (
        f"{split:<26}{who:<13}{counts.spam + counts.good:>6}{counts.spam:>6}"
        f"{counts.accuracy:>10.3f}{_share(counts.precision):>11}{_share(counts.recall):>8}"
        f"{counts.false:>7} of {counts.good:<5}{counts.false_rate:>7.2%}"
    )


HEAD = (
    f"{'split':<26}{'who':<13}{'n':>6}{'spam':>6}{'accuracy':>10}{'precision':>11}{'recall':>8}"
    f"{'false positives':>23}"
)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
