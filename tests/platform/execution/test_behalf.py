"""On whose behalf a step runs: what is lent, and which roles a rule or a denial is asked with."""

from hivemesh_platform.access.model import Principal
from hivemesh_platform.execution.behalf import behalf_of, effective


def person(*roles, tenant="default", **more):
    return Principal(id="spiffe://td/user/anna", tenant=tenant, roles=roles, **more)


def test_a_role_of_another_tenant_is_not_the_installations_role():
    found = effective(behalf_of(person("analyst", "pii-cleared", tenant="acme")))
    assert found.roles == ("viewer", "analyst", "acme/pii-cleared")


def test_the_installations_own_roles_keep_their_names():
    found = effective(behalf_of(person("analyst", "pii-cleared")))
    assert found.roles == ("viewer", "analyst", "pii-cleared")


def test_denials_are_asked_with_the_roles_of_everybody_involved():
    contractor, author = behalf_of(person("analyst", "contractor")), behalf_of(person("author"))
    found = effective(contractor, author)
    assert (found.roles, found.other_roles) == (("viewer", "analyst"), ("author", "contractor"))
    found = effective(author, contractor)
    assert (found.roles, found.other_roles) == (("viewer", "analyst"), ("author", "contractor"))


def test_denials_are_asked_with_the_roles_of_a_tokens_owner():
    token = behalf_of(person(other_roles=("analyst", "contractor")))
    assert effective(token).roles == ()
    assert effective(token).other_roles == ("viewer", "analyst", "contractor")


def test_an_author_of_another_tenant_lends_nothing_and_is_denied_with():
    author = behalf_of(person("analyst", "contractor", tenant="acme"))
    found = effective(behalf_of(person("analyst", grants=("read:dataset/*",))), author)
    assert (found.roles, found.grants) == ((), ())
    assert found.other_roles == ("viewer", "analyst", "acme/contractor")


def test_what_is_frozen_once_may_be_frozen_again():
    once = effective(behalf_of(person("analyst", other_roles=("contractor",))))
    assert effective(once) == once
