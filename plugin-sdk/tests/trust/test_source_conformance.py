"""What every source of identity does, whoever issues: the platform's authority, or files."""

import asyncio
import os
from dataclasses import replace
from datetime import timedelta

import pytest
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.testing.pki import ThrowawayCA, Wrong
from hivemesh_sdk.transport import MeshClient, TransportError, serve
from hivemesh_sdk.transport.connection import Target
from hivemesh_sdk.trust.files import FileIdentitySource, IdentityPaths
from hivemesh_sdk.trust.keys import key_pem, pem, write_private_file

HOUR = timedelta(hours=1)


class Embedded:
    """Renewed by an answer of the authority."""

    def __init__(self, _folder, ca, identity):
        self.ca, self.identity = ca, identity
        self.source = ca.source(identity)

    def renew(self):
        self.source.update(svid=self.ca.svid(self.identity), bundle=self.ca.bundle())


class Files:
    """Renewed by whoever writes the files."""

    def __init__(self, folder, ca, identity):
        self.ca, self.identity, self.writes = ca, identity, 0
        self.paths = IdentityPaths(
            key=folder / "tls.key", chain=folder / "tls.crt", bundle=folder / "ca.crt"
        )
        self.write(ca.svid(identity))
        self.source = FileIdentitySource(self.paths)

    def write(self, svid, *, key=None, roots=None):
        self.writes += 1
        write_private_file(self.paths.key, key_pem(key or svid.key))
        self.paths.chain.write_bytes(pem(svid.chain))
        self.paths.bundle.write_bytes(pem(roots or self.ca.bundle().roots))
        for path in (self.paths.key, self.paths.chain, self.paths.bundle):
            os.utime(path, ns=(self.writes, self.writes))

    def renew(self):
        self.write(self.ca.svid(self.identity))
        assert self.source.reload()


@pytest.fixture
def ca():
    return ThrowawayCA()


@pytest.fixture(params=[Embedded, Files])
def made(request, tmp_path, ca):
    def make(name, identity):
        folder = tmp_path / name
        folder.mkdir()
        return request.param(folder, ca, identity)

    return make


@pytest.fixture
def files(tmp_path, ca):
    return Files(tmp_path, ca, ca.worker())


async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def ask(source, listener, identity):
    target = Target.instance("127.0.0.1", listener.port, identity)
    async with MeshClient(source) as client:
        return (await client.request(target, "GET", "/", deadline_s=30)).status


async def test_it_serves_and_calls(made, ca):
    server, client = made("s", ca.platform()), made("c", ca.worker())
    async with serve(answer, server.source, "127.0.0.1", 0) as listener:
        assert await ask(client.source, listener, ca.platform()) == 200


async def test_a_renewed_identity_is_used_at_once_and_by_those_who_listen(made, ca):
    own = made("s", ca.worker())
    before, told = own.source.svid().serial, []
    own.source.subscribe(lambda source: told.append(source.svid().serial))
    own.renew()
    assert own.source.svid().serial != before
    assert told == [own.source.svid().serial]


async def test_leaves_issuers_and_roots_change_without_a_failed_call(made, ca):
    server, client = made("s", ca.platform()), made("c", ca.worker())
    async with serve(answer, server.source, "127.0.0.1", 0) as listener:
        for change in (
            lambda: None,
            ca.rotate_issuer,
            ca.add_root,
            ca.use_new_root,
            ca.drop_old_root,
        ):
            change()
            for one in (server, client):
                one.renew()
                assert await ask(client.source, listener, ca.platform()) == 200


async def test_who_was_signed_by_a_removed_root_is_refused(made, ca):
    server, late = made("s", ca.platform()), made("c", ca.worker())
    async with serve(answer, server.source, "127.0.0.1", 0) as listener:
        ca.add_root()
        late.source.update(bundle=ca.bundle())
        ca.use_new_root()
        ca.drop_old_root()
        server.renew()
        with pytest.raises(TransportError):
            await ask(late.source, listener, ca.platform())


async def test_an_issuer_that_was_revoked_is_refused_though_its_root_stays(made, ca):
    server, late = made("s", ca.platform()), made("c", ca.worker())
    issuer = late.source.issuer
    ca.rotate_issuer()
    server.renew()
    bundle = replace(ca.bundle(), revoked=frozenset({issuer}), sequence=9)
    server.source.update(bundle=bundle)
    async with serve(answer, server.source, "127.0.0.1", 0) as listener:
        assert await ask(late.source, listener, ca.platform()) == 403
        late.renew()
        assert await ask(late.source, listener, ca.platform()) == 200


