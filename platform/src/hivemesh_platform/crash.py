"""Kills the process at a named place, so that drills can show what survives. Never in production."""

import os
import signal
from collections import Counter
from typing import NoReturn

from hivemesh_sdk.errors import ConfigurationError

VARIABLE = "HIVEMESH_CRASH_AT"

_target: tuple[str, int] | None = None
_passed: Counter[str] = Counter()


def arm(setting: str | None, *, production: bool) -> None:
    """Take the value of `HIVEMESH_CRASH_AT`: `name` or `name:n` (the n-th time it is reached).

    Raises:
        ConfigurationError: crash points are set in production, or the number is no number.
    """
    global _target  # noqa: PLW0603 - one process has one crash point
    _target = target_of(setting, production=production)
    _passed.clear()


def target_of(setting: str | None, *, production: bool) -> tuple[str, int] | None:
    """The crash point and its turn that `HIVEMESH_CRASH_AT` names; raises as `arm`."""
    if not setting:
        return None
    if production:
        message = f"{VARIABLE} is set in `mode: production`; unset it"
        raise ConfigurationError(message, slug="configuration-invalid")
    name, _, count = setting.partition(":")
    if count and not count.isdigit():
        message = (
            f"{VARIABLE}={setting!r} does not end with a number; write it like finish.before:3"
        )
        raise ConfigurationError(message, slug="configuration-invalid")
    return name, int(count or 1)


def reach(name: str) -> None:
    """Die here if the armed crash point is this one and its turn has come."""
    if _target is None or _target[0] != name:
        return
    _passed[name] += 1
    if _passed[name] >= _target[1]:
        _die()


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    message = "SIGKILL returned"
    raise AssertionError(message)
