"""How grants are written, what they cover, and what two sets of them have in common."""

from itertools import pairwise

import pytest
from hivemesh_platform.access.model import KINDS, VERBS, Grant, GrantInvalidError, Principal, Rights
from hivemesh_platform.access.model import decide as decided
from hivemesh_platform.access.roles import ROLES
from hypothesis import given
from hypothesis import strategies as st


def rights(*texts: str) -> Rights:
    return Rights(Grant.parse(text) for text in texts)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("read:dataset/sales", "read:dataset/sales"),
        ("read:dataset/*", "read:dataset/*"),
        ("read:run", "read:run/*"),
        ("write:reports", "write:dataset/reports"),
        ("create:honey_jars", "create:dataset/honey_jars"),
        ("read:sales*", "read:dataset/sales*"),
        ("admin:all", "admin:*"),
        ("admin:*", "admin:*"),
        ("read:*", "read:*"),
        (" run:capability/email.parse@1 ", "run:capability/email.parse@1"),
    ],
)
def test_a_grant_has_one_long_form(written: str, meant: str) -> None:
    assert str(Grant.parse(written)) == meant
    assert str(Grant.parse(meant)) == meant


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("delete:run", "allowed are read, write, create, run, admin"),
        ("read:table/x", "allowed are artifact, audit"),
        ("read:runs", "write 'run'"),
        ("read:a*b", "is no name"),
        ("read:dataset/", "is no name"),
        ("read:dataset/a/b", "is no name"),
        ("read:", "write <verb>:<kind>/<name>"),
        ("sales", "write <verb>:<kind>/<name>"),
        ("read:dataset/../x", "is no name"),
    ],
)
def test_unknown_words_are_refused_with_those_that_are_allowed(written: str, told: str) -> None:
    with pytest.raises(GrantInvalidError) as refused:
        Grant.parse(written)
    assert told in refused.value.detail


@pytest.mark.parametrize(
    ("held", "verb", "name", "allowed"),
    [
        ("write:x", "write", "x", True),
        ("write:x", "create", "x", True),
        ("write:x", "read", "x", False),
        ("write:x", "write", "y", False),
        ("write:x", "write", "xx", False),
        ("create:x", "write", "x", False),
        ("read:x*", "read", "xx", True),
        ("read:x*", "read", "y", False),
        ("read:dataset", "read", "y", True),
        ("admin:x", "read", "x", True),
        ("admin:x", "run", "x", True),
        ("admin:x", "read", "y", False),
        ("admin:*", "write", "y", True),
        ("read:run/x", "read", "x", False),
    ],
)
def test_a_grant_covers_what_it_names(held: str, verb: str, name: str, *, allowed: bool) -> None:
    assert rights(held).allows(verb, "dataset", name) is allowed


def test_each_role_has_what_the_one_before_it_has() -> None:
    held = [rights(*role.grants) for role in ROLES.values()]
    for less, more in pairwise(held):
        assert more.include(less)
        assert not less.include(more)


def test_every_kind_and_verb_of_the_roles_is_known() -> None:
    for role in ROLES.values():
        assert all(str(Grant.parse(text)) for text in role.grants)


def test_what_another_grant_covers_is_left_out() -> None:
    assert rights("read:dataset", "read:x", "read:x*").texts() == ("read:dataset/*",)


names = st.sampled_from(["a", "ab", "a*", "ab*", "b", "*"])
grants = st.builds(Grant, st.sampled_from(VERBS), st.sampled_from([*list(KINDS)[:3], "*"]), names)
sets = st.lists(grants, max_size=4).map(Rights)
questions = st.tuples(
    st.sampled_from(VERBS),
    st.sampled_from(list(KINDS)[:3]),
    st.sampled_from(["a", "ab", "abc", "b"]),
)


@given(sets, sets, questions)
def test_the_common_rights_allow_what_both_allow(
    one: Rights, two: Rights, question: tuple[str, str, str]
) -> None:
    both = one.allows(*question) and two.allows(*question)
    assert one.common(two).allows(*question) is both


@given(sets, sets, questions)
def test_who_includes_another_allows_all_that_he_does(
    one: Rights, two: Rights, question: tuple[str, str, str]
) -> None:
    if one.include(two) and two.allows(*question):
        assert one.allows(*question)


@given(st.lists(grants, max_size=5), questions)
def test_leaving_out_changes_nothing(held: list[Grant], question: tuple[str, str, str]) -> None:
    assert Rights(held).allows(*question) is any(one.covers(*question) for one in held)


def test_a_decision_says_which_rule_allows_it_and_where_it_comes_from() -> None:
    who = Principal(
        id="spiffe://td.internal/user/anna",
        grants=("read:dataset/*",),
        sources=(("read:dataset/*", "role analyst (group SalesTeam)"),),
    )
    verdict = decided(who, "read", "dataset", "sales")
    assert verdict.allowed
    assert verdict.reason == "role analyst (group SalesTeam) allows read:dataset/*"
    denied = decided(who, "write", "dataset", "sales")
    assert (denied.allowed, denied.rule) == (False, "")
    assert "has write:dataset/sales" in denied.reason