async def test_an_older_bundle_does_not_replace_a_newer_one(made, ca):
    own = made("s", ca.worker())
    own.source.update(bundle=replace(ca.bundle(), sequence=5))
    own.source.update(bundle=ca.bundle())
    assert own.source.bundle().sequence == 5


# files alone


async def test_files_that_did_not_change_are_not_read_again(files):
    assert not files.source.reload()


async def test_changed_files_are_found_by_looking(files, monkeypatch):
    monkeypatch.setattr("hivemesh_sdk.trust.files.POLL_S", 0)
    before = files.source.svid().serial
    files.write(files.ca.svid(files.identity))
    changed = asyncio.Event()
    files.source.subscribe(lambda _: changed.set())
    task = asyncio.create_task(files.source.run())
    async with asyncio.timeout(30):
        await changed.wait()
    task.cancel()
    assert files.source.svid().serial != before


def wrong_sets(ca, identity):
    """What may not replace an identity, and the word that says why."""
    good = ca.svid(identity)
    two = Wrong(uris=(str(identity), "spiffe://test.hivemesh.internal/worker/x/y"))
    foreign = ThrowawayCA()
    return {
        "another key": (good, {"key": ca.svid(identity).key}, "another key"),
        "expired": (ca.svid(identity, lifetime=timedelta(seconds=-1)), {}, "not now"),
        "not yet": (ca.svid(identity, starts_in=HOUR / 2), {}, "not now"),
        "two names": (ca.wrong(identity, two), {}, "2 URI names"),
        "no name": (ca.wrong(identity, Wrong(no_names=True)), {}, "holds no identity"),
        "authority": (ca.wrong(identity, Wrong(authority=True)), {}, "authority"),
        "no DNS name": (ca.wrong(identity, Wrong(dns=())), {}, "lacks the DNS names"),
        "foreign root": (foreign.svid(identity), {}, "does not lead to a root"),
        "self-signed": (ca.wrong(identity, Wrong(), self_signed=True), {}, "do not follow"),
        "other name": (ca.svid(ca.worker("echo", "i2")), {}, "instead of"),
    }


@pytest.mark.parametrize("which", sorted(wrong_sets(ThrowawayCA(), ThrowawayCA().worker())))
async def test_a_bad_set_of_files_is_refused_and_the_one_before_stays(files, ca, which):
    svid, how, _ = wrong_sets(ca, files.identity)[which]
    before = files.source.svid()
    files.write(svid, **how)
    assert not files.source.reload()
    assert files.source.failures == 1
    assert files.source.svid() is before


@pytest.mark.parametrize(
    "which", sorted(set(wrong_sets(ThrowawayCA(), ThrowawayCA().worker())) - {"other name"})
)
async def test_a_bad_set_of_files_is_told_at_the_start(files, ca, which):
    svid, how, words = wrong_sets(ca, files.identity)[which]
    files.write(svid, **how)
    with pytest.raises(ConfigurationError, match=words):
        FileIdentitySource(files.paths)


@pytest.mark.parametrize("missing", ["key", "chain", "bundle"])
async def test_a_missing_or_damaged_file_is_told_with_its_name(files, missing):
    path = getattr(files.paths, missing)
    for damage in (lambda: path.write_bytes(b"nonsense"), path.unlink):
        damage()
        with pytest.raises(ConfigurationError, match=path.name):
            FileIdentitySource(files.paths)


async def test_a_key_that_others_may_read_is_refused(files):
    files.paths.key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="read by others"):
        FileIdentitySource(files.paths)


async def test_what_the_platform_announces_is_trusted_in_addition(files, ca):
    other = ThrowawayCA()
    announced = replace(other.bundle(), sequence=4, tainted=frozenset({"x"}))
    files.source.update(bundle=announced)
    assert set(files.source.bundle().roots) == {*ca.bundle().roots, *other.bundle().roots}
    assert files.source.bundle().tainted == {"x"}
    files.renew()
    assert set(files.source.bundle().roots) == {*ca.bundle().roots, *other.bundle().roots}


async def test_a_root_that_left_the_files_is_trusted_no_longer(files, ca):
    old = ca.bundle().roots
    ca.add_root()
    files.renew()
    ca.use_new_root()
    ca.drop_old_root()
    files.renew()
    assert not set(old) & set(files.source.bundle().roots)
