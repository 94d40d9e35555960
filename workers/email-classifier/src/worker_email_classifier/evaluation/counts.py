"""Counts right and wrong verdicts, and prints them as a table. Knows no model."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Verdicts = npt.NDArray[np.bool_]
Chances = npt.NDArray[np.float64]
_BINS = (0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 1.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Verdicts on `positive` messages that are of a type and `negative` ones that are not."""

    positive: int = 0
    negative: int = 0
    found: int = 0
    false: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            positive=self.positive + other.positive,
            negative=self.negative + other.negative,
            found=self.found + other.found,
            false=self.false + other.false,
        )

    @property
    def errors(self) -> int:
        return self.positive - self.found + self.false

    @property
    def accuracy(self) -> float:
        return 1.0 - self.errors / max(1, self.positive + self.negative)

    @property
    def precision(self) -> float | None:
        called = self.found + self.false
        return self.found / called if called and self.positive else None

    @property
    def recall(self) -> float | None:
        return self.found / self.positive if self.positive else None

    @property
    def false_rate(self) -> float:
        return self.false / max(1, self.negative)


def count(said: Verdicts, true: Verdicts) -> Counts:
    """Compare verdicts with the truth."""
    return Counts(
        positive=int(true.sum()),
        negative=int((~true).sum()),
        found=int((said & true).sum()),
        false=int((said & ~true).sum()),
    )


def line(split: str, who: str, counts: Counts) -> str:
    """Return one row of the table."""
    return (
        f"{split:<34}{who:<13}{counts.positive + counts.negative:>6}{counts.positive:>6}"
        f"{counts.accuracy:>10.3f}{_share(counts.precision):>11}{_share(counts.recall):>8}"
        f"{counts.false:>7} of {counts.negative:<5}{counts.false_rate:>7.2%}"
    )


HEAD = (
    f"{'split':<34}{'who':<13}{'n':>6}{'yes':>6}{'accuracy':>10}{'precision':>11}{'recall':>8}"
    f"{'false positives':>23}"
)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def reliability(chances: Chances, true: Verdicts, share: float) -> Iterator[str]:
    """Return one row per range of confidence: how many, how sure, how many of them were true."""
    weight = np.where(true, share / max(1, true.sum()), (1 - share) / max(1, (~true).sum()))
    yield f"{'confidence':<20}{'n':>7}{'mean':>8}{'was true':>10}\n"
    for low, high in pairwise(_BINS):
        inside = (chances >= low) & (chances < high)
        if inside.any():
            part = weight[inside] / weight[inside].sum()
            row = f"{low:.2f} to {min(high, 1.0):.2f}"
            yield (
                f"{row:<20}{inside.sum():>7}{part @ chances[inside]:>8.2f}"
                f"{part @ true[inside]:>10.2f}\n"
            )
