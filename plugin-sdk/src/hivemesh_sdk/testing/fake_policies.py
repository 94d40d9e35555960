"""Policies for tests: one of a fake platform, signed like the real one, and one that allows all."""

import asyncio
import time
from collections.abc import Mapping

from pydantic import JsonValue

from hivemesh_sdk.contracts.policy import (
    POLICY_TYPE,
    DenyList,
    PolicyDocument,
    SignedConditions,
    SignedDestination,
    SignedPolicy,
    SignedRule,
)
from hivemesh_sdk.testing.pki import ThrowawayCA
from hivemesh_sdk.trust.policy import CompiledPolicy, encode_policy, raw_rules, signed_rules

PLATFORM_MAY_CALL: Mapping[str, JsonValue] = {
    "rules": [{"id": "platform", "from": {"platform": "*"}, "to": {"worker": "*"}}]
}


class EverythingAllowed:
    """Implements `Policies` where a test is about something else: everybody may call everything."""

    stale = False
    refused = 0

    def __init__(self) -> None:
        everything = SignedRule(
            id="everything", source="*", to=SignedDestination("*", ["*"]), when=SignedConditions()
        )
        rules = raw_rules([everything])
        self._policy = CompiledPolicy(
            SignedPolicy(version=1, issued_at=1, trust_domain="", rules=rules, deny=[])
        )

    def current(self) -> CompiledPolicy:
        """The policy."""
        return self._policy


class FakePolicies:
    """Versions of a policy; by the first one the platform may call everything with a ticket."""

    def __init__(self, ca: ThrowawayCA) -> None:
        self._ca = ca
        self._changed = asyncio.Event()
        self.version = 0
        self.issued_at = 0
        self.token = ""
        self._rules: Mapping[str, JsonValue] = {}
        self.apply(PLATFORM_MAY_CALL)

    def apply(self, document: Mapping[str, JsonValue]) -> None:
        """Announce another document as the next version."""
        self.version += 1
        self._rules = document
        self.sign()

    def sign(self, denials: DenyList | None = None) -> None:
        """Sign the present version again, with a deny list or an empty one."""
        domain = self._ca.trust_domain
        rules, deny = signed_rules(PolicyDocument.model_validate(self._rules), domain)
        self.issued_at = max(self.issued_at + 1, round(time.time() * 1000))
        policy = SignedPolicy(
            version=self.version,
            issued_at=self.issued_at,
            trust_domain=domain,
            rules=raw_rules(rules),
            deny=deny,
            denials=denials or DenyList(),
        )
        self._foreign = False
        self._tell(self._ca.signing.sign(encode_policy(policy), POLICY_TYPE))

    def announce(self, token: str) -> None:
        """Hand out these bytes, whatever they are, to everybody who waits or asks."""
        self._foreign = True
        self._tell(token)

    def _tell(self, token: str) -> None:
        self.token = token
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def newer(self, after: int, wait_s: float) -> str | None:
        """The present token, at once where it is newer than `after` or as soon as it changes."""
        if self._foreign or self.issued_at > after:
            return self.token
        try:
            async with asyncio.timeout(wait_s):
                await self._changed.wait()
        except TimeoutError:
            return None
        return self.token
