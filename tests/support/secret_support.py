"""What tests of secrets stand on: a trail that remembers, a store that seals, steps that run."""

from dataclasses import replace

from hivemesh_platform.audit.model import Actor
from hivemesh_platform.credentials.errors import SecretMissingError, SecretsSealedError
from hivemesh_platform.credentials.model import SecretInfo, StepSecrets, StoredSecret
from hivemesh_sdk.contracts.tickets import Ticket

WORKER = "spiffe://test.hivemesh.internal/worker/mail-reader/i1"
OPERATOR = Actor(id="spiffe://test.hivemesh.internal/user/operator", serial="ab")
STEP = StepSecrets(
    run="run_1",
    key="run_1.read.0",
    attempt=1,
    identity=WORKER,
    worker="mail-reader",
    named=frozenset({"mail.password"}),
    permitted=("mail.*",),
    ends_at=None,
    on_behalf_of="spiffe://test.hivemesh.internal/user/ann",
    grants=("run:secret/mail.*",),
)
TICKET = Ticket(
    iss="spiffe://test.hivemesh.internal/platform/p1",
    aud=["mail-reader"],
    azp=WORKER,
    sub=STEP.on_behalf_of,
    iat=0,
    exp=900,
    jti="1",
    run=STEP.run,
    step=STEP.key,
    attempt=1,
    cap="mail.read@1",
    secrets=["mail.password"],
)


class MemoryStore:
    """A `SecretStore` of values, which a test seals."""

    def __init__(self, **values):
        self.values = {name.replace("__", "."): [value] for name, value in values.items()}
        self.reason = ""
        self.revoked = []
        self.lease = ""
        self.lease_s = None
        self.when_read = lambda: None

    async def sealed(self):
        return self.reason

    async def exists(self, path):
        self._check()
        return path in self.values

    async def read(self, path, version=None, *, holder=""):
        self._check()
        self.when_read()
        if path not in self.values:
            raise SecretMissingError(path)
        versions = self.values[path]
        number = version or len(versions)
        return StoredSecret(
            path=path,
            version=number,
            value=versions[number - 1],
            lease=self.lease,
            lease_s=self.lease_s,
        )

    async def describe(self, path):
        self._check()
        if path not in self.values:
            raise SecretMissingError(path)
        return SecretInfo(path=path, version=len(self.values[path]), created_at=1)

    async def entries(self, prefix=""):
        self._check()
        return [await self.describe(path) for path in self.values if path.startswith(prefix)]

    async def write(self, path, value):
        self._check()
        self.values.setdefault(path, []).append(value)
        return await self.describe(path)

    async def delete(self, path):
        info = await self.describe(path)
        del self.values[path]
        return replace(info, deleted=True)

    async def restore(self, path):
        return await self.describe(path)

    async def revoke(self, lease):
        self.revoked.append(lease)

    def _check(self):
        if self.reason:
            raise SecretsSealedError(self.reason)


class Trail:
    """An `AuditTrail` that remembers, and fails when it is told to."""

    def __init__(self):
        self.events = []
        self.broken = None

    async def record(self, event):
        if self.broken is not None:
            raise self.broken
        self.events.append(event)

    def note(self, event):
        self.events.append(event)

    @property
    def said(self):
        return [(one.action, one.target, one.decision, one.rule) for one in self.events]


class Steps:
    """`StepHolders` with one step, which a test ends."""

    def __init__(self, step=STEP):
        self.step = step

    def secrets_of(self, ticket):
        return self.step
