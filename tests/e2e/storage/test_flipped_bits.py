"""Bits flip in what is stored: each is found, none is served, and the bytes can be stored again.

In short: `tests/platform/artifacts/test_local.py`, `tests/platform/api/test_work_routes.py`.
"""

import hashlib
import random
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
from chaos_figures import record
from hivemesh_sdk.contracts.api import RunState
from hivemesh_sdk.errors import HivemeshError, RemoteError
from mail import submit, write_mbox
from whole_platform import Installation

pytestmark = [pytest.mark.e2e, pytest.mark.chaos]

MESSAGES = 2000
SMALL_BATCHES = ("execution.batch_records=25", "execution.in_flight_batches=4")
FLIPS = 1000
OUTPUTS = ("messages", "insights", "report")
LARGE = "messages"  # small answers are kept in their rows
DAMAGED = "HM-1503"
BLOCK = 1024 * 1024  # what is large is read and served in blocks


@dataclass(slots=True)
class Store:
    """The artifacts of an installation: true bytes by digest, and what was read of the flipped."""

    installation: Installation
    true: dict[str, bytes]
    chance: random.Random
    flips: int = 0
    found: int = 0
    missed: list[str] = field(default_factory=list)
    served: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, installation: Installation, seed: int) -> "Store":
        """Everything that is stored now."""
        true = {
            file.parent.name + file.name: file.read_bytes()
            for file in (installation.state / "artifacts").glob("[0-9a-f][0-9a-f]/*")
            if not file.suffix
        }
        return cls(installation, true, random.Random(seed))  # noqa: S311 - drills must repeat

    def flip(self, *some: str) -> None:
        """Flip one bit of each of these artifacts, or of all of them, while nobody holds them."""
        self.installation.stop()
        for sha256 in some or self.true:
            data = self.true[sha256]
            bit = self.chance.randrange(8 * len(data))
            with self._path(sha256).open("r+b") as file:
                file.seek(bit // 8)
                file.write(bytes([data[bit // 8] ^ 1 << bit % 8]))
        self.installation.start()

    def read(self) -> None:
        """Ask for each flipped one; only a beginning with the true bytes may come of it."""
        self.flips += len(self.true)
        with self.installation.client() as client:
            for sha256, data in self.true.items():
                got, said = bytearray(), "nothing"
                try:
                    for block in client.artifact(sha256):
                        got += block
                except RemoteError as error:
                    said = error.document.code or str(error)
                except HivemeshError as error:
                    said = str(error)
                if said == DAMAGED or BLOCK <= len(got) < len(
                    data
                ):  # an answer that has begun ends
                    self.found += 1
                else:
                    self.missed.append(f"{sha256}: {len(got)} of {len(data)} bytes, then {said}")
                if not data.startswith(got):
                    self.served.append(sha256)

    def restore(self) -> None:
        """Store the same bytes again, as somebody with a copy would."""
        with self.installation.client() as client:
            for data in self.true.values():
                client.put_artifact(BytesIO(data))
            for sha256 in self.true:
                read = b"".join(client.artifact(sha256))
                assert hashlib.sha256(read).hexdigest() == sha256

    def _path(self, sha256: str) -> Path:
        return self.installation.state / "artifacts" / sha256[:2] / sha256[2:]


def test_no_flipped_bit_is_served_to_people_or_workers(install, tmp_path: Path) -> None:
    installation = install(*SMALL_BATCHES)
    installation.start()
    mbox = write_mbox(tmp_path / "mail.mbox", MESSAGES)
    run = submit(installation, mbox)
    assert installation.until_ended(run).state is RunState.COMPLETED
    with installation.client() as client:
        outputs = {name: b"".join(client.output(run, name)) for name in OUTPUTS}
    store = Store.of(installation, 16)
    a_worker_is_told(store, run)
    while store.flips < FLIPS:
        store.flip()
        people_are_told(installation, run)
        store.read()
        store.restore()
    with installation.client() as client:
        assert {name: b"".join(client.output(run, name)) for name in OUTPUTS} == outputs
    served = len(store.served)
    name = "corruption: one bit of an artifact flipped"
    record(name, store.flips, "bits", FLIPS, holds=store.flips >= FLIPS)
    record(f"{name}: found", store.found, "bits", store.flips, holds=store.found == store.flips)
    record(f"{name}: served", served, "artifacts", 0, holds=not served)
    assert store.served == []
    assert store.missed == []


def a_worker_is_told(store: Store, run: str) -> None:
    """A run over the damaged archive fails and says why."""
    parameters = store.installation.run(run).parameters
    store.flip(parameters["archive"]["sha256"])
    with store.installation.client() as client:
        again = client.start_run("email-insights", parameters).id
    ended = store.installation.until_ended(again)
    assert ended.state is RunState.FAILED
    assert ended.problem is not None
    assert ended.problem["code"] == DAMAGED, ended.problem
    store.restore()


def people_are_told(installation: Installation, run: str) -> None:
    """The records of a run are refused."""
    with installation.client() as client, pytest.raises(RemoteError) as refused:
        b"".join(client.output(run, LARGE))
    assert refused.value.document.code == DAMAGED
