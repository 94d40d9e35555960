"""What a start would refuse of settings is found without one, all of it at once."""

import pytest
from hivemesh_platform.configuration import Surroundings, load
from hivemesh_platform.refusals import missing_folders, refusals
from hivemesh_sdk.testing.clock import ManualClock

PASSPHRASE = "correct-horse-7-battery-Staple"


@pytest.fixture
def loaded(tmp_path):
    def of(_environment=None, **flags):
        surroundings = Surroundings(
            environment=_environment or {}, working_folder=tmp_path, home=tmp_path
        )
        return load(surroundings, {key.replace("__", "."): value for key, value in flags.items()})

    return of


def refused(loaded):
    return [(one.key, one.error.slug) for one in refusals(loaded, ManualClock())]


def test_the_defaults_are_not_refused(loaded):
    assert refused(loaded()) == []


INVALID = "configuration-invalid"
REFUSED = {
    "production without a passphrase": ({"mode": "production"}, "trust.passphrase", INVALID),
    "a passphrase that is guessed": ({"trust__passphrase": "secret"}, "trust.passphrase", INVALID),
    "a short root": ({"trust__root_lifetime_s": 60}, "trust", "configuration"),
    "no trust domain": ({"trust__trust_domain": "Example"}, "trust.trust_domain", "configuration"),
    "another database": (
        {"database__url": "mysql://root@db/hivemesh"},
        "database.url",
        "database-unsuitable",
    ),
    "a connection that nobody checks": (
        {"database__url": "postgresql://h@db/h?sslmode=require"},
        "database.url",
        "database-unsuitable",
    ),
    "a limit of nothing": ({"execution__limits": {"x": 1}}, "execution.limits.x", "limit-invalid"),
    "a rate that is none": (
        {"execution__rates": {"all": "fast"}},
        "execution.rates.all",
        "limit-invalid",
    ),
    "an unknown store": ({"secrets__store": "cellar"}, "secrets", INVALID),
    "a vault without TLS": (
        {"secrets__store": "vault", "secrets__vault__address": "http://v"},
        "secrets",
        INVALID,
    ),
    "one port twice": ({"api__enrolment_port": 8443}, "api", "port-taken"),
}


@pytest.mark.parametrize(("flags", "key", "slug"), REFUSED.values(), ids=REFUSED)
def test_what_a_start_refuses_is_named_with_its_setting(loaded, flags, key, slug):
    assert refused(loaded(**flags)) == [(key, slug)]


def test_an_identity_by_files_has_its_files(loaded, tmp_path):
    names = ("key", "chain", "bundle")
    files = {f"trust__identity_{name}": str(tmp_path / name) for name in names}
    found = refusals(
        loaded(trust__identity="files", trust__trust_domain="a.test", **files), ManualClock()
    )
    assert [one.key for one in found] == ["trust.identity"]


def test_crash_points_are_for_drills(loaded):
    flags = {"mode": "production", "trust__passphrase": PASSPHRASE}
    armed = loaded({"HIVEMESH_CRASH_AT": "finish.before"}, **flags)
    assert refused(armed) == [("HIVEMESH_CRASH_AT", INVALID)]
    assert refused(loaded({"HIVEMESH_CRASH_AT": "finish.before"})) == []


def test_everything_is_refused_at_once_and_says_what_to_do(loaded):
    flags = {"mode": "production", "execution__limits": {"x": 1, "y": 1}}
    found = refusals(loaded(database__url="mysql://db/h", **flags), ManualClock())
    assert len(found) == 4
    documents = [one.error.problem() for one in found]
    assert all(one.code and one.remedy for one in documents)


def test_named_folders_of_workers_are_there(loaded, tmp_path):
    assert missing_folders(loaded()) == []
    (tmp_path / "here").mkdir()
    found = loaded(workers__folders=[str(tmp_path / "here"), str(tmp_path / "gone")])
    assert missing_folders(found) == [str(tmp_path / "gone")]
