"""Signals are named as people know them."""

import pytest
from hivemesh_sdk import signals


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (40, "40")])
def test_a_signal_without_a_name_is_told_by_its_number(number, name):
    assert signals.name_of(number) == name
