"""Batches: one answer per line in order, the message untouched, labels added."""

import json

import pytest
from messages import fields, line
from worker_email_classifier.classify import Classifier
from worker_email_classifier.types import TYPES, NotAMessage


def answer(classifier, data, types=("spam",)):
    (given,) = classifier.records([data], types)
    assert isinstance(given, bytes), given
    return given


def test_every_asked_type_gets_label_confidence_and_method(classifier):
    labels = json.loads(answer(classifier, line(text="hello"), TYPES))["labels"]
    assert tuple(labels) == TYPES
    for label in labels.values():
        assert label.keys() == {"label", "confidence", "method"}
        assert 0.0 <= label["confidence"] <= 1.0
        assert label["label"] is (label["confidence"] >= 0.5)


def test_the_model_speaks_for_spam_and_rules_for_the_rest(classifier):
    labels = json.loads(answer(classifier, line(text="hello"), TYPES))["labels"]
    methods = {name: label["method"] for name, label in labels.items()}
    assert methods == {name: "model" if name == "spam" else "rules" for name in TYPES}


def test_the_bytes_of_the_message_come_back_unchanged(classifier):
    data = b'{ "text":"x\\u00e9" ,"big":12345678901234567890,"f":1.10 }'
    given = answer(classifier, data)
    assert given.startswith(data.rstrip(b" }"))
    assert json.loads(given)["big"] == 12345678901234567890


@pytest.mark.parametrize("data", [b"{}", b"{ }", b'{"a":1}\n', b' {"a":{}} ', b'{"a":"}"}\r\n'])
def test_labels_are_added_to_any_object(classifier, data):
    given = json.loads(answer(classifier, data))
    assert {name: value for name, value in given.items() if name != "labels"} == json.loads(data)
    assert given["labels"].keys() == {"spam"}


def test_one_line_stays_one_line(classifier):
    assert b"\n" not in answer(classifier, line(text="a\nb") + b"\n")


def test_labels_of_an_earlier_pass_are_kept_and_replaced_by_type(classifier):
    old = {"spam": {"label": True, "confidence": 1.0, "method": "other"}, "urgent": {"label": True}}
    given = answer(classifier, line(text="hello", labels=old, after=1))
    labels = json.loads(given)["labels"]
    assert given.count(b'"labels"') == 1
    assert labels["spam"]["method"] == "model"
    assert labels["urgent"] == {"label": True}
    assert json.loads(given)["after"] == 1


@pytest.mark.parametrize("old", [None, 7, "x", [1]])
def test_labels_that_are_no_object_are_replaced(classifier, old):
    given = json.loads(answer(classifier, line(labels=old)))
    assert given["labels"].keys() == {"spam"}


def test_a_line_that_is_no_message_stands_alone(classifier):
    lines = [line(text="a"), b"{no json", b'{"subject": 7}', b"[]", line(text="b")]
    given = classifier.records(lines, ("spam",))
    assert [isinstance(one, NotAMessage) for one in given] == [False, True, True, True, False]
    assert "subject" in given[2].detail


def test_a_batch_of_nothing_is_answered_with_nothing(classifier):
    assert classifier.records([], TYPES) == []


def test_absent_and_null_fields_are_read_as_empty(classifier):
    empty = dict.fromkeys(fields(), None)
    labels = json.loads(answer(classifier, json.dumps(empty).encode(), TYPES))["labels"]
    assert not any(label["label"] for label in labels.values())


def test_the_answer_does_not_depend_on_the_batch(classifier):
    lines = [line(text=f"order now {n} free money " * n, subject=f"s{n}") for n in range(40)]
    together = classifier.records(lines, TYPES)
    alone = [classifier.records([one], TYPES)[0] for one in lines]
    assert together == alone


def test_what_the_model_calls_spam_is_called_nothing_else(classifier):
    spam = line(
        subject="INVOICE: MAKE MONEY FAST!!!",
        sender="billing83629@example.net",
        text="Click here now to order your FREE info pack! Earn $5,000 a week from home, 100% "
        "guaranteed! Your invoice number 1, amount due $20, please pay. Remove me: click here",
    )
    labels = json.loads(answer(classifier, spam, TYPES))["labels"]
    assert [name for name in TYPES if labels[name]["label"]] == ["spam"]


def test_a_fresh_classifier_says_the_same(classifier):
    lines = [line(text="see you at the meeting on monday", subject="agenda")]
    assert Classifier(classifier._model).records(lines, TYPES) == classifier.records(lines, TYPES)
