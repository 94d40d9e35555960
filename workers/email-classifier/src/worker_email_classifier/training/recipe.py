"""The way from labelled messages to a model: weights, folds, calibration, file."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from worker_email_classifier.features import Extractor, Features
from worker_email_classifier.model import Model, dump, load
from worker_email_classifier.text import read
from worker_email_classifier.training import corpus
from worker_email_classifier.training.corpus import Example
from worker_email_classifier.training.fit import Linear, Penalty, Vector, logistic, platt
from worker_email_classifier.training.written import written

PENALTY = Penalty(words=3e-4, measures=1e-2, least_messages=3)
SPAM_SHARE = 1 / 3  # the share of spam for which the probabilities are right
FOLDS = 4
WRITTEN = "written-"
_WRITTEN_WEIGHT = 8.0  # 56 messages stand for the kinds of mail that the archives lack
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A fitted model and how it was calibrated."""

    linear: Linear
    slope: float
    offset: float
    good: int
    spam: int

    def file(self, header: dict[str, object]) -> bytes:
        """Return the model file."""
        constants = {
            "constant": self.linear.constant,
            "slope": self.slope,
            "offset": self.offset,
            "type": "spam",
            "spam_share": SPAM_SHARE,
            "trained_on": {"good": self.good, "spam": self.spam},
            "penalty": {"words": PENALTY.words, "measures": PENALTY.measures},
            "least_messages": PENALTY.least_messages,
        }
        return dump(self.linear.words, self.linear.measures, {**constants, **header})

    def model(self) -> Model:
        """Return the model as a worker would load it, rounded weights included."""
        return load(self.file({}))


def written_examples(*, without: str = "") -> list[Example]:
    """Return the written good mail, each type a source of its own."""
    return [
        Example(message=message, spam=False, source=WRITTEN + kind, arrived=0)
        for kind, message in written()
        if kind != without
    ]


def training_set(root: Path) -> list[Example]:
    """Return everything that the shipped model is trained on, copies left out."""
    lists = corpus.r_lists(root, "r-announce") + corpus.r_lists(root, "r-devel")
    return corpus.unlike(corpus.spamassassin(root) + lists, []) + written_examples()


def train(examples: list[Example]) -> Trained:
    """Fit on all examples; calibrate on scores that each source got from a fit without it."""
    features = extract(examples)
    spam = np.array([bool(example.spam) for example in examples])
    weight = weights(examples)
    fold = folds(examples)
    scores = np.empty(len(examples))
    for part in range(FOLDS):
        out = fold == part
        linear = logistic(rows_of(features, ~out), spam[~out], weight[~out], PENALTY)
        scores[out] = linear.scores(rows_of(features, out))
    slope, offset = platt(scores, spam, _at_share(weight, spam))
    return Trained(
        linear=logistic(features, spam, weight, PENALTY),
        slope=slope,
        offset=offset,
        good=int((~spam).sum()),
        spam=int(spam.sum()),
    )


def extract(examples: list[Example]) -> Features:
    """Return the features of many examples."""
    extractor = Extractor()
    parts = [
        extractor.features([read(example.message) for example in examples[start : start + _BATCH]])
        for start in range(0, len(examples), _BATCH)
    ]
    return Features(
        count=len(examples),
        rows=np.concatenate([part.rows + _BATCH * place for place, part in enumerate(parts)]),
        buckets=np.concatenate([part.buckets for part in parts]),
        measures=np.concatenate([part.measures for part in parts]),
    )


def weights(examples: list[Example]) -> Vector:
    """Weigh good mail by the root of its source's size, so that no archive speaks for all mail."""
    sizes = Counter(example.source for example in examples if not example.spam)
    weight = np.array([1.0 if example.spam else _weight(example, sizes) for example in examples])
    spam = np.array([bool(example.spam) for example in examples])
    weight[spam] /= weight[spam].sum()
    weight[~spam] /= weight[~spam].sum()
    return weight


def _weight(example: Example, sizes: Counter[str]) -> float:
    more = _WRITTEN_WEIGHT if example.source.startswith(WRITTEN) else 1.0
    return float(more * sizes[example.source] ** -0.5)


def _at_share(weight: Vector, spam: npt.NDArray[np.bool_]) -> Vector:
    return weight * np.where(spam, SPAM_SHARE, 1.0 - SPAM_SHARE)


def folds(examples: list[Example]) -> npt.NDArray[np.int64]:
    """Put whole sources of good mail, and whole periods of spam, into one fold each."""
    sizes = Counter(example.source for example in examples if not example.spam)
    filled = [0] * FOLDS
    place: dict[str, int] = {}
    for source, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        place[source] = min(range(FOLDS), key=lambda part: (filled[part], part))
        filled[place[source]] += size
    fold = np.array([0 if example.spam else place[example.source] for example in examples])
    times = [(example.arrived, at) for at, example in enumerate(examples) if example.spam]
    for order, (_, at) in enumerate(sorted(times)):
        fold[at] = order * FOLDS // len(times)
    return fold


def rows_of(features: Features, chosen: npt.NDArray[np.bool_]) -> Features:
    """Return the chosen rows as features of their own."""
    place = np.cumsum(chosen) - 1
    kept = chosen[features.rows]
    return Features(
        count=int(chosen.sum()),
        rows=place[features.rows[kept]],
        buckets=features.buckets[kept],
        measures=features.measures[chosen],
    )
