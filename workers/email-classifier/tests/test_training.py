"""Training: reproducible, separating, calibrated by source; the shipped file is its result."""

from importlib import resources

import numpy as np
import pytest
from messages import message
from worker_email_classifier.features import Features
from worker_email_classifier.model import shipped
from worker_email_classifier.training import corpus
from worker_email_classifier.training.corpus import Example
from worker_email_classifier.training.fit import minimum, platt
from worker_email_classifier.training.recipe import (
    FOLDS,
    extract,
    folds,
    rows_of,
    train,
    weights,
    written_examples,
)


def example(text, *, spam, source="a", arrived=0):
    return Example(message=message(text=text), spam=spam, source=source, arrived=arrived)


@pytest.fixture(scope="module")
def small():
    good = [
        example(f"meeting agenda project {w} review notes", spam=False, source=s)
        for s in "abcde"
        for w in ("plan", "budget", "release", "build", "design", "team")
    ]
    spam = [
        example(f"order cheap pills {w} now free offer", spam=True, arrived=n)
        for n, w in enumerate(("today", "online", "fast", "click", "win", "cash") * 4)
    ]
    return good + spam


def test_the_same_messages_give_the_same_file(small):
    assert train(small).file({}) == train(small).file({})


def test_it_tells_what_it_was_shown(small):
    probabilities = train(small).model().probabilities(extract(small))
    assert ((probabilities >= 0.5) == [e.spam for e in small]).all()


def test_a_source_is_in_one_fold_only(small):
    fold = folds(small)
    assert set(fold.tolist()) == set(range(FOLDS))
    for source in "abcde":
        places = {f for e, f in zip(small, fold, strict=True) if e.source == source and not e.spam}
        assert len(places) == 1


def test_spam_is_folded_by_time(small):
    spam = sorted((e.arrived, f) for e, f in zip(small, folds(small), strict=True) if e.spam)
    assert [f for _, f in spam] == sorted(f for _, f in spam)


def test_a_large_source_weighs_less_per_message():
    mail = [example("x", spam=False, source="big")] * 100 + [
        example("x", spam=False, source="small"),
        example("y", spam=True),
    ]
    weight = weights(mail)
    assert weight[0] == pytest.approx(weight[100] / 10)
    assert weight[:101].sum() == pytest.approx(weight[101])


def test_rows_can_be_taken_apart(small):
    features = extract(small)
    chosen = np.arange(len(small)) % 2 == 0
    part = rows_of(features, chosen)
    again = extract([e for e, take in zip(small, chosen, strict=True) if take])
    assert isinstance(part, Features)
    assert part.rows.tolist() == again.rows.tolist()
    assert part.buckets.tolist() == again.buckets.tolist()


def test_the_minimum_of_a_bowl_is_found():
    target = np.array([3.0, -2.0, 0.5])
    scale = np.array([1.0, 10.0, 100.0])
    point = minimum(
        lambda x: (float((scale * (x - target) ** 2).sum()), 2 * scale * (x - target)), np.zeros(3)
    )
    assert point == pytest.approx(target, abs=1e-4)


def test_calibration_gives_the_shares_that_were_seen():
    scores = np.repeat([-1.0, 1.0], 1000)
    spam = np.zeros(2000, bool)
    spam[:100] = True
    spam[1000:1900] = True
    slope, offset = platt(scores, spam, np.ones(2000))
    assert 1 / (1 + np.exp(-(offset - slope))) == pytest.approx(0.1, abs=0.01)
    assert 1 / (1 + np.exp(-(offset + slope))) == pytest.approx(0.9, abs=0.01)


def test_written_mail_is_good_and_without_real_addresses():
    mail = written_examples()
    assert len(mail) >= 50
    assert not any(e.spam for e in mail)
    assert all(
        e.message.sender.domain.endswith((".example.com", ".example.net", ".example.org"))
        for e in mail
    )


def test_one_written_type_can_be_left_out():
    assert len(written_examples(without="bill")) < len(written_examples())


def test_copies_are_counted_once():
    first, copy = example("Same text, 1", spam=True), example("same TEXT 2", spam=True)
    other = example("another", spam=True)
    assert corpus.unlike([first, copy, other], []) == [first, other]
    assert corpus.unlike([copy, other], [first]) == [other]


def test_the_shipped_model_was_trained_on_these_archives(archives):
    data = shipped().header["data"]
    assert data == {name: corpus.digest(archives, name) for name in data}


def test_the_archives_are_read_whole(archives):
    assert len(corpus.spamassassin(archives)) == 3000
    assert len(corpus.r_lists(archives, "r-announce")) == 699
    assert len(corpus.r_lists(archives, "r-devel")) == 844


def test_no_archive_is_shipped():
    names = {
        entry.name
        for entry in resources.files("worker_email_classifier").joinpath("training").iterdir()
    }
    assert {name for name in names if not name.endswith((".py", ".pyc"))} <= {
        "written.txt",
        "__pycache__",
    }
