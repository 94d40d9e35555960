"""`Secret`: its value is shown by `reveal` and by nothing else, and only while it is lent."""

import copy
import json
import pickle  # noqa: TID251 - to see that it is refused
import traceback

import msgspec
import pytest
from hivemesh_sdk import ConfigurationError, FatalError, Record, Secret
from hivemesh_sdk.contracts.secrets import SecretLease
from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.redaction import REDACTOR
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.worker.codec import Codec, encode_record, options_of
from hivemesh_sdk.worker.failures import problem_of, refuse_secrets
from hivemesh_sdk.worker.secrets import GivenValues, LeasedValues, Secrets
from pydantic import BaseModel, ValidationError

VALUE = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _no_values_of_others():
    yield
    REDACTOR.clear()


class Options(Record):
    key: Secret
    name: str = ""


class Model(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    key: Secret


def made(path="mail.password"):
    return Secret(path, GivenValues({path: VALUE}))


def test_nothing_prints_it():
    secret = made()
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r:>40}",
        f"{[secret]}",
    ]
    shown += [repr(Options(key=secret)), str(vars(Model(key="{{ vault.a }}")))]
    assert not any(VALUE in text for text in shown)
    assert secret.reveal() == VALUE
    assert secret.path == "mail.password"


@pytest.mark.parametrize(
    "write",
    [
        pickle.dumps,
        json.dumps,
        msgspec.json.encode,
        msgspec.msgpack.encode,
        msgspec.to_builtins,
        encode_record,
        lambda secret: encode_record(Options(key=secret)),
        lambda secret: Model.model_construct(key=secret).model_dump_json(),
        lambda secret: Model.model_construct(key=secret).model_dump(),
    ],
)
def test_nothing_writes_it(write):
    with pytest.raises(Exception, match=r"(?i)secret|serializ|unsupported"):
        write(made())


def test_copies_are_the_same_object():
    secret = made()
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_secrets_are_compared_by_identity_alone():
    assert made() != made()
    assert made() != VALUE


@pytest.mark.parametrize("kind", [Options, Model])
def test_a_reference_in_options_becomes_a_secret(kind):
    vault = GivenValues({"mail.password": VALUE})
    options = options_of(Codec(kind), {"key": "{{ vault.mail.password }}"}, vault)
    assert options.key.reveal() == VALUE


@pytest.mark.parametrize("kind", [Options, Model])
@pytest.mark.parametrize("value", [VALUE, "", 7, None, "x{{ vault.a }}", {"a": VALUE}])
def test_a_value_in_options_is_refused_and_not_repeated(kind, value):
    with pytest.raises((ConfigurationError, ValidationError)) as caught:
        options_of(Codec(kind), {"key": value})
    assert isinstance(caught.value, ConfigurationError)
    assert [one.pointer for one in caught.value.errors] == ["/key"]
    assert VALUE not in str(caught.value) + str(caught.value.errors)


def test_no_secret_is_read_from_a_record():
    with pytest.raises((msgspec.ValidationError, TypeError)):
        Codec(Options).decode(b'{"key": "{{ vault.a }}"}')


def test_a_path_that_is_none_is_refused():
    with pytest.raises(ConfigurationError, match="no path"):
        Secrets(GivenValues({})).get("a/b")


class Platform:
    """Lends for ten seconds."""

    def __init__(self):
        self.asked = []
        self.clock = ManualClock()
        self.values = LeasedValues(self.lend, self.clock.monotonic)

    def lend(self, path):
        self.asked.append(path)
        return SecretLease(id="l", path=path, version=1, value=VALUE, expires_in_s=10.0)


def test_a_value_is_asked_for_when_it_is_used_and_once_per_lease():
    platform = Platform()
    secret = Secret("a.b", platform.values)
    assert platform.asked == []
    assert secret.reveal() == secret.reveal() == VALUE
    assert platform.asked == ["a.b"]


def test_an_expired_lease_gives_nothing_by_itself():
    platform = Platform()
    secret = Secret("a.b", platform.values)
    secret.reveal()
    platform.clock.advance(10)
    assert secret.reveal() == VALUE
    assert platform.asked == ["a.b", "a.b"]

    def refused(_path):
        raise FatalError("ended", slug="secret-lease-expired")

    platform.clock.advance(10)
    platform.values._ask = refused
    with pytest.raises(FatalError, match="ended"):
        secret.reveal()


def test_nothing_is_lent_after_the_step():
    platform = Platform()
    secret = Secret("a.b", platform.values)
    secret.reveal()
    platform.values.close()
    with pytest.raises(FatalError) as caught:
        secret.reveal()
    assert caught.value.slug == "secret-lease-expired"
    assert VALUE not in str(vars(platform.values)) if hasattr(platform.values, "__dict__") else True


def test_a_lease_does_not_print_its_value():
    lease = SecretLease(id="l", path="a", version=1, value=VALUE, expires_in_s=1.0)
    assert VALUE not in repr(lease)


def test_what_leaves_the_step_is_masked_or_refused():
    secret = made()
    value = secret.reveal()
    assert problem_of(ValueError(f"login {value}")).detail == "ValueError: login ***"
    assert problem_of(FatalError(f"login {value}")).detail == "login ***"
    for data in (value.encode(), b'{"a":"' + value.encode().hex().encode() + b'"}'):
        with pytest.raises(HivemeshError) as caught:
            refuse_secrets(data, "the answer")
        assert caught.value.slug == "secret-in-answer"
    refuse_secrets(b"anything else", "the answer")


def test_a_traceback_does_not_show_it():
    secret = made()
    try:
        secret.reveal().index("\0")
    except ValueError:
        assert VALUE not in REDACTOR.masked(traceback.format_exc())
