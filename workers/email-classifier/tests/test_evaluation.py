"""The evaluation: splits by time and source, counts, the yardstick."""

import numpy as np
import pytest
from messages import message
from worker_email_classifier.evaluation.bayes import NaiveBayes
from worker_email_classifier.evaluation.counts import Counts, count, line, reliability
from worker_email_classifier.evaluation.splits import CUT, read, splits
from worker_email_classifier.model import shipped
from worker_email_classifier.training.corpus import Example
from worker_email_classifier.training.fit import logistic
from worker_email_classifier.training.recipe import (
    PENALTY,
    WRITTEN,
    extract,
    training_set,
    weights,
)


def example(text, *, spam):
    return Example(message=message(text=text), spam=spam, source="a", arrived=0)


@pytest.fixture(scope="module")
def parts(archives):
    return splits(read(archives))


def test_verdicts_are_counted_by_kind_of_error():
    said, true = np.array([True, True, False, False]), np.array([True, False, True, False])
    counts = count(said, true)
    assert (counts.found, counts.false, counts.errors) == (1, 1, 2)
    assert (counts.accuracy, counts.precision, counts.recall) == (0.5, 0.5, 0.5)


def test_parts_of_a_split_are_counted_together():
    half = Counts(positive=2, negative=3, found=1, false=1)
    assert half + half == Counts(positive=4, negative=6, found=2, false=2)


def test_recall_of_nothing_is_not_a_number():
    row = line("a", "model", Counts(negative=10, false=1))
    assert row.split()[-6:] == ["-", "-", "1", "of", "10", "10.00%"]


def test_reliability_weighs_spam_to_its_share():
    chances, true = np.full(100, 0.95), np.arange(100) < 50
    *_, row = reliability(chances, true, 0.25)
    assert row.split()[-3:] == ["100", "0.95", "0.25"]


def test_naive_bayes_learns_words():
    bayes = NaiveBayes(
        [example("cheap pills now", spam=True), example("meeting notes today", spam=False)]
    )
    tests = [example("cheap pills", spam=True), example("meeting today", spam=False)]
    assert bayes.says_spam(tests).tolist() == [True, False]


def test_nothing_is_trained_on_and_tested_on(parts):
    for split in parts:
        assert not {id(e) for e in split.train} & {id(e) for e in split.test}
        assert all(e.spam is not None for e in split.train + split.test)


def test_later_mail_is_later(parts):
    later = parts[0]
    real = [e for e in later.train if not e.source.startswith(WRITTEN)]
    assert max(e.arrived for e in real) < CUT.timestamp() <= min(e.arrived for e in later.test)


def test_foreign_ham_shares_no_source_with_training(parts):
    (foreign,) = [split for split in parts if split.name == "foreign ham"]
    assert not {e.source for e in foreign.train} & {e.source for e in foreign.test}


def test_a_source_that_is_left_out_is_left_out_whole(parts):
    for split in parts:
        if split.name in {"source left out", "written type left out"}:
            tested = {e.source for e in split.test if not e.spam}
            assert not tested & {e.source for e in split.train if not e.spam}


def test_the_shipped_weights_are_what_training_gives(archives):
    mail = training_set(archives)
    spam = np.array([bool(e.spam) for e in mail])
    again, model = logistic(extract(mail), spam, weights(mail), PENALTY), shipped()
    assert np.abs(again.words - model.words).max() <= model.header["word_step"]
    assert again.measures == pytest.approx(model.measures, abs=0.01)
    assert again.constant == pytest.approx(model.constant, abs=0.01)
