"""Which artifacts a run is given by its pipeline and parameters. Pure.

What is found here was checked when the run was accepted; an answer of a step gives nothing more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from hivemesh_platform.execution.plans.references import PARAMETERS, fill
from hivemesh_platform.execution.plans.spec import artifact_digests


@dataclass(frozen=True, slots=True)
class Given:
    """Digests of artifacts, and those of them that are folders."""

    digests: frozenset[str]
    trees: frozenset[str]


def given_by(options: Iterable[JsonValue], parameters: Mapping[str, JsonValue]) -> Given:
    """What the options of steps name once the parameters are put in, and the parameters name.

    A reference whose digest or media type an answer would complete counts as it stands: its digest
    is not given, or it is no folder.
    """
    told = [filled(one, parameters) for one in options]
    return Given(*artifact_digests([dict(parameters), *told]))


def filled(options: JsonValue, parameters: Mapping[str, JsonValue]) -> JsonValue:
    """The options of a step, with what is known of them when its run is accepted."""
    return fill(options, {PARAMETERS: dict(parameters)})
