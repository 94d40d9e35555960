"""What the API says of dead letters and of attempts."""

from pydantic import Field, JsonValue

from hivemesh_sdk.contracts.api import Body, View
from hivemesh_sdk.contracts.artifacts import DataClass


class DeadLetterView(View):
    """An input that was given up: its last problem, and where the input came from.

    The input itself is read at `/v1/dead-letters/{id}/input`, which is audited.
    """

    id: str
    key: str  # of the step that gave it up
    run: str
    step: str
    seq: int
    kind: str
    capability: str
    options: dict[str, JsonValue] | None = None  # of its step; None in lists
    pipeline: str = ""  # "" for a job
    state: str  # open, retried, discarded
    cause: str  # crashes, retries, refused
    records: int
    lines: tuple[int, int] | None = None  # of the batch, where only some of it was given up
    position: JsonValue = None  # of a source: the checkpoint before it
    attempts: int
    problem: dict[str, JsonValue]
    data_class: DataClass
    submitter: str
    created_at: str
    replayed_as: str = ""  # the job that it became
    settled_by: str = ""
    settled_at: str | None = None


class ReplayRequest(Body):
    """`POST /v1/dead-letters/{id}/edit`: another input or other options; what is left out stays.

    Of the options those that are named change, and null takes one out; the others stay.
    Of a letter of several records `record` says which one `input` replaces; all of them are run.
    """

    input: JsonValue = None
    record: int | None = Field(default=None, ge=0)  # from 0, as `/input` shows them
    options: dict[str, JsonValue] | None = None
    data_class: DataClass = DataClass.PUBLIC  # never below that of the letter


class ReplayManyRequest(Body):
    """`POST /v1/dead-letters/retry`: a page of the open letters that fit, the newest first."""

    run: str = ""
    capability: str = ""
    after: str = Field(default="", max_length=100)  # `next` of the page before
    limit: int = Field(default=200, ge=1, le=1000)


class ReplayView(View):
    """What became of one letter."""

    letter: str
    job: str = ""  # "" where it stays a letter
    problem: dict[str, JsonValue] | None = None  # why


class ReplayedView(View):
    """What became of many letters; `next` where there are more."""

    items: list[ReplayView]
    next: str | None = None


class AttemptView(View):
    """One attempt of a step: where it ran, how it ended, and how long it was waited before."""

    key: str
    attempt: int
    instance: str
    worker: str
    started_at: str
    ended_at: str | None = None
    outcome: str = ""  # completed, failed, lost, interrupted, cancelled; "" while it runs
    elapsed_s: float
    gap_s: float | None = None  # since the attempt before it ended
    problem: dict[str, JsonValue] | None = None


class InstanceAttemptView(View):
    """An attempt as the history of one instance has it: what ran there, when, and how it ended."""

    key: str
    capability: str
    attempt: int
    instance: str
    worker: str
    started_at: str
    ended_at: str | None = None
    outcome: str = ""  # as of an attempt
    elapsed_s: float
    problem: dict[str, JsonValue] | None = None


class LostStepView(View):
    """A step whose worker went away, and what became of it."""

    key: str
    attempt: int
    instance: str  # that was lost
    capability: str
    started_at: str
    lost_at: str
    elapsed_s: float  # from its start until it was found lost
    state: str  # of the step now
    now_attempt: int
    now_instance: str = ""
    problem: dict[str, JsonValue] | None = None
