"""Starts the authority over while the platform is down: everything before it is worthless."""

from contextlib import AsyncExitStack

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import ConflictError

from hivemesh_platform.audit.model import Actor
from hivemesh_platform.configuration import Loaded
from hivemesh_platform.lock import locked


async def start_over(loaded: Loaded, clock: Clock, by: Actor) -> None:
    """Make new keys in a state folder on which no platform runs, and write it down.

    Raises:
        ConflictError: a platform runs on it, or there is nothing to start over.
    """
    from hivemesh_platform import app  # noqa: PLC0415 - heavy, and only needed here
    from hivemesh_platform.storage.opening import open_database, place_of  # noqa: PLC0415
    from hivemesh_platform.trust.rotation import Rotation  # noqa: PLC0415

    folder = loaded.state_folder
    place = place_of(loaded.settings.database, folder)
    if not place.exists():
        message = f"no platform has been started with the state folder {str(folder)!r}"
        raise ConflictError(message)
    with locked(folder):
        authority = app.open_trust(loaded.settings, loaded.shared_folder, clock)
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(
                open_database(loaded.settings.database, place)
            )
            records = await stack.enter_async_context(
                app.open_records(loaded, database, clock, authority)
            )
            await Rotation(authority, lambda: (), clock, records.trail).start_over(by)
