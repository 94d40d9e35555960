"""The built-in roles as data: each has what the one before it has, and a little more. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Role:
    """A named list of grants."""

    name: str
    description: str
    grants: tuple[str, ...]
    built_in: bool = True


_VIEWER = (
    "read:artifact",
    "read:capability",
    "read:dataset",
    "read:pipeline",
    "read:role",
    "read:run",
    "read:status",
    "read:worker",
    "create:token",
)
_ANALYST = (*_VIEWER, "run:pipeline", "run:capability", "create:artifact", "write:dataset")
_AUTHOR = (*_ANALYST, "write:pipeline", "read:policy")
_OPERATOR = (
    *_AUTHOR,
    "read:audit",
    "read:ca",
    "read:replica",
    "read:config",
    "read:log",
    "read:metrics",
    "read:package",
    "write:config",
    "write:run",
    "write:worker",
    "create:enrolment",
)

ROLES: dict[str, Role] = {
    one.name: one
    for one in (
        Role("viewer", "sees pipelines, runs, datasets and workers", _VIEWER),
        Role("analyst", "also runs pipelines and calls capabilities", _ANALYST),
        Role("author", "also writes pipelines", _AUTHOR),
        Role("operator", "also keeps workers and the platform going", _OPERATOR),
        Role("admin", "may do everything: people, policy, secrets, the authority", ("admin:*",)),
    )
}

# A role has what those before it have; a role that is not listed has itself alone.
ORDER = tuple(ROLES)


def with_lower(roles: Iterable[str]) -> frozenset[str]:
    """The roles and every built-in one below them."""
    found: set[str] = set()
    for role in roles:
        found.add(role)
        if role in ORDER:
            found.update(ORDER[: ORDER.index(role)])
    return frozenset(found)
