"""Authorities and an enrolment listener of the trust tests."""

import pytest
from hivemesh_sdk.testing.pki import ThrowawayCA


@pytest.fixture(scope="session")
def ca():
    return ThrowawayCA()
