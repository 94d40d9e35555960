"""The pytest entry point of the SDK: lets inherited conformance tests show what they compared."""

import pytest

pytest.register_assert_rewrite("hivemesh_sdk.testing.conformance")
