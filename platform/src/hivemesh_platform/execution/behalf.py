"""On whose behalf work is done, and how far that goes. Pure.

Frozen when work is accepted. Every path that makes a step (a job, a pipeline, a retry, a child
of a map, a row of a reduce, and whatever is added) asks `effective`, so no path lends more than
another one.
"""

from collections.abc import Iterable

import msgspec

from hivemesh_platform.access.model import Grant, Principal, Rights
from hivemesh_platform.access.roles import ORDER, ROLES, with_lower

INSTALLATION = "default"  # the tenant whose roles the policy names without a prefix


class Behalf(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A principal as it was when its work was accepted."""

    sub: str = ""  # SPIFFE ID of a user, or `pipeline:<name>`
    tenant: str = INSTALLATION
    roles: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    other_roles: tuple[str, ...] = ()  # held by somebody involved, not lent: only denials ask

    def rights(self) -> Rights:
        """The grants, ready to be asked."""
        return Rights(Grant.parse(text) for text in self.grants)


NOBODY = Behalf()  # rows from before there were principals: no role, no grant


def effective(submitter: Behalf, author: Behalf | None = None) -> Behalf:
    """What a step may do: what its submitter may, less what its pipeline's author may not.

    The ticket carries the result, and the callee's own policy narrows it further. Another tenant's
    author gives nothing. Roles that are not lent go along for denials, which nobody escapes by
    lending less of what he is.
    """
    roles, held = with_lower(submitter.roles), _held(submitter)
    grants = submitter.grants
    if author is not None:
        same = author.tenant == submitter.tenant
        roles = roles & with_lower(author.roles) if same else frozenset()
        held |= _held(author)
        grants = submitter.rights().common(author.rights()).texts() if same else ()
    return Behalf(
        sub=submitter.sub,
        tenant=submitter.tenant,
        roles=_ordered(roles),
        grants=grants,
        other_roles=_ordered(held - roles),
    )


def behalf_of(principal: Principal) -> Behalf:
    """What is kept of a principal.

    A role that another tenant has defined is `<tenant>/<name>`: the policy is the installation's,
    and no tenant takes a role that a rule of it names.
    """
    return Behalf(
        sub=principal.id,
        tenant=principal.tenant,
        roles=_named(principal.roles, principal.tenant),
        grants=principal.grants,
        other_roles=_named(principal.other_roles, principal.tenant),
    )


def _held(behalf: Behalf) -> frozenset[str]:
    return with_lower((*behalf.roles, *behalf.other_roles))


def _named(roles: Iterable[str], tenant: str) -> tuple[str, ...]:
    if tenant == INSTALLATION:
        return tuple(roles)
    return tuple(one if one in ROLES else f"{tenant}/{one}" for one in roles)


def as_principal(behalf: Behalf) -> Principal:
    """A principal with the rights that were kept of it, for those who decide about artifacts."""
    return Principal(id=behalf.sub, tenant=behalf.tenant, roles=behalf.roles, grants=behalf.grants)


def _ordered(roles: frozenset[str]) -> tuple[str, ...]:
    """The known ones from low to high, then the others by name."""
    known = [role for role in ORDER if role in roles]
    return (*known, *sorted(roles - set(ORDER)))
