"""A pipeline as people write it: a versioned graph of steps. Checking the graph is the platform's."""

import re
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.manifest import Written
from hivemesh_sdk.contracts.names import CAPABILITY_ID, DEFAULT_PRIORITY, NODE_NAME

StepName = Annotated[str, Field(pattern=f"^{NODE_NAME.pattern}$")]


class PipelineMetadata(Written):
    """The pipeline's name and version; a changed pipeline takes a new version."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$")]
    version: Annotated[int, Field(ge=1)] = 1
    description: str = ""


class Parameter(Written):
    """One value that a run is started with."""

    type: Literal["string", "integer", "number", "boolean", "artifact", "array", "object"] = (
        "string"
    )
    description: str = ""
    default: JsonValue = None
    required: bool | None = None  # None: required unless there is a default


OnError = Literal["fail", "skip", "dead_letter"]


class Retry(Written):
    """How often and how soon a failed attempt is repeated: base, 2x, 4x … seconds, at most `max_s`.

    What is left out is as the capability's manifest says, or else the platform's settings.
    """

    max_retries: Annotated[int, Field(ge=0, le=100)] | None = None
    base_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    max_s: Annotated[float, Field(gt=0, le=86_400)] | None = None


PIPELINE_USE = re.compile(
    r"pipeline/([a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?)@([1-9][0-9]{0,8})"
)  # of a stored pipeline that a step runs


class Step(Written):
    """A node of the graph: a capability or a pipeline, what it reads, and its options.

    A step without `map` and `reduce` is a source or a call. `map` and `reduce` name the step
    whose batches it takes. `${{ parameters.x }}` and `${{ step.field }}` refer to values.
    `use: pipeline/NAME@VERSION` runs a stored pipeline with `with` as its parameters.
    """

    use: Annotated[str, Field(pattern=f"^(?:{CAPABILITY_ID.pattern}|{PIPELINE_USE.pattern})$")]
    map: StepName | None = None
    reduce: StepName | None = None
    with_: Annotated[dict[str, JsonValue], Field(alias="with", default_factory=dict)]
    needs: tuple[StepName, ...] = ()  # begins when all of these have ended well
    needs_any: tuple[StepName, ...] = ()  # begins when these have ended, one of them well
    when: Annotated[str, Field(max_length=1000)] | None = None  # a false condition skips the step
    on_error: OnError = "fail"
    optional: bool = False  # the run goes on without what it gives
    priority: Annotated[int, Field(ge=0, le=10)] | None = None  # None: that of the run
    concurrency_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:@-]{0,100}$")] = ""
    retry: Retry | None = None
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    idle_timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    labels: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _reads_one_way(self) -> "Step":
        if self.map is not None and self.reduce is not None:
            message = "a step has either `map` or `reduce`, not both"
            raise ValueError(message)
        return self


class Pipeline(Written):
    """The whole of a pipeline file."""

    apiVersion: Literal["hivemesh/v1"]  # noqa: N815 - the field's name on the wire
    kind: Literal["Pipeline"]
    metadata: PipelineMetadata
    parameters: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")], Parameter] = Field(
        default_factory=dict
    )
    steps: Annotated[dict[StepName, Step], Field(min_length=1)]
    outputs: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")], str] = Field(
        default_factory=dict
    )
    data_class: DataClass = DataClass.PERSONAL
    priority: Annotated[int, Field(ge=0, le=10)] = DEFAULT_PRIORITY  # of a run that says none
