"""Says who a peer or a token is and what the principal may do; remembers it until something changes.

One replica changes these tables, so a change empties what is remembered and the next request of
everybody sees it.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import TypeVar, assert_never

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import NotAuthorizedError
from hivemesh_sdk.trust.identity import Kind, Peer, SpiffeId

from hivemesh_platform.access import policy, store
from hivemesh_platform.access.model import Grant, Principal, Rights, Verdict, decide
from hivemesh_platform.access.ports import SignedIn
from hivemesh_platform.access.roles import ROLES, Role, with_lower
from hivemesh_platform.access.store import Subject, TokenRecord
from hivemesh_platform.access.tokens import ApiToken
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.transaction import Transaction

OPERATOR = "operator"  # the user of the certificate in the state folder: always an admin
DEFAULT_TENANT = "default"
REMEMBERED = 10_000  # principals and tokens; beyond that all are read again
FLUSH_EVERY_S = 30.0
_ROLE = "role:"

T = TypeVar("T")


class TokenRefusedError(NotAuthorizedError):
    """The token is unknown, expired or revoked; which of them is not told."""

    slug = "token-refused"


@dataclass(frozen=True, slots=True)
class _Known:
    record: TokenRecord
    principal: Principal


class AccessService:
    """Principals and decisions of one installation."""

    def __init__(self, database: Database, clock: Clock, trust_domain: str) -> None:
        self.database = database
        self.clock = clock
        self.trust_domain = trust_domain
        self.version = 0  # raised by each change
        self._users: dict[str, Principal] = {}
        self._certificates: dict[str, Principal] = {}  # by serial: rights are made once
        self._tokens: dict[str, _Known] = {}
        self._used: dict[str, int] = {}

    async def principal_of(self, proof: Peer | str) -> Principal:
        """Return who has shown a certificate, or an API token.

        Raises:
            TokenRefusedError: the token is unknown, expired or revoked.
        """
        return await (self._of_token(proof) if isinstance(proof, str) else self._of_peer(proof))

    async def user(self, name: str) -> Principal:
        """Return a user with the roles and grants that he has now; one that nobody named has none."""
        known = self._users.get(name)
        if known is not None:
            return known
        version = self.version
        found = await self.database.read(lambda tx: self._read_user(tx, name))
        if version == self.version:
            _remember(self._users, name, found)
        return found

    async def signed_in(self, who: SignedIn) -> Principal:
        """Return whom an identity provider has recognised, with what his groups have here.

        Somebody whom nobody has named yet belongs to the provider's tenant; it never moves others.
        """

        def read(tx: Transaction) -> Principal:
            return self._read_user(tx, who.user, who)

        return await self.database.read(read)

    async def roles(self, tenant: str) -> dict[str, Role]:
        """Return the built-in roles and those that the tenant has defined."""
        return await self.database.read(lambda tx: roles_of(tx, tenant))

    def allows(self, principal: Principal, action: str, target: str = "") -> Verdict:
        """Decide on an action `<verb>:<kind>` and an object; without a target, on all of the kind."""
        verb, _, kind = action.partition(":")
        return decide(principal, verb, kind, target or "*")

    def changed(self) -> None:
        """Forget what was remembered; whoever changes the tables calls it after the commit."""
        self.version += 1
        self._users.clear()
        self._certificates.clear()
        self._tokens.clear()

    def used_at(self, token_id: str) -> int | None:
        """When a token was used since that was last written down."""
        return self._used.get(token_id)

    async def run(self) -> None:
        """Write down now and then when tokens were used, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write down when tokens were used."""
        used, self._used = list(self._used.items()), {}
        if not used:
            return
        try:
            await self.database.write(lambda tx: store.note_use(tx, used))
        except BaseException:
            self._used = dict(used) | self._used
            raise

    async def _of_peer(self, peer: Peer) -> Principal:
        serial = f"{peer.serial:x}"
        match peer.id.kind:
            case Kind.USER:
                return await self._of_certificate(peer.id.name, serial)
            case Kind.WORKER:
                return Principal(id=peer.uri or str(peer.id), kind="worker", serial=serial)
            case Kind.PLATFORM:
                grants = policy.GRANTS[Kind.PLATFORM]
                identity = peer.uri or str(peer.id)
                return Principal(id=identity, kind="platform", grants=grants, serial=serial)
            case _:
                assert_never(peer.id.kind)

    async def _of_certificate(self, name: str, serial: str) -> Principal:
        known = self._certificates.get(serial)
        if known is not None and known.name == name:
            return known
        version = self.version
        found = replace(await self.user(name), serial=serial)
        if version == self.version:
            _remember(self._certificates, serial, found)
        return found

    async def _of_token(self, text: str) -> Principal:
        token = ApiToken.parse(text)
        known = None if token is None else await self._known(token)
        if token is None or known is None or not token.matches(known.record.secret_hash):
            raise TokenRefusedError
        now = self._now()
        if known.record.revoked_at is not None or now >= known.record.expires_at:
            raise TokenRefusedError
        self._used[token.id] = now
        return known.principal

    async def _known(self, token: ApiToken) -> _Known | None:
        known = self._tokens.get(token.id)
        if known is not None:
            return known
        version = self.version
        record = await self.database.read(lambda tx: store.token(tx, token.id))
        if record is None:
            return None
        owner = await self.user(record.owner)
        roles = await self.roles(record.tenant)
        found = _Known(record, _narrowed(owner, record, roles))
        if version == self.version:
            _remember(self._tokens, token.id, found)
        return found

    def _read_user(self, tx: Transaction, name: str, told: SignedIn | None = None) -> Principal:
        newcomers = DEFAULT_TENANT if told is None else told.tenant
        tenant = store.tenant_of(tx, name) or newcomers
        groups = store.groups_of(tx, name, tenant)
        groups = sorted({*groups, *(() if told is None else told.groups)})
        given = [(what, "grant") for what in store.entitlements(tx, Subject("user", name, tenant))]
        for group in groups:
            subject = Subject("group", group, tenant)
            given += [(what, f"group {group}") for what in store.entitlements(tx, subject)]
        if name == OPERATOR and told is None:  # by the certificate, and by no directory
            tenant = DEFAULT_TENANT
            given.append((f"{_ROLE}admin", "operator certificate"))
        return self._made(name, tenant, groups, given, roles_of(tx, tenant))

    def _made(
        self,
        name: str,
        tenant: str,
        groups: list[str],
        given: list[tuple[str, str]],
        roles: dict[str, Role],
    ) -> Principal:
        sources: list[tuple[str, str]] = []
        held: list[str] = []
        for what, where in given:
            role = roles.get(what.removeprefix(_ROLE)) if what.startswith(_ROLE) else None
            if role is not None:
                held.append(role.name)
                origin = f"role {role.name}" + ("" if where == "grant" else f" ({where})")
                sources += [(str(Grant.parse(one)), origin) for one in role.grants]
            elif not what.startswith(_ROLE):
                sources.append((str(Grant.parse(what)), where))
        rights = Rights(Grant.parse(text) for text, _ in sources)
        return Principal(
            id=str(SpiffeId.user(self.trust_domain, name)),
            tenant=tenant,
            roles=tuple(sorted(set(held))),
            grants=rights.texts(),
            groups=tuple(groups),
            sources=tuple(sources),
        )

    def _now(self) -> int:
        return round(self.clock.now().timestamp() * 1000)


def roles_of(tx: Transaction, tenant: str) -> dict[str, Role]:
    """Return the roles of a tenant by name; a built-in one is never another."""
    return {one.name: one for one in store.roles(tx, tenant)} | ROLES


def rights_of(scope: tuple[str, ...], roles: dict[str, Role]) -> Rights:
    """What a list of roles (`role:<name>`) and grants allows; a role that is gone allows nothing."""
    texts: list[str] = []
    for what in scope:
        if what.startswith(_ROLE):
            role = roles.get(what.removeprefix(_ROLE))
            texts += () if role is None else role.grants
        else:
            texts.append(what)
    return Rights(Grant.parse(text) for text in texts)


def _narrowed(owner: Principal, record: TokenRecord, roles: dict[str, Role]) -> Principal:
    """The owner with no more than the token's scope; a role counts where the owner holds it."""
    scope = {one.removeprefix(_ROLE) for one in record.scope if one.startswith(_ROLE)}
    lent = tuple(sorted(scope & with_lower(owner.roles)))
    rights = owner.rights.common(rights_of(record.scope, roles))
    label = f"token {record.name}"
    return replace(
        owner,
        roles=lent,
        other_roles=tuple(sorted(set(owner.roles) - set(lent))),
        grants=rights.texts(),
        tenant=owner.tenant,
        token_id=record.id,
        sources=tuple((text, label) for text in rights.texts()),
    )


def _remember(cache: "dict[str, T]", key: str, value: T) -> None:
    if len(cache) >= REMEMBERED:
        cache.clear()
    cache[key] = value
