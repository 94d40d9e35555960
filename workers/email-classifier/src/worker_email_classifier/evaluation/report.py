"""Runs every split, prints both tables and compares with the floors."""

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import numpy as np

from worker_email_classifier.classify import Classifier
from worker_email_classifier.evaluation.bayes import NaiveBayes
from worker_email_classifier.evaluation.counts import HEAD, Counts, Verdicts, count, line
from worker_email_classifier.evaluation.splits import Archives, Split, read, splits
from worker_email_classifier.model import Model, shipped
from worker_email_classifier.training.corpus import Example, unlike
from worker_email_classifier.training.recipe import extract, train

MODEL, BAYES = "model", "naive Bayes"
Results = dict[tuple[str, str], Counts]
_LATER, _BOTH, _FOREIGN, _LEFT_OUT = (
    "later mail",
    "later spam, foreign ham",
    "foreign ham",
    "source left out",
)


def evaluate(root: Path, out: TextIO) -> list[str]:
    """Print the tables; return the floors that do not hold."""
    archives = read(root)
    results = _spam(splits(archives), out)
    _shipped(archives, shipped(), out)
    return [floor for floor, holds in _floors(results) if not holds]


def _floors(results: Results) -> list[tuple[str, bool]]:
    ours = {split: counts for (split, who), counts in results.items() if who == MODEL}
    theirs = {split: counts for (split, who), counts in results.items() if who == BAYES}
    return [
        (f"{_LATER}: accuracy >= 0.975", ours[_LATER].accuracy >= 0.975),
        (f"{_LATER}: recall >= 0.9", (ours[_LATER].recall or 0.0) >= 0.9),
        (f"{_LATER}: false positives <= 1 %", ours[_LATER].false_rate <= 0.01),
        (f"{_BOTH}: accuracy >= 0.98", ours[_BOTH].accuracy >= 0.98),
        (f"{_FOREIGN}: false positives <= 0.5 %", ours[_FOREIGN].false_rate <= 0.005),
        *(
            (f"{name}: more accurate than {BAYES}", ours[name].accuracy > theirs[name].accuracy)
            for name in ours
        ),
        *(
            (
                f"{name}: at most half the errors of {BAYES}",
                2 * ours[name].errors <= theirs[name].errors,
            )
            for name in (_LATER, _BOTH)
        ),
        *(
            (
                f"{name}: at most a third of the false positives of {BAYES}",
                3 * ours[name].false <= theirs[name].false,
            )
            for name in (_LATER, _BOTH, _FOREIGN, _LEFT_OUT)
        ),
    ]


def _spam(parts: Iterable[Split], out: TextIO) -> Results:
    results: Results = {}
    for split in parts:
        test = unlike(split.test, split.train)
        true = _truth(test)
        said = {MODEL: _model(split, test), BAYES: NaiveBayes(split.train).says_spam(test)}
        for who, verdicts in said.items():
            key = (split.name, who)
            results[key] = results.get(key, Counts()) + count(verdicts, true)
    out.write("spam (trained per split; copies of training messages left out)\n")
    out.write(f"{HEAD}\n")
    out.writelines(f"{line(name, who, counts)}\n" for (name, who), counts in results.items())
    return results


def _model(split: Split, test: list[Example]) -> Verdicts:
    model = train(split.train).model()
    return np.asarray(model.probabilities(extract(test)) >= 0.5, np.bool_)


def _truth(examples: list[Example]) -> Verdicts:
    return np.array([bool(example.spam) for example in examples], np.bool_)


def _shipped(archives: Archives, model: Model, out: TextIO) -> None:
    """Print how often the shipped worker gives each label where nobody labelled the mail."""
    classifier = Classifier(model)
    sets = {
        "SpamAssassin spam": [e for e in archives.spamassassin if e.spam],
        "SpamAssassin ham": [e for e in archives.spamassassin if not e.spam],
        "r-lists": archives.r_lists,
        **archives.unlabelled,
    }
    types = classifier.types
    out.write("\nmessages that the shipped worker labels (rules have no labelled positives to be\n")
    out.write("measured on; spam on its own training mail is no measurement)\n")
    out.write(f"{'set':<26}{'n':>6}{''.join(f'{name:>14}' for name in types)}\n")
    for name, examples in sets.items():
        answers = classifier.labels([example.message for example in examples], types)
        counts = [sum(answer[name].label for answer in answers) for name in types]
        out.write(f"{name:<26}{len(examples):>6}{''.join(f'{n:>14}' for n in counts)}\n")
