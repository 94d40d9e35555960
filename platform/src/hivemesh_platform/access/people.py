"""Changes of who may do what: users, groups, roles and API tokens. Nobody gives more than he has.

Every change is recorded before it is made; where the record cannot be made durable, it is not made.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from hivemesh_sdk.errors import ConflictError, InvalidError, NotAuthorizedError, NotFoundError

from hivemesh_platform.access import store
from hivemesh_platform.access.model import Grant, Principal, Rights
from hivemesh_platform.access.roles import ROLES, Role, with_lower
from hivemesh_platform.access.service import (
    DEFAULT_TENANT,
    OPERATOR,
    AccessService,
    rights_of,
    roles_of,
)
from hivemesh_platform.access.store import Subject, TokenRecord
from hivemesh_platform.access.tokens import ApiToken
from hivemesh_platform.audit.model import AuditEvent
from hivemesh_platform.audit.ports import AuditTrail
from hivemesh_platform.storage.transaction import Transaction

TOKEN_LIFETIME = timedelta(days=30)
LONGEST_TOKEN = timedelta(days=366)
TOKENS_PER_USER = 100
_ROLE = "role:"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_USER = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ROLE_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


class RoleUnknownError(InvalidError):
    """There is no such role; the message lists those that there are."""

    slug = "role-unknown"


class GrantTooWideError(NotAuthorizedError):
    """The caller has not himself what he would give."""

    slug = "grant-too-wide"


class PeopleService:
    """What admins and the owners of tokens change."""

    def __init__(self, access: AccessService, audit: AuditTrail) -> None:
        self._access = access
        self._audit = audit

    async def users(self, actor: Principal) -> list[Principal]:
        """Return the users of the actor's tenant, with what they may do now."""
        names = await self._access.database.read(lambda tx: store.users(tx, actor.tenant))
        return [await self._access.user(name) for name in names]

    async def groups(self, actor: Principal) -> list[tuple[str, list[str], list[str]]]:
        """Return the groups of the actor's tenant with their members, roles and grants."""

        def read(found: Transaction) -> list[tuple[str, list[str], list[str]]]:
            return [
                (
                    name,
                    store.members(found, name, actor.tenant),
                    store.entitlements(found, Subject("group", name, actor.tenant)),
                )
                for name in store.groups(found, actor.tenant)
            ]

        return await self._access.database.read(read)

    async def grant(self, actor: Principal, subject: Subject, what: str) -> str:
        """Give a user or group a role or grant; returns how it is written down.

        Raises:
            RoleUnknownError, GrantInvalidError: there is no such role or grant.
            GrantTooWideError: the actor has not himself the role or grant that he would give.
            InvalidError: the user or group has no possible name.
        """
        subject = await self._own(actor, subject)
        roles = await self._access.roles(actor.tenant)
        what = _written(what, roles)
        _check_has(actor, rights_of((what,), roles))
        _check_holds(actor, (what,))
        await self._record(actor, f"write:{subject.kind}", subject.name, {"grant": what})
        now = self._now()

        def write(tx: Transaction) -> None:
            if subject.kind == "user":
                store.add_user(tx, subject.name, subject.tenant, now)
            store.entitle(tx, subject, what, now)

        await self._access.database.write(write)
        self._access.changed()
        return what

    async def revoke(self, actor: Principal, subject: Subject, what: str) -> str:
        """Take a role or grant away; in force with the next request.

        Raises:
            NotFoundError: the user or group has it not.
            ConflictError: the operator of the machine would cease to be an admin.
        """
        subject = await self._own(actor, subject)
        if subject == Subject("user", OPERATOR) and what in {"admin", f"{_ROLE}admin"}:
            message = "the operator certificate of this machine is always an admin's"
            raise ConflictError(message)
        what = f"{_ROLE}{what}" if ":" not in what else what
        what = what if what.startswith(_ROLE) else str(Grant.parse(what))
        await self._record(actor, f"write:{subject.kind}", subject.name, {"revoke": what})
        done = await self._access.database.write(lambda tx: store.withdraw(tx, subject, what))
        self._access.changed()
        if not done:
            message = f"{subject.kind} {subject.name!r} has no {what!r}"
            raise NotFoundError(message)
        return what

    async def set_member(self, actor: Principal, group: str, user: str, *, member: bool) -> None:
        """Put a user into a group, or take him out; he has the group's grants from then on.

        Raises:
            GrantTooWideError: the group has a role or grant that the actor has not himself.
            NotFoundError: the user to take out is not in the group.
        """
        where = await self._own(actor, Subject("group", group))
        who = await self._own(actor, Subject("user", user))
        if member:
            roles = await self._access.roles(actor.tenant)
            given = await self._access.database.read(lambda tx: store.entitlements(tx, where))
            _check_has(actor, rights_of(tuple(given), roles))
            _check_holds(actor, given)
        word = "add" if member else "remove"
        await self._record(actor, "write:group", group, {word: user})
        now = self._now()

        def write(tx: Transaction) -> bool:
            if not member:
                return store.remove_member(tx, group, user, where.tenant)
            store.add_user(tx, who.name, who.tenant, now)
            store.add_member(tx, group, user, where.tenant)
            return True

        done = await self._access.database.write(write)
        self._access.changed()
        if not done:
            message = f"{user!r} is not in the group {group!r}"
            raise NotFoundError(message)

    async def put_role(self, actor: Principal, role: Role) -> Role:
        """Define a role of the actor's tenant, or define it anew.

        Raises:
            ConflictError: a built-in role has this name.
            GrantInvalidError: a grant is not written right.
            GrantTooWideError: the role would have what the actor has not himself.
        """
        if not _ROLE_NAME.fullmatch(role.name):
            message = f"{role.name!r} is no name of a role; use a-z, 0-9 and '-', at most 40"
            raise InvalidError(message)
        if role.name in ROLES:
            message = f"the role {role.name!r} is built in; choose another name"
            raise ConflictError(message)
        rights = Rights(Grant.parse(text) for text in role.grants)
        _check_has(actor, rights)
        role = Role(role.name, role.description, rights.texts(), built_in=False)
        await self._record(actor, "write:role", role.name, {"grants": list(role.grants)})
        await self._access.database.write(lambda tx: store.put_role(tx, role, actor.tenant))
        self._access.changed()
        return role

    async def delete_role(self, actor: Principal, name: str) -> None:
        """Delete a defined role; whoever has it loses it.

        Raises:
            ConflictError: it is built in.
            NotFoundError: there is none.
        """
        if name in ROLES:
            message = f"the role {name!r} is built in"
            raise ConflictError(message)
        await self._record(actor, "write:role", name, {"delete": name})
        done = await self._access.database.write(
            lambda tx: store.delete_role(tx, name, actor.tenant)
        )
        self._access.changed()
        if not done:
            raise no_role(name)

    async def create_token(
        self,
        actor: Principal,
        name: str,
        *,
        owner: str,
        scope: tuple[str, ...] = (),
        lifetime: timedelta = TOKEN_LIFETIME,
    ) -> tuple[str, TokenRecord]:
        """Make a token of an owner; the text is shown once. Without a scope it has the owner's.

        Raises:
            GrantTooWideError: the scope is wider than what the actor or the owner has.
            InvalidError: the name, the lifetime or the scope is not possible.
            NotAuthorizedError: the actor is a token himself.
        """
        _check_token(actor, name, lifetime)
        subject = await self._own(actor, Subject("user", owner))
        holder = await self._access.user(owner)
        roles = await self._access.roles(actor.tenant)
        wanted = tuple(dict.fromkeys(_written(one, roles) for one in scope))
        wanted = wanted or await self._scope_of(subject)
        rights = rights_of(wanted, roles)
        _check_has(actor, rights)
        _check_holds(actor, wanted)
        _check_holds(holder, wanted)
        if not holder.rights.include(rights):
            message = f"{owner!r} has not all of {', '.join(rights.texts())}; grant it first"
            raise GrantTooWideError(message)
        await self._check_room(subject)
        token, now = ApiToken.new(), self._now()
        record = TokenRecord(
            id=token.id,
            secret_hash=token.hash(),
            name=name,
            owner=owner,
            scope=wanted,
            created_by=actor.id,
            created_at=now,
            expires_at=now + round(lifetime.total_seconds() * 1000),
            tenant=subject.tenant,
        )
        await self._record(actor, "create:token", token.id, {"owner": owner, "scope": list(wanted)})
        await self._access.database.write(lambda tx: store.add_token(tx, record))
        return token.reveal(), record

    async def tokens(self, actor: Principal) -> list[TokenRecord]:
        """Return the tokens that the actor may see: his own, or with `read:token` all."""
        found = await self._access.database.read(lambda tx: store.tokens(tx, actor.tenant))
        return [one for one in found if self.sees_token(actor, one)]

    async def revoke_token(self, actor: Principal, token_id: str) -> TokenRecord:
        """Accept a token no longer, from now on: one's own, or with `write:token` any.

        Raises:
            NotFoundError: there is none that the actor sees.
            NotAuthorizedError: the actor sees it and may not revoke it.
        """
        found = await self._access.database.read(lambda tx: store.token(tx, token_id))
        if found is None or found.tenant != actor.tenant or not self.sees_token(actor, found):
            raise no_token(token_id)
        if not _owns(actor, found) and not actor.rights.allows("write", "token", token_id):
            message = f"no role or grant of {actor.id} has write:token/{token_id}"
            raise NotAuthorizedError(message)
        await self._record(actor, "write:token", token_id, {"owner": found.owner})
        now = self._now()
        await self._access.database.write(lambda tx: store.revoke_token(tx, token_id, now))
        self._access.changed()
        return found

    def sees_token(self, actor: Principal, token: TokenRecord) -> bool:
        """Say whether the actor owns the token or may see every one; a token sees itself."""
        return _owns(actor, token) or any(
            actor.rights.allows(verb, "token", token.id) for verb in ("read", "write")
        )

    async def _check_room(self, owner: Subject) -> None:
        """Refuse a token more than anybody can keep an eye on."""
        now = self._now()
        found = await self._access.database.read(lambda tx: store.tokens(tx, owner.tenant))
        valid = [one for one in found if one.revoked_at is None and one.expires_at > now]
        if sum(one.owner == owner.name for one in valid) >= TOKENS_PER_USER:
            message = f"{owner.name!r} has {TOKENS_PER_USER} valid tokens; revoke some first"
            raise ConflictError(message)

    async def _scope_of(self, subject: Subject) -> tuple[str, ...]:
        """The roles and grants that a user has now, his groups' included."""
        holder = await self._access.user(subject.name)
        held = tuple(f"{_ROLE}{name}" for name in holder.roles)

        def covered(tx: Transaction) -> Rights:
            return rights_of(held, roles_of(tx, subject.tenant))

        by_role = await self._access.database.read(covered)
        return (*held, *(text for text in holder.grants if not _has(by_role, text)))

    async def _own(self, actor: Principal, subject: Subject) -> Subject:
        """The subject in its tenant.

        Raises:
            InvalidError: it has no possible name.
            NotFoundError: it belongs to another tenant.
        """
        form = _USER if subject.kind == "user" else _NAME
        if not form.fullmatch(subject.name):
            message = f"{subject.name!r} is no name of a {subject.kind}"
            raise InvalidError(message)
        if subject.tenant != actor.tenant and not actor.rights.allows("admin", "*", "*"):
            subject = replace(subject, tenant=actor.tenant)
        if actor.tenant != DEFAULT_TENANT:
            subject = replace(subject, tenant=actor.tenant)
        if subject.kind != "user":
            return subject
        if subject.name == OPERATOR:
            known: str | None = DEFAULT_TENANT
        else:
            known = await self._access.database.read(lambda tx: store.tenant_of(tx, subject.name))
        if known is not None and known != subject.tenant:
            raise no_user(subject.name)
        return subject

    async def _record(
        self, actor: Principal, action: str, target: str, parameters: dict[str, object]
    ) -> None:
        await self._audit.record(
            AuditEvent(
                actor=actor.actor,
                on_behalf_of=actor.id if actor.token_id else "",
                action=action,
                target=target,
                serial=actor.serial,
                tenant=actor.tenant,
                parameters=parameters,
            )
        )

    def _now(self) -> int:
        return round(self._access.clock.now().timestamp() * 1000)


