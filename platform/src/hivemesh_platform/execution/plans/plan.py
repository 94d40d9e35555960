"""Turns a pipeline document into a checked graph, before anything runs. Pure."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.manifest import Capability
from hivemesh_sdk.contracts.names import SHA256
from hivemesh_sdk.contracts.pipeline import Parameter, Pipeline, Step
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.contracts.references import references_in
from hivemesh_sdk.errors import InvalidError
from pydantic import JsonValue

from hivemesh_platform.execution.behalf import Behalf
from hivemesh_platform.execution.model import NodeKind
from hivemesh_platform.execution.plans.condition import Condition, parse_condition
from hivemesh_platform.execution.plans.fits import misfits
from hivemesh_platform.execution.plans.given import Given, given_by
from hivemesh_platform.execution.plans.graph import Edge
from hivemesh_platform.execution.plans.references import (
    PARAMETERS,
    Reference,
    escape,
    find_references,
    parse_path,
)
from hivemesh_platform.execution.plans.secret_uses import SecretUse, secret_problems
from hivemesh_platform.execution.ports import Catalogue, KnownCapability


@dataclass(frozen=True, slots=True)
class Nested:
    """A pipeline that is a step of another one."""

    plan: "Plan"
    author: Behalf | None  # of a stored one


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A step of the graph with everything that is known before the run."""

    name: str
    kind: NodeKind
    step: Step
    upstream: str  # whose batches it takes, or ""
    waits_for: frozenset[str]  # steps whose results its options refer to
    declared: Capability
    edges: tuple[Edge, ...] = ()  # all that it depends on
    dataset: str = ""  # the output that makes its batches a dataset
    gives: tuple[str, ...] = ()  # optional steps: the fields that are missing without it
    nested: Nested | None = None

    @property
    def begins_at_once(self) -> bool:
        """Whether its options are known when the run is accepted, and nothing is to be decided."""
        return not self.step.when and all(edge.kind == "stream" for edge in self.edges)


@dataclass(frozen=True, slots=True)
class Plan:
    """The nodes in topological order; the same document gives the same order."""

    pipeline: Pipeline
    nodes: tuple[Node, ...]


NO_PIPELINES: Mapping[str, Nested] = {}


def make_plan(
    pipeline: Pipeline, catalogue: Catalogue, nested: Mapping[str, Nested] = NO_PIPELINES
) -> Plan:
    """Check a pipeline against the installed capabilities and order its steps.

    `nested` are the pipelines that its steps use, by what they write.

    Raises:
        InvalidError: with a pointer for each thing that is wrong.
    """
    catalogue = _WithPipelines(catalogue, nested) if nested else catalogue
    problems = [
        *_default_problems(pipeline),
        *_step_problems(pipeline, catalogue),
        *_reference_problems(pipeline, catalogue),
        *_need_problems(pipeline),
        *_condition_problems(pipeline, catalogue),
        *_optional_problems(pipeline, catalogue),
        *_output_problems(pipeline, catalogue),
    ]
    order = _order(pipeline)
    if order is None:
        problems.append(
            _problem("/steps", f"the steps {_cycle(pipeline)} wait for each other", "cycle")
        )
    if problems or order is None:
        detail = f"{pipeline.metadata.name}: {problems[0].message}"
        raise InvalidError(detail, slug="pipeline-invalid", errors=problems)
    return Plan(pipeline, tuple(_node(pipeline, name, catalogue, nested) for name in order))


def check_defaults(pipeline: Pipeline) -> Pipeline:
    """Return the pipeline unchanged.

    Raises:
        InvalidError: the default of a parameter is not of its type.
    """
    problems = list(_default_problems(pipeline))
    if problems:
        detail = f"{pipeline.metadata.name}: {problems[0].message}"
        raise InvalidError(detail, slug="pipeline-invalid", errors=problems)
    return pipeline


