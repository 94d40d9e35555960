"""What a start would refuse of valid settings: all that can be told without opening more.

The state folder, its keys and sockets are not opened, so a start may still refuse what they tell:
a trust domain, a passphrase or a secrets key other than theirs, an address of another machine.
Each check is the one that the start itself makes.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import HivemeshError
from hivemesh_sdk.trust.identity import SpiffeId, check_trust_domain

from hivemesh_platform import crash
from hivemesh_platform.configuration import DEFAULT_ORIGIN, Loaded
from hivemesh_platform.execution.jobs.limits import written
from hivemesh_platform.identity import identity_files
from hivemesh_platform.listeners import check_ports
from hivemesh_platform.secret_parts import store_of
from hivemesh_platform.storage.opening import place_of
from hivemesh_platform.trust.profile import lifetimes_of
from hivemesh_platform.trust.sealing import check_passphrase


class Refusal(NamedTuple):
    """A setting that a start refuses, and with what."""

    key: str
    error: HivemeshError


def refusals(loaded: Loaded, clock: Clock) -> list[Refusal]:
    """Everything that can be told beforehand."""
    found: list[Refusal] = []
    for key, check in _checks(loaded, clock):
        try:
            check()
        except HivemeshError as error:
            found.append(Refusal(key, error))
    return found


def missing_folders(loaded: Loaded) -> list[str]:
    """Configured folders of workers that are not there; a start goes on without them."""
    if loaded.origin("workers.folders") == DEFAULT_ORIGIN:
        return []
    return [str(one) for one in loaded.worker_folders if not one.is_dir()]


def _checks(loaded: Loaded, clock: Clock) -> Iterator[tuple[str, Callable[[], object]]]:
    settings = loaded.settings
    trust, local = settings.trust, settings.mode == "local"
    yield "trust", partial(lifetimes_of, trust, local=local)
    passphrase = trust.passphrase.get_secret_value()
    yield "trust.passphrase", partial(check_passphrase, passphrase, production=not local)
    if trust.trust_domain:
        yield "trust.trust_domain", partial(check_trust_domain, trust.trust_domain)
    if trust.identity == "files":
        yield "trust.identity", partial(_identity, loaded, clock)
    yield "database.url", partial(place_of, settings.database, loaded.state_folder)
    for target, running in settings.execution.limits.items():
        yield f"execution.limits.{target}", partial(written, {target: running}, {})
    for target, rate in settings.execution.rates.items():
        yield f"execution.rates.{target}", partial(written, {}, {target: rate})
    yield "secrets", partial(store_of, settings, loaded.shared_folder, clock)
    yield "api", partial(check_ports, settings.api)
    point = loaded.environment.get(crash.VARIABLE)
    yield crash.VARIABLE, partial(crash.target_of, point, production=not local)


def _identity(loaded: Loaded, clock: Clock) -> None:
    trust = loaded.settings.trust
    own = SpiffeId.platform(check_trust_domain(trust.trust_domain), loaded.settings.replica.id)
    identity_files(trust, own, clock)
