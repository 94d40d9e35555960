"""Fits the linear model and its calibration with numpy alone. Same input, same weights."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker_email_classifier.features import BUCKETS, Features
from worker_email_classifier.model import scaled

Vector = npt.NDArray[np.float64]
Objective = Callable[[Vector], tuple[float, Vector]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """How strongly weights are held near zero, and how many messages a bucket must occur in."""

    words: float
    measures: float
    least_messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Weights of word buckets, of measures, and the constant."""

    words: Vector
    measures: Vector
    constant: float

    def scores(self, features: Features) -> Vector:
        values = self.words[features.buckets] * scaled(features)
        sums = np.bincount(features.rows, values, features.count)
        return np.asarray(sums + features.measures @ self.measures + self.constant, np.float64)


def logistic(
    features: Features, spam: npt.NDArray[np.bool_], weight: Vector, penalty: Penalty
) -> Linear:
    """Fit a logistic regression with an L2 penalty by L-BFGS."""
    seen = np.bincount(features.buckets, minlength=BUCKETS)
    kept = np.flatnonzero(seen >= penalty.least_messages)
    place = np.full(BUCKETS, -1)
    place[kept] = np.arange(len(kept))
    known = place[features.buckets] >= 0
    rows, columns = features.rows[known], place[features.buckets][known]
    values = scaled(features)[known]
    measures = features.measures.astype(np.float64)
    sign = np.where(spam, 1.0, -1.0)
    cut = len(kept)
    strength = np.concatenate(
        (np.full(cut, penalty.words), np.full(measures.shape[1], penalty.measures), [0.0])
    )
    share = weight / weight.sum()

    def objective(point: Vector) -> tuple[float, Vector]:
        linear = np.bincount(rows, point[columns] * values, features.count)
        linear += measures @ point[cut:-1] + point[-1]
        margin = sign * linear
        loss = share @ np.logaddexp(0.0, -margin) + 0.5 * (strength @ point**2)
        pull = -share * sign / (1.0 + np.exp(np.clip(margin, -500, 500)))
        slope = np.concatenate(
            (np.bincount(columns, pull[rows] * values, cut), measures.T @ pull, [pull.sum()])
        )
        return float(loss), slope + strength * point

    point = minimum(objective, np.zeros(len(strength)))
    words = np.zeros(BUCKETS)
    words[kept] = point[:cut]
    return Linear(words=words, measures=point[cut:-1], constant=float(point[-1]))


def minimum(objective: Objective, point: Vector, steps: int = 120, memory: int = 8) -> Vector:
    """Return the lowest point of a smooth convex function by L-BFGS with halved steps."""
    history: deque[tuple[Vector, Vector]] = deque(maxlen=memory)
    value, slope = objective(point)
    for _ in range(steps):
        direction = -_curved(slope, history)
        size, falls = (
            1.0 if history else 1.0 / max(1e-12, float(np.abs(slope).sum())),
            slope @ direction,
        )
        while True:
            moved = point + size * direction
            lower, next_slope = objective(moved)
            if lower <= value + 1e-4 * size * falls or size < 1e-12:
                break
            size *= 0.5
        change = (moved - point, next_slope - slope)
        if change[0] @ change[1] > 1e-14:
            history.append(change)
        settled = value - lower < 1e-9 * max(1.0, abs(value))
        point, value, slope = moved, lower, next_slope
        if settled:
            break
    return point


def _curved(slope: Vector, history: deque[tuple[Vector, Vector]]) -> Vector:
    result = slope.copy()
    factors = []
    for moved, turned in reversed(history):
        factor = (moved @ result) / (moved @ turned)
        result -= factor * turned
        factors.append(factor)
    if history:
        moved, turned = history[-1]
        result *= (moved @ turned) / (turned @ turned)
    for (moved, turned), factor in zip(history, reversed(factors), strict=True):
        result += moved * (factor - (turned @ result) / (moved @ turned))
    return result


def platt(scores: Vector, spam: npt.NDArray[np.bool_], weight: Vector) -> tuple[float, float]:
    """Fit slope and offset that turn a score into a probability (Platt, 1999)."""
    good, bad = float((~spam).sum()), float(spam.sum())
    target = np.where(spam, (bad + 1) / (bad + 2), 1 / (good + 2))
    share = weight / weight.sum()

    def objective(point: Vector) -> tuple[float, Vector]:
        linear = point[0] * scores + point[1]
        loss = share @ (np.logaddexp(0.0, linear) - target * linear)
        pull = share * (1.0 / (1.0 + np.exp(np.clip(-linear, -500, 500))) - target)
        return float(loss), np.array([pull @ scores, pull.sum()])

    slope, offset = minimum(objective, np.array([1.0, 0.0]))
    return float(slope), float(offset)
