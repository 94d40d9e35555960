"""`hivemesh init` makes what containers mount, once, for nobody but the images' user."""

import os
import stat
import sys

import pytest
from hivemesh_platform.cli import failures
from hivemesh_platform.cli.main import build
from hivemesh_platform.trust.authority import open_authority
from hivemesh_platform.trust.profile import Lifetimes
from hivemesh_sdk.clock import SystemClock
from hivemesh_sdk.trust.tokens import Token

OWN = str(os.geteuid())


@pytest.fixture
def init(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*words, uid=OWN):
        arguments = ["init", "--folder", "certs", "--uid", uid, *words]
        monkeypatch.setattr(sys, "argv", ["hivemesh", *arguments])
        code = failures.run_guarded(
            lambda: build(arguments)(arguments, prog_name="hivemesh", standalone_mode=False)
        )
        assert code == failures.OK
        return capsys.readouterr()

    return run


def content(folder):
    return {path.name: path.read_bytes() for path in (folder / "credentials").iterdir()}


def test_each_worker_gets_a_credential_that_only_its_owner_may_read(init, tmp_path):
    init("--worker", "one", "--worker", "two")
    paths = list((tmp_path / "certs" / "credentials").iterdir())
    assert {path.name for path in paths} == {"one", "two"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}


def test_state_folder_is_closed_to_others_and_the_bundle_holds_no_key(init, tmp_path):
    init("--worker", "one")
    certs = tmp_path / "certs"
    assert stat.S_IMODE((certs / "platform").stat().st_mode) == 0o700
    assert b"PRIVATE" not in (certs / "bundle.pem").read_bytes()


def test_second_call_keeps_everything_and_leaves_the_database_alone(init, tmp_path):
    init("--worker", "one")
    database = tmp_path / "certs" / "platform" / "platform.db"
    before, touched = content(tmp_path / "certs"), database.stat().st_mtime_ns
    init("--worker", "one")
    assert content(tmp_path / "certs") == before
    assert database.stat().st_mtime_ns == touched


def test_worker_that_comes_later_gets_a_credential_and_the_others_keep_theirs(init, tmp_path):
    init("--worker", "one")
    before = content(tmp_path / "certs")
    init("--worker", "one", "--worker", "two")
    after = content(tmp_path / "certs")
    assert after.pop("two")
    assert after == before


def test_credentials_of_a_deleted_state_are_made_again(init, tmp_path):
    init("--worker", "one")
    certs = tmp_path / "certs"
    before, bundle = content(certs), (certs / "bundle.pem").read_bytes()
    for path in sorted((certs / "platform").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    init("--worker", "one")
    assert content(certs) != before
    assert (certs / "bundle.pem").read_bytes() != bundle


def test_standard_output_holds_the_answer_alone(init):
    seen = init("--worker", "one", "-o", "json")
    assert seen.out.startswith("{")
    assert "credential_created" not in seen.out + seen.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_go_to_the_images_user_and_links_are_not_followed(init, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("not theirs")
    init("--worker", "one", uid="10001")
    (tmp_path / "certs" / "platform" / "link").symlink_to(outside)
    init("--worker", "one", uid="10001")
    assert (tmp_path / "certs" / "credentials" / "one").stat().st_uid == 10001
    assert outside.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read the files of every user")
def test_user_who_cannot_give_files_away_is_told_how(init):
    seen = init("--worker", "one", uid="4294967")
    assert "sudo chown -R 4294967" in seen.err


def test_after_a_change_of_the_root_bundle_and_credentials_name_the_new_one(init, tmp_path):
    init("--worker", "one")
    before = content(tmp_path / "certs")
    bundle = (tmp_path / "certs" / "bundle.pem").read_bytes()
    authority = open_authority(
        tmp_path / "certs" / "platform" / "trust", SystemClock(), Lifetimes()
    )
    authority.start_over()
    init("--worker", "one")
    after = content(tmp_path / "certs")
    old, new = (Token.parse(one["one"].decode()) for one in (before, after))
    assert (new.id, new.secret) == (old.id, old.secret)
    assert new.root_sha256 == authority.root_sha256 != old.root_sha256
    assert (tmp_path / "certs" / "bundle.pem").read_bytes() != bundle
    assert "certs is complete" in init("--worker", "one").err
    assert content(tmp_path / "certs") == after
