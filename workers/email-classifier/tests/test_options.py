"""Options are refused before any record is read."""

import subprocess
import sys

import pytest
from hivemesh_sdk import ConfigurationError
from hivemesh_sdk.worker.codec import Codec, options_of
from worker_email_classifier.main import ClassifyOptions, classify, worker
from worker_email_classifier.types import TYPES


def options(**given):
    return options_of(Codec(ClassifyOptions), given)


def test_all_types_are_the_default():
    assert options().types == list(TYPES)


def test_an_unknown_type_is_refused_with_the_list_of_types():
    with pytest.raises(ConfigurationError) as caught:
        options(types=["spam", "bills"])
    (error,) = caught.value.errors
    assert caught.value.slug == "options-invalid"
    assert error.pointer == "/types/1"
    assert "'bills'" in error.message
    assert all(name in error.message for name in TYPES)


def test_every_wrong_type_is_named():
    with pytest.raises(ConfigurationError) as caught:
        options(types=["x", "spam", "spam"])
    assert [error.pointer for error in caught.value.errors] == ["/types/0", "/types/2"]


def test_no_type_at_all_is_refused():
    with pytest.raises(ConfigurationError, match="at least one"):
        options(types=[])


def test_the_schema_lists_the_types():
    schema = worker.declared_schemas()["email.classify@1"]["options"]
    assert schema["properties"]["types"]["items"]["enum"] == list(TYPES)


def test_a_line_that_is_no_message_is_rejected_with_its_reason():
    (answer,) = classify([b"[]"], options())
    assert answer.reason == "not-a-message"
    assert answer.detail


def test_the_serving_process_does_not_load_numpy():
    code = "import sys, worker_email_classifier.main; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