def bind_parameters(pipeline: Pipeline, given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Check the given parameters and add the defaults.

    Raises:
        InvalidError: a parameter is unknown, missing or of the wrong type.
    """
    problems = [
        _problem(
            f"/parameters/{escape(name)}", _unknown(name, list(pipeline.parameters)), "unknown"
        )
        for name in given
        if name not in pipeline.parameters
    ]
    bound: dict[str, JsonValue] = {}
    for name, declared in pipeline.parameters.items():
        wrong = _bind_one(name, declared, given, bound)
        if wrong is not None:
            problems.append(wrong)
    if problems:
        raise InvalidError(problems[0].message, slug="parameter-invalid", errors=problems)
    return bound


def dataset_outputs(pipeline: Pipeline, catalogue: Catalogue) -> dict[str, str]:
    """Map each step whose batches are an output to the name of that output."""
    found: dict[str, str] = {}
    for output, text in pipeline.outputs.items():
        step = pipeline.steps.get(text)
        if step is not None and _kind(step, catalogue) in {"source", "map"}:
            found.setdefault(text, output)
    return found


def secret_uses(plan: Plan) -> Iterator[SecretUse]:
    """The references to secrets of a plan's steps, with their places in the document."""
    for node in plan.nodes:
        yield from references_in(node.step.with_, node.declared.options, f"/steps/{node.name}/with")


def written_by(plan: Plan) -> Given:
    """The artifacts that the document itself names: in its steps and as defaults."""
    defaults = {name: one.default for name, one in plan.pipeline.parameters.items()}
    return given_by(options_of(plan), defaults)


def options_of(plan: Plan) -> dict[str, JsonValue]:
    """The options of a plan's steps as they are written."""
    return {node.name: node.step.with_ for node in plan.nodes}


def _bind_one(
    name: str, declared: Parameter, given: Mapping[str, JsonValue], bound: dict[str, JsonValue]
) -> FieldProblem | None:
    pointer = f"/parameters/{escape(name)}"
    if name not in given:
        required = declared.required if declared.required is not None else declared.default is None
        bound[name] = declared.default
        message = f"the parameter {name!r} is missing; {declared.description or 'give it a value'}"
        return _problem(pointer, message, "missing") if required else None
    bound[name] = given[name]
    if not _has_type(given[name], declared.type):
        return _problem(pointer, f"the parameter {name!r} is no {declared.type}", "type")
    return None


def _has_type(value: JsonValue, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "artifact":
        return is_artifact(value)
    return isinstance(value, _TYPES.get(name, dict))


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def is_artifact(value: JsonValue) -> bool:
    """Whether a JSON value has the form of an artifact reference."""
    if not isinstance(value, dict):
        return False
    digest, size = value.get("sha256"), value.get("size")
    return (
        isinstance(digest, str) and SHA256.fullmatch(digest) is not None and isinstance(size, int)
    )


def _default_problems(pipeline: Pipeline) -> Iterator[FieldProblem]:
    for name, declared in pipeline.parameters.items():
        if declared.default is not None and not _has_type(declared.default, declared.type):
            message = f"the default of the parameter {name!r} is no {declared.type}"
            yield _problem(f"/parameters/{escape(name)}/default", message, "type")


def _step_problems(pipeline: Pipeline, catalogue: Catalogue) -> Iterator[FieldProblem]:
    for name, step in pipeline.steps.items():
        pointer = f"/steps/{name}"
        if name == PARAMETERS:
            yield _problem(pointer, "a step cannot be named 'parameters'", "reserved")
        known = catalogue.find(step.use)
        if known is None:
            yield _problem(
                f"{pointer}/use", _unknown(step.use, catalogue.names()), "unknown-capability"
            )
            continue
        yield from _form_problems(pointer, pipeline, step, catalogue)
        yield from _option_problems(f"{pointer}/with", step, known.declared)
        yield from secret_problems(step.with_, known, f"{pointer}/with")


def _form_problems(
    pointer: str, pipeline: Pipeline, step: Step, catalogue: Catalogue
) -> Iterator[FieldProblem]:
    """A step's form (map, reduce or neither) has to fit its capability's kind."""
    kind = _kind(step, catalogue)
    reads = step.map or step.reduce
    word = "map" if step.map else "reduce"
    if reads is None:
        if kind in {"map", "reducer"}:
            word = "map" if kind == "map" else "reduce"
            message = f"{step.use} is a {kind}: say whose batches it takes, `{word}: STEP`"
            yield _problem(f"{pointer}/use", message, "kind")
        return
    if kind != {"map": "map", "reduce": "reducer"}[word]:
        yield _problem(f"{pointer}/{word}", f"{step.use} is a {kind}, it cannot {word}", "kind")
    upstream = pipeline.steps.get(reads)
    if upstream is None:
        message = _unknown(reads, list(pipeline.steps), what="step")
        yield _problem(f"{pointer}/{word}", message, "unknown-step")
    elif _kind(upstream, catalogue) not in {"source", "map", None}:
        message = f"the step {reads!r} gives one result, not batches; only sources and maps can be {word}ped"
        yield _problem(f"{pointer}/{word}", message.replace("reduceped", "reduced"), "kind")
    else:
        yield from _record_problems(f"{pointer}/{word}", upstream, step, catalogue)


def _record_problems(
    pointer: str, upstream: Step, step: Step, catalogue: Catalogue
) -> Iterator[FieldProblem]:
    """The records of one step have to be what the next one takes, as far as both say."""
    giving, taking = catalogue.find(upstream.use), catalogue.find(step.use)
    if giving is None or taking is None:
        return
    for misfit in misfits(giving.declared.output, taking.declared.input):
        message = f"{step.use} cannot take what {upstream.use} gives: {misfit}"
        yield _problem(pointer, message, "record-type")


def _option_problems(pointer: str, step: Step, declared: Capability) -> Iterator[FieldProblem]:
    """Check names and required options against the declared schema; values are the worker's."""
    schema = declared.options or {}
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return
    for name in step.with_:
        if name not in properties:
            message = _unknown(name, list(properties), what="option")
            yield _problem(f"{pointer}/{escape(name)}", message, "unknown-option")
    required = schema.get("required")
    for wanted in required if isinstance(required, list) else []:
        if isinstance(wanted, str) and wanted not in step.with_:
            message = f"the option {wanted!r} of {step.use} is missing"
            yield _problem(pointer, message, "missing-option")


def _reference_problems(pipeline: Pipeline, catalogue: Catalogue) -> Iterator[FieldProblem]:
    for name, step in pipeline.steps.items():
        for pointer, text in find_references(step.with_, f"/steps/{name}/with"):
            try:
                reference = parse_path(text)
            except ValueError as error:
                yield _problem(pointer, str(error), "reference")
                continue
            yield from _target_problems(pointer, pipeline, reference, catalogue)


def _need_problems(pipeline: Pipeline) -> Iterator[FieldProblem]:
    for name, step in pipeline.steps.items():
        for word, needed in (("needs", step.needs), ("needs_any", step.needs_any)):
            for index, other in enumerate(needed):
                if other not in pipeline.steps:
                    message = _unknown(other, list(pipeline.steps), what="step")
                    yield _problem(f"/steps/{name}/{word}/{index}", message, "unknown-step")


def _condition_problems(pipeline: Pipeline, catalogue: Catalogue) -> Iterator[FieldProblem]:
    for name, step in pipeline.steps.items():
        if step.when is None:
            continue
        pointer = f"/steps/{name}/when"
        try:
            condition = parse_condition(step.when)
        except ValueError as error:
            yield _problem(pointer, str(error), "condition")
            continue
        for reference in (*condition.values(), *condition.looks()):
            yield from _target_problems(pointer, pipeline, reference, catalogue)
        for other in condition.asks():
            if other not in pipeline.steps:
                message = _unknown(other, list(pipeline.steps), what="step")
                yield _problem(pointer, message, "unknown-step")


def _optional_problems(pipeline: Pipeline, catalogue: Catalogue) -> Iterator[FieldProblem]:
    """What an optional map hands on as it came must be fit to be handed on."""
    for name, step in pipeline.steps.items():
        known = catalogue.find(step.use)
        if not step.optional or step.map is None or known is None:
            continue
        if known.declared.declassifies:
            message = (
                f"{step.use} lowers the class of data, so it cannot be optional: without it the "
                "records would be handed on as they are"
            )
            yield _problem(f"/steps/{name}/optional", message, "optional-declassifies")
        upstream = pipeline.steps.get(step.map)
        for other, taker in pipeline.steps.items():
            if upstream is not None and name in {taker.map, taker.reduce}:
                word = "map" if taker.map else "reduce"
                yield from _record_problems(f"/steps/{other}/{word}", upstream, taker, catalogue)


def _target_problems(
    pointer: str, pipeline: Pipeline, reference: Reference, catalogue: Catalogue
) -> Iterator[FieldProblem]:
    if reference.root == PARAMETERS:
        if not reference.fields or reference.fields[0] not in pipeline.parameters:
            name = reference.fields[0] if reference.fields else ""
            yield _problem(pointer, _unknown(name, list(pipeline.parameters)), "reference")
    elif reference.root not in pipeline.steps:
        known = [*pipeline.steps, PARAMETERS]
        yield _problem(pointer, _unknown(reference.root, known, what="step"), "reference")
    elif _kind(pipeline.steps[reference.root], catalogue) in {"source", "map"}:
        message = f"the step {reference.root!r} gives batches, not a value; `map` or `reduce` it"
        yield _problem(pointer, message, "kind")


def _output_problems(pipeline: Pipeline, catalogue: Catalogue) -> Iterator[FieldProblem]:
    for name, text in pipeline.outputs.items():
        pointer = f"/outputs/{name}"
        try:
            reference = parse_path(text)
        except ValueError:
            yield _problem(pointer, f"{text!r} is no output; write STEP or STEP.field", "reference")
            continue
        step = pipeline.steps.get(reference.root)
        if step is None:
            message = _unknown(reference.root, list(pipeline.steps), what="step")
            yield _problem(pointer, message, "unknown-step")
        elif reference.fields and _kind(step, catalogue) in {"source", "map"}:
            message = f"the batches of {reference.root!r} have no fields; write `{reference.root}`"
            yield _problem(pointer, message, "kind")


def _kind(step: Step, catalogue: Catalogue) -> str | None:
    known = catalogue.find(step.use)
    return None if known is None else known.declared.kind


def _waits_for(pipeline: Pipeline, step: Step) -> frozenset[str]:
    """Steps whose results the options refer to."""
    names = set()
    for _, text in find_references(step.with_):
        root = text.partition(".")[0].strip()
        if root in pipeline.steps:
            names.add(root)
    return frozenset(names)


def _edges(pipeline: Pipeline, name: str) -> tuple[Edge, ...]:
    """All that a step depends on, as far as it is there."""
    step = pipeline.steps[name]
    reads = step.map or step.reduce
    found = [Edge(reads, "stream")] if reads else []
    found += [Edge(one, "value") for one in sorted(_waits_for(pipeline, step))]
    found += [Edge(one, "order") for one in step.needs]
    found += [Edge(one, "any") for one in step.needs_any]
    condition = _condition(step)
    if condition is not None:
        found += [Edge(one.root, "value") for one in condition.values()]
        found += [Edge(one.root, "look") for one in condition.looks()]
        found += [Edge(one, "look") for one in condition.asks()]
    return tuple(dict.fromkeys(one for one in found if one.upstream in pipeline.steps))


def _condition(step: Step) -> Condition | None:
    try:
        return None if step.when is None else parse_condition(step.when)
    except ValueError:  # it is told with its pointer
        return None


def _parents(pipeline: Pipeline, name: str) -> frozenset[str]:
    return frozenset(edge.upstream for edge in _edges(pipeline, name))


def _order(pipeline: Pipeline) -> list[str] | None:
    """Order the steps by dependency, by place in the document where that leaves a choice."""
    order: list[str] = []
    left = list(pipeline.steps)
    while left:
        ready = next((name for name in left if _parents(pipeline, name) <= set(order)), None)
        if ready is None:
            return None
        order.append(ready)
        left.remove(ready)
    return order


def _cycle(pipeline: Pipeline) -> str:
    """Name the steps of one cycle."""
    left = dict.fromkeys(pipeline.steps)
    while leaf := next((n for n in left if not _parents(pipeline, n) & left.keys()), None):
        del left[leaf]
    name, path = next(iter(left)), []
    while name not in path:
        path.append(name)
        name = next(iter(sorted(_parents(pipeline, name) & left.keys())))
    return " → ".join([*path[path.index(name) :], name])


class _WithPipelines:
    """The installed capabilities, and pipelines that look like calls."""

    def __init__(self, catalogue: Catalogue, nested: Mapping[str, Nested]) -> None:
        self._catalogue = catalogue
        self._nested = nested

    def find(self, capability: str) -> KnownCapability | None:
        """Return the capability or pipeline."""
        found = self._nested.get(capability)
        if found is None:
            return self._catalogue.find(capability)
        return KnownCapability(
            worker="", version="", declared=_as_capability(capability, found.plan.pipeline)
        )

    def names(self) -> list[str]:
        """Return the names of both."""
        return [*self._catalogue.names(), *self._nested]


def _as_capability(use: str, pipeline: Pipeline) -> Capability:
    """A pipeline as its caller sees it: its parameters are the options."""
    required: list[JsonValue] = [
        name
        for name, one in pipeline.parameters.items()
        if (one.required if one.required is not None else one.default is None)
    ]
    options: dict[str, JsonValue] = {
        "type": "object",
        "properties": {name: {} for name in pipeline.parameters},
        "required": required,
    }
    return Capability.model_construct(
        id=use, kind="call", options=options, data_class_max=DataClass.SECRET, max_retries=0
    )


def _node(
    pipeline: Pipeline, name: str, catalogue: Catalogue, nested: Mapping[str, Nested]
) -> Node:
    step = pipeline.steps[name]
    known = catalogue.find(step.use)
    if known is None:
        message = f"{step.use} was checked before"
        raise AssertionError(message)
    output = dataset_outputs(pipeline, catalogue).get(name)
    kind = known.declared.kind
    return Node(
        name=name,
        kind="pipeline" if step.use in nested else "reduce" if kind == "reducer" else kind,
        nested=nested.get(step.use),
        step=step,
        upstream=step.map or step.reduce or "",
        waits_for=_waits_for(pipeline, step),
        declared=known.declared,
        edges=_edges(pipeline, name),
        dataset="" if output is None else f"{pipeline.metadata.name}.{output}",
        gives=_gives(pipeline, name, catalogue) if step.optional else (),
    )


def _gives(pipeline: Pipeline, name: str, catalogue: Catalogue) -> tuple[str, ...]:
    """The fields that a map adds to the records it is given, as far as the schemas say; else itself."""
    step = pipeline.steps[name]
    known = catalogue.find(step.use)
    if step.map is None or known is None:
        return (name,)
    upstream = catalogue.find(pipeline.steps[step.map].use)
    taken, comes = known.declared.input, None if upstream is None else upstream.declared.output
    # what it may take need not come: a classifier takes old labels where there are some
    given = _properties(taken) if comes is None else _properties(comes) | _required(taken)
    fields = tuple(sorted(_properties(known.declared.output) - given))
    return fields or (name,)


def _properties(schema: Mapping[str, JsonValue] | None) -> frozenset[str]:
    found = (schema or {}).get("properties")
    return frozenset(found) if isinstance(found, dict) else frozenset()


def _required(schema: Mapping[str, JsonValue] | None) -> frozenset[str]:
    found = (schema or {}).get("required")
    return frozenset(str(one) for one in found) if isinstance(found, list) else frozenset()


def _unknown(name: str, known: list[str], *, what: str = "") -> str:
    """Say that a name is unknown, and which known one it may have meant."""
    what = what or ("capability" if "@" in name else "parameter")
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"there is no {what} {name!r}; did you mean {close[0]!r}?"
    known_text = ", ".join(sorted(known)[:20]) or "none"
    return f"there is no {what} {name!r}; known: {known_text}"


def _problem(pointer: str, message: str, code: str) -> FieldProblem:
    return FieldProblem(pointer=pointer, message=message, code=code)
