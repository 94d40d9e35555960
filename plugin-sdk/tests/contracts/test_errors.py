"""What an author may ask for with an error."""

import pytest
from hivemesh_sdk.errors import MAX_DELAY_S, RetryableError


@pytest.mark.parametrize(
    ("asked", "kept"),
    [(None, None), (7, 7), (-1.0, 0.0), (1e17, MAX_DELAY_S), (float("inf"), MAX_DELAY_S)],
)
def test_a_delay_is_kept_within_its_bounds(asked, kept):
    error = RetryableError("later", delay_s=asked)
    assert error.delay_s == error.problem().retry_after_s == kept


def test_a_delay_is_a_number():
    with pytest.raises(ValueError, match="not a number"):
        RetryableError("later", delay_s=float("nan"))
    with pytest.raises(TypeError):
        RetryableError("later", delay_s="7")
