"""`{{ vault.a.b }}`: what is a reference, where it may stand, and what a pattern covers."""

import msgspec
import pytest
from hivemesh_sdk import Record, Secret
from hivemesh_sdk.contracts.references import (
    named_secrets,
    pattern_problem,
    permits,
    reference_problems,
    references_in,
    secret_path,
    takes_secrets,
    written_secrets,
)
from hivemesh_sdk.worker.codec import options_schema
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

SEGMENT = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
MARKED = {"type": "string", "format": "secret", "writeOnly": True}
REF = "{{ vault.mail.password }}"


class Account(Record):
    user: str
    password: Secret | None = None


class Options(Record):
    text: str = ""
    key: Secret | None = None
    accounts: list[Account] | None = None
    by_name: dict[str, Secret] | None = None
    free: dict[str, object] | None = None


SCHEMA = options_schema(Options)


@given(st.lists(SEGMENT, min_size=1, max_size=16))
def test_every_path_has_one_reference(segments):
    path = ".".join(segments)
    assert secret_path(f"{{{{ vault.{path} }}}}") == path


@pytest.mark.parametrize("text", ["{{vault.a}}", "{{ vault.a }}", "{{  vault.a-b._c }}"])
def test_blanks_inside_do_not_matter(text):
    assert secret_path(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vault.a",
        "{{ vault }}",
        "{{ vault. }}",
        "{{ vault.a. }}",
        "{{ vault..a }}",
        "{{ vault.a.b }} ",
        " {{ vault.a.b }}",
        "Bearer {{ vault.a.b }}",
        "{{ vault.a }}{{ vault.b }}",
        "{{ vault.a | upper }}",
        "{{ vault.a[0] }}",
        "{{ vault.a/b }}",
        "{{ vault.{{ vault.a }} }}",
        "{{ vault.a\n}}",
        "{{ vault.a }}\n",
        "{{ Vault.a }}",
        "{{ vault.ä }}",
        "{{ vault." + "a" * 65 + " }}",
        "{{ vault." + ".".join("a" * 17) + " }}",
        "${{ vault.a.b }}",
        "{{ env.HOME }}",
    ],
)
def test_nothing_else_is_a_reference(text):
    with pytest.raises(ValueError, match="vault"):
        secret_path(text)


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({"key": REF}, "/key"),
        ({"accounts": [{"user": "a"}, {"user": "b", "password": REF}]}, "/accounts/1/password"),
        ({"by_name": {"a/b": REF}}, "/by_name/a~1b"),
    ],
)
def test_references_are_found_where_the_schema_says_secret(options, pointer):
    assert named_secrets(options, SCHEMA) == {"mail.password"}
    assert list(references_in(options, SCHEMA)) == [(pointer, "mail.password")]
    assert list(reference_problems(options, SCHEMA)) == []


@pytest.mark.parametrize(
    "options",
    [
        {"text": REF},
        {"text": f"user:{REF}"},
        {"text": "{{vault"},
        {"free": {"a": {"b": [REF]}}},
        {"accounts": [{"user": REF}]},
        {"unknown": REF},
    ],
)
def test_a_reference_elsewhere_names_nothing_and_is_refused(options):
    assert named_secrets(options, SCHEMA) == frozenset()
    (problem,) = reference_problems(options, SCHEMA)
    assert problem.code == "secret-misplaced"


@pytest.mark.parametrize(
    "value", ["hunter2", "", "${{ parameters.password }}", 7, True, {"a": 1}, [REF]]
)
def test_a_value_in_a_secret_field_is_refused_and_not_repeated(value):
    (problem,) = reference_problems({"key": value}, SCHEMA, "/with")
    assert (problem.pointer, problem.code) == ("/with/key", "secret-literal")
    assert "hunter2" not in problem.message
    assert "hivemesh secret set" in problem.message


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({"accounts": "${{ parameters.accounts }}"}, "/accounts"),
        ({"accounts": ["${{ lookup.account }}"]}, "/accounts/0"),
        ({"accounts": "of ${{ lookup.account }}"}, "/accounts"),
        ({"by_name": "${{ lookup.all }}"}, "/by_name"),
    ],
)
def test_what_has_secrets_below_it_is_not_filled_by_data(options, pointer):
    (problem,) = reference_problems(options, SCHEMA)
    assert (problem.pointer, problem.code) == (pointer, "secret-templated")


def test_what_stands_beside_a_secret_may_be_filled_by_data():
    account = {"user": "${{ parameters.user }}", "password": REF}
    options = {"accounts": [account], "text": "${{ x }}"}
    assert list(reference_problems(options, SCHEMA)) == []


def test_what_a_document_names_is_known_without_its_schema():
    options = {"free": [{"a": REF}], "text": f"a {REF}", "n": 7}
    assert written_secrets(options) == {"mail.password"}


def test_other_texts_in_braces_are_nobodys_business():
    options = {"text": "Dear {{ name }}, {% if vault %}", "free": {"a": "${{ steps.x }}"}}
    assert list(reference_problems(options, SCHEMA)) == []
    assert list(reference_problems({"key": None}, SCHEMA)) == []


def test_without_a_schema_no_field_is_secret():
    assert named_secrets({"key": REF}, None) == frozenset()
    assert [one.code for one in reference_problems({"key": REF}, None)] == ["secret-misplaced"]


def test_pydantic_options_are_marked_alike():
    class Model(BaseModel):
        key: Secret
        other: str = ""

    assert named_secrets({"key": REF}, options_schema(Model)) == {"mail.password"}
    assert options_schema(Model)["properties"]["key"]["writeOnly"] is True


def test_a_schema_that_refers_to_itself_ends():
    schema = {
        "$ref": "#/$defs/Node",
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {"key": MARKED, "next": {"$ref": "#/$defs/Node"}},
                "anyOf": [{"$ref": "#/$defs/Node"}],
            }
        },
    }
    assert named_secrets({"next": {"next": {"key": REF}}}, schema) == {"mail.password"}


@pytest.mark.parametrize(
    ("pattern", "path", "covers"),
    [
        ("mail.password", "mail.password", True),
        ("mail.password", "mail", False),
        ("mail.*", "mail.password", True),
        ("mail.*", "mail.imap.password", False),
        ("mail.*", "mail", False),
        ("mail.*", "mailbox.password", False),
        ("*.password", "mail.password", True),
        ("mail.**", "mail.imap.password", True),
        ("mail.**", "mail", False),
        ("**", "anything.at.all", True),
        ("*", "one", True),
        ("*", "one.two", False),
    ],
)
def test_what_a_pattern_covers(pattern, path, covers):
    assert pattern_problem(pattern) == ""
    assert permits([pattern], path) is covers
    assert not permits([], path)


@pytest.mark.parametrize("pattern", ["", "a..b", "a.**.b", "a*", "a/b", ".a", "{{ vault.a }}"])
def test_what_is_no_pattern(pattern):
    assert pattern_problem(pattern)


def test_the_schema_of_a_secret_survives_json():
    assert msgspec.json.decode(msgspec.json.encode(SCHEMA)) == SCHEMA


def test_a_capability_takes_secrets_where_its_schema_says_so_at_any_depth():
    assert takes_secrets(SCHEMA)
    assert takes_secrets({"anyOf": [{"type": "null"}, MARKED]})
    assert not takes_secrets({"type": "object", "properties": {"key": {"type": "string"}}})
    assert not takes_secrets({"format": "secret"})
    assert not takes_secrets(None)
