"""Which secret a step may use: each rule by itself."""

from dataclasses import replace

import pytest
from hivemesh_platform.credentials.errors import SecretInvalidError
from hivemesh_platform.credentials.model import StepSecrets
from hivemesh_platform.credentials.rules import check_path, check_value, refusal, scoped

STEP = StepSecrets(
    run="run_1",
    key="run_1.read.0",
    attempt=1,
    identity="spiffe://test.hivemesh.internal/worker/mail-reader/i1",
    worker="mail-reader",
    named=frozenset({"mail.password", "workers.mail-reader.token", "workers.other.token"}),
    permitted=("mail.*", "workers.**"),
    ends_at=None,
    on_behalf_of="spiffe://test.hivemesh.internal/user/ann",
    grants=("run:secret/*",),
)


@pytest.mark.parametrize("path", ["mail.password", "workers.mail-reader.token"])
def test_what_all_rules_allow(path):
    assert refusal(STEP, path) == ("", "")


@pytest.mark.parametrize(
    ("changes", "path", "rule"),
    [
        ({}, "mail.other", "named"),
        ({}, "workers.other.token", "own-path"),
        ({"named": frozenset({"workers"})}, "workers", "own-path"),
        (
            {"named": frozenset({"tenants.acme.x"}), "permitted": ("**",)},
            "tenants.acme.x",
            "tenant",
        ),
        ({"worker": "mail"}, "workers.mail-reader.token", "own-path"),
        ({"permitted": ()}, "mail.password", "manifest"),
        ({"permitted": ("mail.imap.*",)}, "mail.password", "manifest"),
        ({"permitted": ("mail.*",)}, "workers.mail-reader.token", "manifest"),
        ({"grants": ()}, "mail.password", "principal"),
        ({"grants": ("read:secret/*", "write:secret/*")}, "mail.password", "principal"),
        ({"grants": ("run:secret/mail.imap*",)}, "mail.password", "principal"),
    ],
)
def test_each_rule_refuses_by_itself(changes, path, rule):
    found, why = refusal(replace(STEP, **changes), path)
    assert found == rule
    assert why


@pytest.mark.parametrize("grant", ["admin:*", "run:secret/mail.password", "run:secret/mail.*"])
def test_a_grant_on_the_secret_is_enough(grant):
    assert refusal(replace(STEP, grants=(grant,)), "mail.password") == ("", "")


@pytest.mark.parametrize(
    "path",
    ["", ".", "a.", ".a", "a b", "a/b", "../a", "a" * 65, "a\n", "tenants.acme.a", "tenants"],
)
def test_what_is_no_path(path):
    with pytest.raises(SecretInvalidError):
        check_path(path)


@pytest.mark.parametrize("value", ["", "a\0b", "x" * 65_537, "\u00fc" * 40_000])
def test_what_is_no_value(value):
    with pytest.raises(SecretInvalidError) as caught:
        check_value(value)
    assert not value or value not in caught.value.detail


def test_tenants_do_not_share_paths():
    assert scoped("default", "a.b") == "a.b"
    assert scoped("acme", "a.b") == "tenants.acme.a.b"
    assert scoped("acme", "") == "tenants.acme"


@pytest.mark.parametrize("tenant", ["a.b", "", "acme\n", "Acme", "a" * 41])
def test_what_is_no_tenant_has_no_secrets(tenant):
    with pytest.raises(SecretInvalidError):
        scoped(tenant, "c")
