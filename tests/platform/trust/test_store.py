"""Both stores of enrolment records keep the same promises."""

import pytest
from enrolment_support import EnrolmentStoreConformance, MemoryEnrolmentStore
from hivemesh_platform.storage.sqlite import SqliteDatabase
from hivemesh_platform.trust.store import SqlEnrolmentStore


class TestMemoryStore(EnrolmentStoreConformance):
    @pytest.fixture
    def store(self):
        return MemoryEnrolmentStore()


class TestSqlStore(EnrolmentStoreConformance):
    @pytest.fixture
    async def store(self, database_path):
        async with SqliteDatabase(database_path) as database:
            yield SqlEnrolmentStore(database)
