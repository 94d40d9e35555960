"""What is not found names the list that has the others, and the names that are near."""

from types import SimpleNamespace

import pytest
from hivemesh_platform.cli import config, session
from hivemesh_platform.cli.near import with_near
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.errors import NotFoundError, RetryableError


class Client:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def workers(self):
        return [SimpleNamespace(name=name) for name in ("email-parser", "email-insights")]

    def capabilities(self):
        return [SimpleNamespace(id=name) for name in ("email.parse@1", "email.classify@1")]

    def jobs(self, *, limit):
        raise RetryableError(slug="platform-unreachable")


@pytest.fixture(autouse=True)
def platform(monkeypatch):
    monkeypatch.setattr(session, "again", lambda **_: Client())


def absent(kind, name):
    return problem("not-found", f"there is no {kind} {name!r}")


def test_a_name_that_is_nearly_right_is_mended():
    found = with_near(absent("worker", "email-parse"), ["worker", "show", "email-parse"])
    assert "did you mean email-parser" in found.remedy
    assert "`hivemesh worker list`" in found.remedy


def test_a_name_that_is_there_is_not_offered():
    document = absent("worker", "email-parser")
    assert with_near(document, ["worker", "logs", "email-parser"]) is document


def test_a_name_near_to_none_names_the_list_only():
    found = with_near(absent("worker", "nope"), ["worker", "show", "nope"])
    assert found.remedy == "`hivemesh worker list` shows those that you may see"


def test_a_capability_is_looked_for_whatever_command_names_it():
    document = problem("unknown-capability", "no installed worker has 'email.pars@1'")
    found = with_near(document, ["job", "submit", "email.pars@1"])
    assert "did you mean email.parse@1" in found.remedy


def test_a_list_that_cannot_be_had_does_not_hide_the_error():
    found = with_near(absent("run or job", "nope"), ["job", "show", "nope"])
    assert found.remedy == "`hivemesh job list` shows those that you may see"


def test_other_errors_are_left_alone():
    document = problem("conflict", "'email-parse' is held")
    assert with_near(document, ["worker", "show", "email-parse"]) is document


def test_an_unknown_setting_is_no_empty_table():
    with pytest.raises(NotFoundError) as caught:
        config.show("api.prot")
    assert "api.port" in caught.value.remedy
