"""The model file: safe to load, unchanged, small, without text of anybody."""

import io
import json
import re
import zipfile
from importlib import resources

import numpy as np
import pytest
from messages import reading
from worker_email_classifier.features import BUCKETS, Extractor
from worker_email_classifier.model import ModelError, dump, load, shipped
from worker_email_classifier.structure import NAMES

FILE = resources.files("worker_email_classifier").joinpath("spam.npz").read_bytes()


def rewritten(**changed):
    with np.load(io.BytesIO(FILE), allow_pickle=False) as arrays:
        parts = {name: arrays[name] for name in arrays.files}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{**parts, **changed})
    return buffer.getvalue()


def header():
    with np.load(io.BytesIO(FILE), allow_pickle=False) as arrays:
        return json.loads(arrays["header"].tobytes())


def test_the_file_holds_three_arrays_and_nothing_pickled():
    with zipfile.ZipFile(io.BytesIO(FILE)) as archive:
        assert sorted(archive.namelist()) == ["header.npy", "measures.npy", "words.npy"]
        assert all(b"'|O'" not in archive.read(name)[:128] for name in archive.namelist())
    assert len(FILE) < 1_000_000


def test_the_file_holds_no_text_but_its_header():
    text = json.dumps(header())
    words = set(re.findall(r"[a-z_]{3,}", text)) - set(NAMES)
    assert "@" not in text
    assert words <= {
        "constant", "data", "email", "spamassassin", "lists", "format", "hivemesh", "linear",
        "least_messages", "measures", "offset", "penalty", "words", "sha", "slope", "spam",
        "spam_share", "trained_on", "good", "type", "word_step",
    } | set(re.findall(r"[a-f]{3,}", text))  # fmt: skip


def test_the_header_says_what_it_was_trained_on():
    assert header()["trained_on"]["spam"] > 400
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in header()["data"].values())


def test_a_changed_weight_is_refused():
    words = np.zeros(BUCKETS, np.int8)
    with pytest.raises(ModelError, match="was changed"):
        load(rewritten(words=words))


def test_a_model_of_other_measures_is_refused():
    other = json.dumps({**header(), "measures": ["height"]}).encode()
    with pytest.raises(ModelError, match="train it again"):
        load(rewritten(header=np.frombuffer(other, np.uint8)))


@pytest.mark.parametrize("changed", [np.zeros(3, np.int8), np.zeros(BUCKETS, np.float64)])
def test_arrays_of_another_shape_are_refused(changed):
    with pytest.raises(ModelError, match="type or length"):
        load(rewritten(words=changed))


@pytest.mark.parametrize("data", [b"", b"PK", b"x" * 100, FILE[:1000], FILE[:-30]])
def test_a_damaged_file_is_refused(data):
    with pytest.raises(ModelError):
        load(data)


def test_a_pickle_is_never_read():
    buffer = io.BytesIO()
    np.savez(buffer, header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ModelError, match="not a model file"):
        load(buffer.getvalue())


def test_an_oversized_file_is_refused_unread():
    with pytest.raises(ModelError, match="more than"):
        load(b"PK" + bytes(5 * 1024 * 1024))


def test_the_same_weights_give_the_same_bytes():
    words, measures = np.linspace(-1, 1, BUCKETS), np.ones(len(NAMES))
    constants = {"constant": 0.5, "slope": 1.0, "offset": 0.0}
    assert dump(words, measures, constants) == dump(words, measures, constants)


def test_rounding_keeps_weights_to_half_a_step():
    words = np.linspace(-2, 2, BUCKETS)
    loaded = load(dump(words, np.zeros(len(NAMES)), {"constant": 0, "slope": 1, "offset": 0}))
    assert np.abs(loaded.words - words).max() <= 2 / 127 / 2 + 1e-6


def test_an_empty_message_is_no_spam():
    assert shipped().probabilities(Extractor().features([reading(text="")]))[0] < 0.5
