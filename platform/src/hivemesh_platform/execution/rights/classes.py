"""How sensitive what a step takes and gives is, and where it may not go. Pure.

The class of an output is the highest of the inputs and of the capability's own declaration. Only a
capability whose manifest says `declassifies` gives something of a lower class than it was given.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hivemesh_sdk.contracts.artifacts import DataClass, highest
from hivemesh_sdk.contracts.manifest import Capability
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import NotAuthorizedError

from hivemesh_platform.execution.plans.plan import Node
from hivemesh_platform.execution.plans.references import PARAMETERS, escape, find_references


class DataClassError(NotAuthorizedError):
    """The data is above what it would be given to."""

    slug = "data-class-exceeded"


@dataclass(frozen=True, slots=True)
class Classes:
    """Of one node."""

    inputs: DataClass
    output: DataClass


def output_class(inputs: DataClass, declared: Capability) -> DataClass:
    """The class of what a capability makes of inputs of a class."""
    if inputs in declared.declassifies:
        return declared.data_class
    return highest((inputs, declared.data_class))


def classes_of(
    nodes: Iterable[Node], parameters: DataClass, artifacts: Mapping[str, DataClass]
) -> dict[str, Classes]:
    """The classes of every node of a plan, which is in topological order.

    `parameters` is that of the run's parameters, `artifacts` that of what the options of a node
    name, by its name.
    """
    found: dict[str, Classes] = {}
    for node in nodes:
        before = [found[name].output for name in node.waits_for]
        if node.upstream:
            before.append(found[node.upstream].output)
        if any(
            text.partition(".")[0].strip() == PARAMETERS
            for _, text in find_references(node.step.with_)
        ):
            before.append(parameters)
        inputs = highest((*before, artifacts[node.name]))
        found[node.name] = Classes(inputs, _output_of(node, inputs))
    return found


def _output_of(node: Node, inputs: DataClass) -> DataClass:
    if node.nested is None:
        return output_class(inputs, node.declared)
    return highest((inputs, *(one.output for one in _within(node, inputs).values())))


def _within(node: Node, inputs: DataClass) -> dict[str, Classes]:
    """The classes within a step that is a pipeline, as far as they are known before it runs."""
    nodes = () if node.nested is None else node.nested.plan.nodes
    return classes_of(nodes, inputs, {one.name: DataClass.PUBLIC for one in nodes})


def check_clearances(nodes: Sequence[Node], classes: Mapping[str, Classes]) -> None:
    """Refuse a plan that would give a capability more than it is cleared for.

    Raises:
        DataClassError: with a pointer for each such step.
    """
    problems = [
        FieldProblem(
            pointer=f"/steps/{escape(node.name)}",
            message=exceeded(classes[node.name].inputs, node.declared),
            code="data-class-exceeded",
        )
        for node in nodes
        if classes[node.name].inputs.exceeds(node.declared.data_class_max)
    ]
    if problems:
        raise DataClassError(problems[0].message, errors=problems)
    for node in nodes:
        if node.nested is not None:
            check_clearances(node.nested.plan.nodes, _within(node, classes[node.name].inputs))


def check_clearance(inputs: DataClass, declared: Capability) -> None:
    """Refuse a single call that would give its capability more than it is cleared for.

    Raises:
        DataClassError: it would.
    """
    if inputs.exceeds(declared.data_class_max):
        raise DataClassError(exceeded(inputs, declared))


def exceeded(inputs: DataClass, declared: Capability) -> str:
    """The sentence that people read."""
    return f"data class {inputs} exceeds {declared.data_class_max} of {declared.id}"