def _written(what: str, roles: dict[str, Role]) -> str:
    """A role by its name (`analyst` or `role:analyst`), or a grant in its long form."""
    if ":" in what and not what.startswith(_ROLE):
        return str(Grant.parse(what))
    name = what.removeprefix(_ROLE)
    if name not in roles:
        message = f"there is no role {name!r}; known are {', '.join(roles)}"
        raise RoleUnknownError(message)
    return f"{_ROLE}{name}"


def _has(rights: Rights, text: str) -> bool:
    return rights.include(Rights([Grant.parse(text)]))


def _owns(actor: Principal, token: TokenRecord) -> bool:
    return token.id == actor.token_id if actor.token_id else token.owner == actor.name


def _check_has(actor: Principal, rights: Rights) -> None:
    missing = [text for text in rights.texts() if not _has(actor.rights, text)]
    if missing:
        message = f"{actor.id} has not himself: {', '.join(missing)}"
        raise GrantTooWideError(message)


def _check_holds(principal: Principal, scope: Iterable[str]) -> None:
    """Refuse roles that the principal does not hold: rules of the policy ask for them by name."""
    if principal.rights.allows("admin", "*", "*"):
        return
    asked = {one.removeprefix(_ROLE) for one in scope if one.startswith(_ROLE)}
    missing = sorted(asked - with_lower(principal.roles))
    if missing:
        message = f"{principal.id} does not hold the role {', '.join(missing)}"
        raise GrantTooWideError(message)


def _check_token(actor: Principal, name: str, lifetime: timedelta) -> None:
    if actor.token_id:
        message = "a token makes no tokens; use the certificate, or ask an admin"
        raise NotAuthorizedError(message)
    if not _NAME.fullmatch(name):
        message = f"{name!r} is no name of a token; use letters, digits and _.@-, at most 64"
        raise InvalidError(message)
    if not timedelta(seconds=1) <= lifetime <= LONGEST_TOKEN:
        message = f"a token may live from a second to {LONGEST_TOKEN.days} days"
        raise InvalidError(message)


def no_role(name: str) -> NotFoundError:
    """What is answered where there is no such role."""
    return NotFoundError(f"there is no role {name!r}")


def no_user(name: str) -> NotFoundError:
    """What is answered where there is no such user, or only in another tenant."""
    return NotFoundError(f"there is no user {name!r}")


def no_token(token_id: str) -> NotFoundError:
    """What is answered where there is no such token, or none that the caller sees."""
    return NotFoundError(f"there is no token {token_id!r}")
