"""Both stores of enrolment records keep the same promises."""

import pytest
from enrolment_support import EnrolmentStoreConformance, MemoryEnrolmentStore
from hivemesh_platform.trust.store import SqlEnrolmentStore


class TestMemoryStore(EnrolmentStoreConformance):
    @pytest.fixture
    def store(self):
        return MemoryEnrolmentStore()


class TestSqlStore(EnrolmentStoreConformance):
    @pytest.fixture
    def store(self, database):
        return SqlEnrolmentStore(database)
