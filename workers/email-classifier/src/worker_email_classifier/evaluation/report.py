"""Runs every split, prints both tables and compares with the floors."""

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import numpy as np

from worker_email_classifier.classify import Classifier
from worker_email_classifier.evaluation.bayes import NaiveBayes
from worker_email_classifier.evaluation.counts import (
    HEAD,
    Chances,
    Counts,
    Verdicts,
    count,
    line,
    reliability,
)
from worker_email_classifier.evaluation.splits import Archives, Split, read, splits
from worker_email_classifier.message import Message
from worker_email_classifier.model import shipped
from worker_email_classifier.rules import RULES
from worker_email_classifier.training.corpus import Example, invoices, unlike
from worker_email_classifier.training.recipe import SPAM_SHARE, extract, train
from worker_email_classifier.training.written import written
from worker_email_classifier.types import BILL, RECEIPT, THRESHOLD

MODEL, BAYES, RULED = "model", "naive Bayes", "rules"
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
    classifier = Classifier(shipped())
    results |= _rules(root, archives, classifier, out)
    _shipped(archives, classifier, out)
    return [floor for floor, holds in _floors(results) if not holds]


def _floors(results: Results) -> list[tuple[str, bool]]:
    ours = {split: counts for (split, who), counts in results.items() if who == MODEL}
    ruled = {split: counts for (split, who), counts in results.items() if who == RULED}
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
            (f"{name}: at most 1 % are false", counts.false_rate <= 0.01)
            for name, counts in ruled.items()
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
    chances: list[Chances] = []
    truths: list[Verdicts] = []
    for split in parts:
        test = unlike(split.test, split.train)
        chances.append(train(split.train).model().probabilities(extract(test)))
        truths.append(_truth(test))
        said = {
            MODEL: np.asarray(chances[-1] >= THRESHOLD, np.bool_),
            BAYES: NaiveBayes(split.train).says_spam(test),
        }
        for who, verdicts in said.items():
            key = (split.name, who)
            results[key] = results.get(key, Counts()) + count(verdicts, truths[-1])
    out.write("spam (trained per split; copies of training messages left out)\n")
    out.write(f"{HEAD}\n")
    out.writelines(f"{line(name, who, counts)}\n" for (name, who), counts in results.items())
    out.write(
        "\nconfidence in spam against what was spam, over all these splits, with spam weighed\n"
    )
    out.write(f"to the {SPAM_SHARE:.0%} of mail that the model is calibrated for\n")
    out.writelines(reliability(np.concatenate(chances), np.concatenate(truths), SPAM_SHARE))
    return results


def _truth(examples: list[Example]) -> Verdicts:
    return np.array([bool(example.spam) for example in examples], np.bool_)


def _rules(root: Path, archives: Archives, classifier: Classifier, out: TextIO) -> Results:
    """Compare the rules with what little is known: no archive labels these types."""
    spam = [e.message for e in archives.spamassassin if e.spam]
    lists = [e.message for e in archives.spamassassin + archives.r_lists if not e.spam]
    made = written()
    known: list[tuple[str, str, list[Message], list[bool]]] = [
        *((n, "written here", [m for _, m in made], [t == n for t, _ in made]) for n in RULES),
        (BILL, "invoices put in mail", invoices(root), [True] * len(invoices(root))),
        *((name, "good list mail", lists, [False] * len(lists)) for name in (BILL, RECEIPT)),
        *((name, "known spam", spam, [False] * len(spam)) for name in RULES),
    ]
    results: Results = {}
    for name, source, messages, true in known:
        answers = classifier.labels(messages, (name,))
        said = np.array([answer[name].label for answer in answers], np.bool_)
        results[f"{name}: {source}", RULED] = count(said, np.array(true, np.bool_))
    out.write("\nrules (fewer than 50 labelled messages of each type; 'written here' was written\n")
    out.write("together with the rules: it shows what they mean, not how well they do elsewhere)\n")
    out.write(f"{HEAD}\n")
    out.writelines(f"{line(name, who, counts)}\n" for (name, who), counts in results.items())
    return results


def _shipped(archives: Archives, classifier: Classifier, out: TextIO) -> None:
    """Print how often the shipped worker gives each label where nobody labelled the mail."""
    sets = {
        "SpamAssassin good mail": [e for e in archives.spamassassin if not e.spam],
        "r-lists": archives.r_lists,
        **archives.unlabelled,
    }
    types = classifier.types
    out.write("\nlabels given by the shipped worker (no measurement: the first two sets are its\n")
    out.write("training mail, the others have no labels and hold spam too)\n")
    out.write(f"{'set':<26}{'n':>6}{''.join(f'{name:>14}' for name in types)}\n")
    for name, examples in sets.items():
        answers = classifier.labels([example.message for example in examples], types)
        counts = [sum(answer[name].label for answer in answers) for name in types]
        out.write(f"{name:<26}{len(examples):>6}{''.join(f'{n:>14}' for n in counts)}\n")
