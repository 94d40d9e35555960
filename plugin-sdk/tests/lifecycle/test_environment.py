"""What a worker process is told by environment variables."""

import pytest
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.lifecycle.environment import Address, read_environment

SUPERVISED = {
    "HIVEMESH_PLATFORM": "https://127.0.0.1:8443",
    "HIVEMESH_ENROLMENT": "https://127.0.0.1:8444/",
    "HIVEMESH_TOKEN_FD": "3",
}


def test_a_supervised_worker_needs_three_variables():
    environment = read_environment(SUPERVISED)
    assert environment.platform == Address("127.0.0.1", 8443)
    assert environment.enrolment == Address("127.0.0.1", 8444)
    assert environment.supervised
    assert (environment.port, environment.alone_s) == (0, 120.0)


def test_a_worker_may_be_told_never_to_give_up():
    assert read_environment({**SUPERVISED, "HIVEMESH_ALONE_S": "0"}).alone_s == 0.0


def test_a_worker_with_a_credential_is_not_supervised():
    variables = {**SUPERVISED, "HIVEMESH_CREDENTIAL_FILE": "/run/secrets/credential"}
    del variables["HIVEMESH_TOKEN_FD"]
    assert not read_environment(variables).supervised


def test_a_listener_on_all_addresses_is_advertised_by_a_name():
    everywhere = "0.0.0.0"  # noqa: S104 - nothing is bound
    environment = read_environment({**SUPERVISED, "HIVEMESH_HOST": everywhere})
    assert environment.advertise_host not in {everywhere, ""}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HIVEMESH_PLATFORM", ""),
        ("HIVEMESH_PLATFORM", "http://127.0.0.1:8443"),
        ("HIVEMESH_PLATFORM", "https://127.0.0.1"),
        ("HIVEMESH_PLATFORM", "https://127.0.0.1:port"),
        ("HIVEMESH_PLATFORM", "https://127.0.0.1:8443/v1"),
        ("HIVEMESH_ENROLMENT", ""),
        ("HIVEMESH_TOKEN_FD", ""),
        ("HIVEMESH_TOKEN_FD", "-1"),
        ("HIVEMESH_CREDENTIAL_FILE", "both-are-too-many"),
        ("HIVEMESH_PORT", "x"),
        ("HIVEMESH_INSTANCE", "a/b"),
        ("HIVEMESH_PLATFORM_ID", "platform"),
        ("HIVEMESH_LOG_CLASS_MAX", "private"),
    ],
)
def test_a_wrong_variable_is_named(name, value):
    with pytest.raises(ConfigurationError, match="HIVEMESH_"):
        read_environment({**SUPERVISED, name: value})


FILES = {f"HIVEMESH_IDENTITY_{name}": f"/run/{name}" for name in ("KEY", "CHAIN", "BUNDLE")}


def test_an_identity_from_files_needs_no_enrolment():
    environment = read_environment({"HIVEMESH_PLATFORM": "https://127.0.0.1:8443", **FILES})
    assert environment.identity is not None
    assert str(environment.identity.chain) == "/run/CHAIN"
    assert not environment.supervised


@pytest.mark.parametrize("missing", FILES)
def test_an_identity_is_three_files(missing):
    files = {name: value for name, value in FILES.items() if name != missing}
    with pytest.raises(ConfigurationError, match=missing):
        read_environment({"HIVEMESH_PLATFORM": "https://127.0.0.1:8443", **files})


def test_files_and_a_token_are_too_many():
    with pytest.raises(ConfigurationError, match="exactly one"):
        read_environment({**SUPERVISED, **FILES})
