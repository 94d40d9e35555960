"""The encrypted file: nothing of a value is readable in it, and nothing changed is believed."""

import json
import os
import stat

import pytest
from hivemesh_platform.credentials.encrypted_file import FILE, KEPT, KEY_FILE, EncryptedFile, make
from hivemesh_platform.credentials.errors import SecretDamagedError, SecretMissingError
from hivemesh_platform.credentials.keys import KeyFile, Passphrase
from hivemesh_platform.credentials.ports import StoreParts
from hivemesh_platform.settings import SecretsSettings
from hivemesh_platform.trust.folder import FILE as LOCK
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.redaction import forms
from secret_store_conformance import SecretStoreConformance

VALUE = "canary-4411-value"


def opened(folder, **settings):
    parts = StoreParts(
        settings=SecretsSettings.model_validate(settings),
        folder=folder / "secrets",
        clock=SystemClock(),
    )
    return make(parts)


@pytest.fixture
def store(tmp_path):
    return opened(tmp_path)


class TestEncryptedFile(SecretStoreConformance):
    pass


class TestUnderAPassphrase(SecretStoreConformance):
    @pytest.fixture
    def store(self, tmp_path):
        return opened(tmp_path, passphrase="correct horse")


async def test_the_value_stands_nowhere_in_the_folder(tmp_path, store):
    await store.write("a.b", VALUE)
    for file in (tmp_path / "secrets").iterdir():
        content = file.read_bytes()
        assert not [form for form in forms(VALUE) if form.encode() in content]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {one.name for one in (tmp_path / "secrets").iterdir()} == {FILE, KEY_FILE, LOCK}


async def test_two_processes_write_and_each_sees_both(tmp_path, store):
    other = opened(tmp_path)
    await store.write("a.b", VALUE)
    await other.write("c.d", VALUE)
    await store.write("a.b", "next")
    assert (await other.read("a.b")).value == "next"
    assert (await store.read("c.d")).value == VALUE
    assert {one.path for one in await store.entries()} == {"a.b", "c.d"}


async def test_another_process_reads_what_was_stored(tmp_path, store):
    await store.write("a.b", VALUE)
    assert (await opened(tmp_path).read("a.b")).value == VALUE


async def test_equal_values_are_not_equal_in_the_file(tmp_path, store):
    await store.write("a", VALUE)
    await store.write("b", VALUE)
    records = json.loads((tmp_path / "secrets" / FILE).read_text())["records"]
    assert records["a"]["versions"]["1"]["data"] != records["b"]["versions"]["1"]["data"]


async def test_old_versions_go_after_a_while(store):
    for number in range(KEPT + 3):
        info = await store.write("a.b", str(number))
    assert (info.version, info.versions) == (KEPT + 3, KEPT)
    with pytest.raises(SecretMissingError):
        await store.read("a.b", 3)
    assert (await store.read("a.b", 4)).value == "3"


def rewritten(tmp_path, change):
    path = tmp_path / "secrets" / FILE
    document = json.loads(path.read_text())
    change(document["records"])
    path.write_text(json.dumps(document))
    return opened(tmp_path)


def swap(records):
    records["a"], records["b"] = records["b"], records["a"]


def renumber(records):
    versions = records["a"]["versions"]
    versions["1"], versions["2"] = versions["2"], versions["1"]


def flip(records):
    data = records["a"]["versions"]["2"]["data"]
    records["a"]["versions"]["2"]["data"] = ("A" if data[0] != "A" else "B") + data[1:]


def cut(records):
    records["a"]["versions"]["2"]["data"] = ""


@pytest.mark.parametrize("change", [swap, renumber, flip, cut])
async def test_a_record_that_was_changed_or_moved_is_refused(tmp_path, store, change):
    for value in ("one", "two"):
        await store.write("a", value)
        await store.write("b", value)
    with pytest.raises(SecretDamagedError):
        await rewritten(tmp_path, change).read("a")


async def test_another_key_is_refused_before_anything_is_read_or_written(tmp_path, store):
    await store.write("a", "one")
    (tmp_path / "secrets" / KEY_FILE).unlink()
    damaged = opened(tmp_path)
    with pytest.raises(SecretDamagedError):
        await damaged.read("a")
    assert "cannot be read" in await damaged.sealed()
    await KeyFile(tmp_path / "secrets" / KEY_FILE).make()
    with pytest.raises(SecretDamagedError):
        await opened(tmp_path).write("a", "two")


async def test_a_key_that_others_may_read_is_not_used(tmp_path, store):
    await store.write("a", "one")
    (tmp_path / "secrets" / KEY_FILE).chmod(0o640)
    with pytest.raises(ConfigurationError, match="others may read"):
        await opened(tmp_path).read("a")


async def test_a_wrong_passphrase_opens_nothing(tmp_path):
    await opened(tmp_path, passphrase="right").write("a", "one")
    with pytest.raises(ConfigurationError, match="passphrase"):
        await opened(tmp_path, passphrase="wrong").read("a")
    assert not (tmp_path / "secrets" / KEY_FILE).exists()


async def test_a_passphrase_may_be_set_later_and_takes_the_key_away(tmp_path, store):
    for value in ("one", "two"):
        await store.write("a", value)
    before = (tmp_path / "secrets" / FILE).read_text()
    protected = opened(tmp_path, passphrase="new")
    assert (await protected.read("a")).value == "two"
    assert (await protected.read("a", 1)).value == "one"
    assert not (tmp_path / "secrets" / KEY_FILE).exists()
    after = json.loads((tmp_path / "secrets" / FILE).read_text())
    assert after["records"]["a"] != json.loads(before)["records"]["a"]
    assert (await opened(tmp_path, passphrase="new").read("a")).value == "two"


async def test_a_passphrase_is_not_left_out_in_silence(tmp_path):
    await opened(tmp_path, passphrase="right").write("a", "one")
    with pytest.raises(ConfigurationError, match="kind 'passphrase'"):
        await opened(tmp_path).read("a")


async def test_a_file_that_cannot_be_read_is_never_replaced(tmp_path, store):
    await store.write("a", "one")
    path = tmp_path / "secrets" / FILE
    path.write_text("{")
    with pytest.raises(SecretDamagedError):
        await opened(tmp_path).write("b", "two")
    assert path.read_text() == "{"


async def test_a_write_that_fails_leaves_the_former_state(tmp_path, store, monkeypatch):
    await store.write("a", "one")
    before = (tmp_path / "secrets" / FILE).read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match="No space left"):
        await store.write("a", "two")
    monkeypatch.undo()
    assert (tmp_path / "secrets" / FILE).read_bytes() == before
    assert (await store.read("a")).value == "one"


async def test_the_sealed_transit_key_seals_the_file(tmp_path):
    class Keeper(Passphrase):
        reason = ""

        async def sealed(self):
            return self.reason

        async def open(self, slot):
            assert not self.reason
            return await super().open(slot)

    keeper = Keeper("p")
    store = EncryptedFile(tmp_path / "secrets", keeper, SystemClock())
    await store.write("a", "one")
    keeper.reason = "sealed by hand"
    assert await store.sealed() == "sealed by hand"
    with pytest.raises(AssertionError):
        await store.read("a")
    keeper.reason = ""
    assert (await store.read("a")).value == "one"
