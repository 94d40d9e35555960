"""The policy at a worker: what is taken, what is refused, when it is too old, what it denies."""

import asyncio
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemesh_sdk.contracts.policy import STALE_S, DenyList, PolicyDocument, SignedPolicy
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.errors import RemoteError
from hivemesh_sdk.lifecycle.policy import PolicyFetcher, PolicyStore, Taken
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.testing.pki import ThrowawayCA
from hivemesh_sdk.transport.errors import WorkerUnreachableError
from hivemesh_sdk.trust.denials import Denials
from hivemesh_sdk.trust.identity import Peer, SpiffeId
from hivemesh_sdk.trust.jws import SignatureInvalidError, SigningKey
from hivemesh_sdk.trust.policy import Facts, encode_policy, raw_rules, signed_rules

RULES = {
    "rules": [
        {
            "id": "platform",
            "from": {"platform": "*"},
            "to": {"worker": "*", "capabilities": ["*"]},
            "when": {"ticket": "optional"},
        }
    ]
}


class Scene:
    def __init__(self) -> None:
        self.ca = ThrowawayCA()
        self.clock = ManualClock()
        self.denials = Denials()
        self.source = self.ca.source(self.ca.worker())
        self.store = PolicyStore(self.source, self.denials, self.clock)

    def signed(self, version: int = 1, *, seconds: float = 0.0, key=None, **denied) -> str:
        rules, deny = signed_rules(PolicyDocument.model_validate(RULES), self.ca.trust_domain)
        policy = SignedPolicy(
            version=version,
            issued_at=round((self.clock.now().timestamp() + seconds) * 1000),
            trust_domain=self.ca.trust_domain,
            rules=raw_rules(rules),
            deny=deny,
            denials=DenyList(**denied),
        )
        return (key or self.ca.signing).sign(encode_policy(policy), "hivemesh-policy")

    def allowed(self) -> bool:
        caller = str(self.ca.platform())
        return self.store.current().decide(caller, "echo", "text.echo@1", Facts()).allowed


@pytest.fixture
def scene() -> Scene:
    return Scene()


def peer(identity: SpiffeId, serial: int = 7) -> Peer:
    return Peer(identity, ManualClock().now() + timedelta(hours=1), serial, str(identity))


def test_before_the_first_policy_nothing_is_allowed(scene):
    assert not scene.allowed()
    assert scene.store.stale


def test_a_signed_policy_is_used_at_once(scene):
    assert scene.store.take(scene.signed()) is Taken.NEW
    assert scene.allowed()
    assert not scene.store.stale


def test_a_policy_of_another_signer_is_refused_and_the_last_good_one_kept(scene):
    scene.store.take(scene.signed(3))
    stranger = SigningKey(Ed25519PrivateKey.generate())
    assert scene.store.take(scene.signed(4, seconds=1, key=stranger)) is Taken.INVALID
    assert scene.store.current().version == 3
    assert scene.store.outcomes[Taken.INVALID] == 1


def test_a_changed_byte_is_refused_and_the_last_good_one_kept(scene):
    scene.store.take(scene.signed(3))
    head, payload, signature = scene.signed(4, seconds=1).split(".")
    changed = f"{head}.{'A' if payload[0] != 'A' else 'B'}{payload[1:]}.{signature}"
    assert scene.store.take(changed) is Taken.INVALID
    assert scene.store.current().version == 3


@pytest.mark.parametrize(("version", "seconds"), [(2, 5.0), (3, -5.0), (4, -5.0)])
def test_an_older_policy_is_refused(scene, version, seconds):
    scene.store.take(scene.signed(3))
    assert scene.store.take(scene.signed(version, seconds=seconds)) is Taken.OLDER
    assert scene.store.current().version == 3


def test_the_same_policy_again_changes_nothing(scene):
    token = scene.signed()
    scene.store.take(token)
    epoch = scene.denials.epoch
    assert scene.store.take(token) is Taken.SAME
    assert scene.denials.epoch == epoch


def test_a_policy_is_stale_when_nobody_has_signed_it_again(scene):
    scene.store.take(scene.signed())
    scene.clock.advance(STALE_S - 1)
    assert not scene.store.stale
    scene.clock.advance(2)
    assert scene.store.stale
    scene.store.take(scene.signed())
    assert not scene.store.stale


def test_a_computer_that_slept_has_a_stale_policy(scene):
    scene.store.take(scene.signed())
    scene.clock.jump(timedelta(hours=1))
    assert scene.store.stale


def test_a_policy_of_a_clock_ahead_grows_old_all_the_same(scene):
    scene.store.take(scene.signed(seconds=3600))
    scene.clock.advance(STALE_S + 1)
    assert scene.store.stale


def test_denials_count_as_soon_as_they_arrive(scene):
    banned = scene.ca.worker("parser", "i1")
    scene.store.take(scene.signed())
    assert not scene.denials.refuses(peer(banned))
    epoch = scene.denials.epoch
    rule = f"spiffe://{scene.ca.trust_domain}/worker/parser/*"
    scene.store.take(scene.signed(seconds=1, identities=[rule], serials=["ff"]))
    assert scene.denials.epoch > epoch
    assert scene.denials.refuses(peer(banned))
    assert scene.denials.refuses(peer(scene.ca.worker(), serial=255))
    scene.store.take(scene.signed(seconds=2))
    assert not scene.denials.refuses(peer(banned))


class Platform:
    """Answers what a test lays out, then nothing for ever."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []
        self.emptied = asyncio.Event()

    async def __call__(self, after: int, wait_s: float) -> str | None:
        self.asked.append(after)
        if not self.answers:
            self.emptied.set()
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr("hivemesh_sdk.lifecycle.policy.SHORTEST_PAUSE_S", 0.0)


async def test_a_platform_that_is_not_there_yet_is_waited_for(scene):
    gone = WorkerUnreachableError("nobody", sent=False)
    platform = Platform(gone, gone, scene.signed())
    await PolicyFetcher(scene.store, platform).first()
    assert scene.allowed()


async def test_a_worker_that_gives_up_tells_why(scene):
    gone = WorkerUnreachableError("nobody", sent=False)
    with pytest.raises(WorkerUnreachableError):
        await PolicyFetcher(scene.store, Platform(gone)).first(gives_up=lambda: True)
    with pytest.raises(SignatureInvalidError):
        await PolicyFetcher(scene.store, Platform("nonsense")).first(gives_up=lambda: True)


async def test_a_platform_that_refuses_is_not_asked_again(scene):
    refused = RemoteError(problem("peer-revoked"))
    with pytest.raises(RemoteError):
        await PolicyFetcher(scene.store, Platform(refused)).first()


async def test_each_poll_asks_for_what_is_newer(scene):
    first, second = scene.signed(1), scene.signed(2, seconds=1)
    gone = WorkerUnreachableError("nobody", sent=False)
    platform = Platform(first, None, gone, second)
    task = asyncio.create_task(PolicyFetcher(scene.store, platform).run())
    await asyncio.wait_for(platform.emptied.wait(), 30)
    task.cancel()
    assert scene.store.current().version == 2
    issued = sorted(set(platform.asked))
    assert issued[0] == 0
    assert platform.asked == [0, issued[1], issued[1], issued[1], issued[2]]
