"""Limits on how much runs at a time and how much begins in a time. Pure.

A limit has a scope: all work, one capability, or one key, which submitters give to jobs and steps
(a customer, a mailbox). A key's limit may end with `*`: then each key that begins so has its own.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

from hivemesh_sdk.contracts.names import CAPABILITY_ID
from hivemesh_sdk.errors import InvalidError

Scope = Literal["all", "capability", "key"]
ANY = "*"

_RATE = re.compile(r"([1-9][0-9]{0,8})/(s|m|h)(?: burst ([1-9][0-9]{0,8}))?")
_KEY = re.compile(r"[A-Za-z0-9_.:@-]{1,100}")
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000}
_MICROSECONDS = 1000  # in a millisecond


@dataclass(frozen=True, slots=True)
class Rate:
    """So many starts in a time; `burst` of them may come at once."""

    starts: int
    per_ms: int
    burst: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `10/s`, `600/m` or `10/s burst 50`.

        Raises:
            InvalidError: it is none of these.
        """
        match = _RATE.fullmatch(text.strip())
        if match is None:
            message = f"{text!r} is no rate; write it like 10/s, 600/m or '10/s burst 50'"
            raise InvalidError(message, slug="limit-invalid")
        starts = int(match[1])
        return cls(starts, _UNITS_MS[match[2]], int(match[3] or 1))

    def text(self) -> str:
        """The form that `parse` reads."""
        unit = next(name for name, size in _UNITS_MS.items() if size == self.per_ms)
        more = f" burst {self.burst}" if self.burst > 1 else ""
        return f"{self.starts}/{unit}{more}"

    @property
    def gap_us(self) -> int:
        """Microseconds that one start uses up."""
        return max(1, self.per_ms * _MICROSECONDS // self.starts)

    def free(self, full_at: int, now: int) -> int:
        """How many may start now (ms), where from `full_at` (microseconds) on all are free."""
        now_us = now * _MICROSECONDS
        return max(0, (now_us + self.burst * self.gap_us - max(full_at, now_us)) // self.gap_us)

    def taken(self, full_at: int, now: int, count: int) -> tuple[int, int]:
        """`full_at` after so many starts, and the time (ms) from which one more may start."""
        after = max(full_at, now * _MICROSECONDS) + count * self.gap_us
        return after, -(-(after - (self.burst - 1) * self.gap_us) // _MICROSECONDS)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `running` rows at a time, and no more starts than `rate`."""

    scope: Scope
    name: str  # "", a capability, or `<tenant>/<key>`, perhaps with `*` at its end
    running: int | None = None
    rate: Rate | None = None
    origin: str = ""

    def covers(self, key: str) -> bool:
        """Whether it is the limit of a row's key `<tenant>/<key>`."""
        if self.name.endswith(ANY):
            return key.startswith(self.name[:-1])
        return key == self.name

    def label(self, name: str = "") -> str:
        """What people call it; of a limit with `*` the key that is meant."""
        match self.scope:
            case "all":
                return "all"
            case "capability":
                return self.name
            case _:
                return (name or self.name).partition("/")[2]

    def reason(self, name: str = "") -> str:
        """Why a row waits that it holds back as a whole."""
        if self.running is not None:
            return f"limit {self.label(name)}: {self.running} of {self.running} running"
        return self.rate_reason(name)

    def rate_reason(self, name: str = "") -> str:
        """Why a row waits for its rate."""
        return f"limit {self.label(name)}: {'' if self.rate is None else self.rate.text()}"


def scope_and_name(target: str, tenant: str) -> tuple[Scope, str]:
    """Read `all`, `capability:NAME` or `key:NAME`; a key belongs to a tenant.

    Raises:
        InvalidError: it is none of these.
    """
    scope, _, name = target.partition(":")
    if target == "all":
        return "all", ""
    if scope == "capability" and CAPABILITY_ID.fullmatch(name):
        return "capability", name
    if scope == "key" and (name == ANY or _KEY.fullmatch(name.removesuffix(ANY))):
        return "key", f"{tenant}/{name}"
    message = f"{target!r} has no limit; write all, capability:email.parse@1, key:NAME or key:NAME*"
    raise InvalidError(message, slug="limit-invalid")


def target_of(limit: Limit) -> str:
    """The form that `scope_and_name` reads."""
    return "all" if limit.scope == "all" else f"{limit.scope}:{limit.label()}"


def key_of(tenant: str, key: str) -> str:
    """A row's key as it is stored; "" where the submitter gave none.

    Raises:
        InvalidError: it has other characters than keys have.
    """
    if not key:
        return ""
    if not _KEY.fullmatch(key):
        message = f"{key!r} is no concurrency key: 1-100 of letters, digits, and . _ : @ -"
        raise InvalidError(message, slug="limit-invalid")
    return f"{tenant}/{key}"


def limit_of_key(limits: Iterable[Limit], key: str) -> Limit | None:
    """The limit of a key: its own, else that with the longest beginning."""
    found = [one for one in limits if one.scope == "key" and one.covers(key)]
    return max(found, key=lambda one: (not one.name.endswith(ANY), len(one.name)), default=None)
