"""The policy in the documentation is one: the example, the page's document, the signed form."""

from pathlib import Path

import msgspec
import pytest
from hivemesh_platform.access.workload_policy import FIRST_DOCUMENT, offline_tests
from hivemesh_sdk.contracts.policy import REISSUE_S, STALE_S, SignedPolicy
from hivemesh_sdk.safeio.documents import parse_policy
from hivemesh_sdk.trust.policy import CompiledPolicy, Facts, Reason
from pages import blocks

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = (DOCS / "how-to" / "policy.yaml").read_text(encoding="utf-8")
PROTOCOL = "docs/reference/protocol.md"
(WRITTEN,) = blocks("docs/how-to/policy.md", "yaml")


@pytest.mark.parametrize("text", [EXAMPLE, WRITTEN], ids=["example", "page"])
def test_every_document_passes_its_own_tests(text):
    results = offline_tests(parse_policy(text))
    assert results
    assert [one for one in results if not one.passed] == []


def test_the_first_document_of_an_installation_is_valid():
    assert [rule.id for rule in parse_policy(FIRST_DOCUMENT).rules] == ["platform"]


def test_the_signed_policy_of_the_protocol_is_one():
    (payload,) = blocks(PROTOCOL, "policy")
    policy = CompiledPolicy(msgspec.json.decode(payload, type=SignedPolicy))
    caller = f"spiffe://{policy.trust_domain}/platform/p1"
    known = Facts(ticket=True, roles=["viewer"])
    assert policy.unreadable == 0
    assert policy.decide(caller, "text", "text.echo@1", known).reason is Reason.RULE
    assert policy.decide(caller, "doc-converter", "doc.convert@1", known).reason is Reason.DENY


def test_the_times_of_the_protocol_are_those_of_the_code():
    text = (DOCS.parent / PROTOCOL).read_text(encoding="utf-8")
    assert "every five minutes" in text
    assert "15 minutes ago" in text
    assert (REISSUE_S, STALE_S) == (300, 900)
