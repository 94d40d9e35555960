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
