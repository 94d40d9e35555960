"""What every `SecretStore` keeps: one suite, run on each adapter."""

import asyncio

import pytest
from hivemesh_platform.credentials.errors import SecretMissingError
from hivemesh_platform.credentials.ports import SecretStore

ODD = 'ż"\\\n\t{{ vault.other }} ${env:HOME} \U0001f511 %20'


class SecretStoreConformance:
    """Subclasses have a fixture `store`."""

    async def test_a_value_is_read_as_it_was_stored(self, store: SecretStore) -> None:
        for value in ("x", "correct horse battery", ODD, "k" * 64_000):
            await store.write("mail.imap.password", value)
            assert (await store.read("mail.imap.password")).value == value

    async def test_a_new_value_is_a_new_version_and_the_old_one_is_kept(
        self, store: SecretStore
    ) -> None:
        assert (await store.write("a.b", "one")).version == 1
        info = await store.write("a.b", "two")
        assert (info.version, info.versions, info.deleted) == (2, 2, False)
        assert (await store.read("a.b")).version == 2
        assert (await store.read("a.b", 1)).value == "one"
        assert await store.describe("a.b") == info
        assert info.created_at > 1_600_000_000_000

    @pytest.mark.parametrize("path", ["nothing", "a.nothing", "a", "a.b.c"])
    async def test_what_was_never_stored_is_missing(self, store: SecretStore, path: str) -> None:
        await store.write("a.b", "one")
        for ask in (store.read, store.describe, store.delete, store.restore):
            with pytest.raises(SecretMissingError):
                await ask(path)
        with pytest.raises(SecretMissingError):
            await store.read("a.b", 7)

    async def test_what_was_deleted_is_missing_until_it_is_restored(
        self, store: SecretStore
    ) -> None:
        await store.write("a.b", "one")
        assert (await store.delete("a.b")).deleted
        with pytest.raises(SecretMissingError):
            await store.read("a.b")
        with pytest.raises(SecretMissingError):
            await store.delete("a.b")
        assert (await store.describe("a.b")).deleted
        assert not (await store.restore("a.b")).deleted
        assert (await store.read("a.b")).value == "one"
        assert not (await store.restore("a.b")).deleted

    async def test_a_new_value_takes_the_place_of_a_deleted_one(self, store: SecretStore) -> None:
        await store.write("a.b", "one")
        await store.delete("a.b")
        assert (await store.write("a.b", "two")).version == 2
        assert (await store.read("a.b")).value == "two"

    async def test_names_are_listed_in_order_and_by_prefix(self, store: SecretStore) -> None:
        assert await store.entries() == []
        for path in ("b", "a.c", "a.b.d", "a.b-c", "ab", "a.b"):
            await store.write(path, path)
        await store.delete("ab")
        listed = [(one.path, one.deleted) for one in await store.entries()]
        assert listed == [
            ("a.b", False),
            ("a.b-c", False),
            ("a.b.d", False),
            ("a.c", False),
            ("ab", True),
            ("b", False),
        ]
        assert [one.path for one in await store.entries("a.b")] == ["a.b", "a.b.d"]
        assert [one.path for one in await store.entries("b")] == ["b"]
        assert await store.entries("nothing") == []

    async def test_secrets_below_a_secret_are_others(self, store: SecretStore) -> None:
        await store.write("a", "above")
        await store.write("a.b", "below")
        assert (await store.read("a")).value == "above"
        await store.delete("a")
        assert (await store.read("a.b")).value == "below"

    async def test_changes_at_the_same_time_are_all_kept(self, store: SecretStore) -> None:
        await asyncio.gather(*(store.write(f"many.n{n}", str(n)) for n in range(12)))
        values = [(await store.read(f"many.n{n}")).value for n in range(12)]
        assert values == [str(n) for n in range(12)]

    async def test_nobody_prints_a_value_by_accident(self, store: SecretStore) -> None:
        await store.write("a.b", "canary-1234")
        assert "canary-1234" not in repr(await store.read("a.b"))

    async def test_what_can_be_read_exists(self, store: SecretStore) -> None:
        assert not await store.exists("a.b")
        await store.write("a.b", "one")
        assert await store.exists("a.b")
        assert not await store.exists("a")
        await store.delete("a.b")
        assert not await store.exists("a.b")

    async def test_an_open_store_says_so(self, store: SecretStore) -> None:
        assert await store.sealed() == ""
