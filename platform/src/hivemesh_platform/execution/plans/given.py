"""Which artifacts a run is given by its pipeline and parameters. Pure.

What is found here was checked when the run was accepted; an answer of a step gives nothing more.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from hivemesh_platform.execution.plans.references import PARAMETERS, Room, fill
from hivemesh_platform.execution.plans.spec import artifact_digests


@dataclass(frozen=True, slots=True)
class Given:
    """Digests of artifacts, and those of them that are folders."""

    digests: frozenset[str]
    trees: frozenset[str]


def given_by(options: Mapping[str, JsonValue], parameters: Mapping[str, JsonValue]) -> Given:
    """What the options of steps name once the parameters are put in, and the parameters name.

    A reference whose digest or media type an answer would complete counts as it stands: its digest
    is not given, or it is no folder.

    Raises:
        OptionsTooLargeError: with the parameters put in they are larger than a run may have them.
    """
    return Given(*artifact_digests([dict(parameters), *filled(options, parameters).values()]))


def filled(
    options: Mapping[str, JsonValue], parameters: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """The options of all steps, with what is known of them when their run is accepted.

    Raises:
        OptionsTooLargeError: as `given_by`.
    """
    room, scope = Room.of_run(), {PARAMETERS: dict(parameters)}
    return {name: fill(one, scope, room.step(name)) for name, one in options.items()}
