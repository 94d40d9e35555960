"""Keys of effects: the same for each attempt of a step, another for each effect and step."""

import uuid

from hivemesh_sdk import Context


def context(key):
    return Context(key=key, capability="a.b@1", scratch="", artifacts=None, port=None)


def test_every_attempt_of_a_step_has_the_same_key_for_an_effect():
    assert context("run_1.pay.0").key_for("charge") == context("run_1.pay.0").key_for("charge")


def test_another_effect_or_step_has_another_key():
    keys = {
        context("run_1.pay.0").key_for("charge"),
        context("run_1.pay.0").key_for("receipt"),
        context("run_1.pay.1").key_for("charge"),
        context("run_2.pay.0").key_for("charge"),
    }
    assert len(keys) == 4


def test_it_is_what_unique_columns_and_services_take():
    assert uuid.UUID(context("run_1.pay.0").key_for("charge")).version == 5
