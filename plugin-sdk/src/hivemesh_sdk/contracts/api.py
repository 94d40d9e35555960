"""What the platform's API answers: views that the CLI, the `Client` and other programs read.

Times are ISO 8601 in UTC. Lists are pages: `items` and, where there are more, `next`.
"""

from enum import StrEnum
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from hivemesh_sdk.contracts.artifacts import DataClass
from hivemesh_sdk.contracts.names import DEFAULT_PRIORITY

T = TypeVar("T")


class View(BaseModel):
    """What programs read: unknown fields are ignored, so that N and N-1 understand each other."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Body(BaseModel):
    """What programs and people send: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(View, Generic[T]):
    """A page of a list; ask again with `?after=next` for what follows."""

    items: list[T]
    next: str | None = None


class RunState(StrEnum):
    """States of runs, nodes and rows of work."""

    QUEUED = "queued"
    WAITING = "waiting"  # the reason says for what; a step without one, for those before it
    RUNNING = "running"
    COMPLETED = "completed"
    PARTIAL = "partial"  # completed, but inputs were rejected or steps left out
    FAILED = "failed"
    CANCELLED = "cancelled"
    BLOCKED = "blocked"  # something before it has failed
    SKIPPED = "skipped"

    @property
    def ended(self) -> bool:
        """Whether no transition leaves this state."""
        return self in ENDED_STATES


ENDED_STATES = frozenset(
    {RunState.COMPLETED, RunState.PARTIAL, RunState.FAILED, RunState.CANCELLED, RunState.SKIPPED}
)


class SystemStatus(View):
    """`GET /v1/status`: the installation at a glance."""

    version: str
    api_version: int
    replica: str
    trust_domain: str
    mode: str
    started_at: str
    ready: bool
    live_instances: int
    wanted_instances: int
    runs_active: int
    mesh_url: str
    people_url: str = ""
    state_folder: str
    pid: int
    issuer_expires_at: str
    quarantined: list[str] = []  # identities that two keys claimed
    audit_problem: str = ""  # why the audit trail cannot be written, or what is missing of it
    secrets_sealed: str = ""  # why secrets cannot be read at the moment; "" where they can
    replicas: list[str] = []  # those that live, this one included
    ejected: list[str] = []  # instances that are slower, or fail more, than the others
    cpu_percent: float = 0.0  # mean of the live instances, each of its own limit
    memory_percent: float = 0.0
    active_steps: int = 0  # that the live instances run


class QueueView(View):
    """What waits to be placed at instances of one capability: jobs, and the steps of runs."""

    capability: str
    high: int  # with a priority above 5
    background: int  # the others
    oldest_s: float  # since the one that waits longest was accepted


class ReplicaView(View):
    """One replica of the platform."""

    id: str
    state: str  # live, dead (declared so by another one), left
    epoch: int  # raised when it joins and when it is declared dead
    leads: list[str]  # in what it does what one alone does
    answers: bool  # whether it is the one that has answered
    version: str
    mesh_url: str
    people_url: str
    started_at: str
    seen_at: str


class HealthView(View):
    """Whether an instance is well."""

    overall: bool
    # heartbeat, connection, resources, errors: "ok", or what is wrong
    details: dict[str, str]
    last_checked: str


class InstanceView(View):
    """One worker instance."""

    id: str
    worker: str
    version: str
    state: str  # starting, live, draining, unhealthy, offline, incompatible
    status: str  # idle, running, failed, offline
    reason: str = ""
    address: str
    identity: str
    heartbeat_age_s: float
    started_at: str
    certificate_expires_at: str | None = None
    slots: dict[str, int]
    active: dict[str, int]
    cpu: float
    memory: float
    load_score: float
    load_parts: dict[str, float]
    pid: int = 0
    restarts: int = 0
    circuits: dict[str, str] = {}  # by capability, where the instance is ejected: how, and why
    health: HealthView | None = None  # None: a platform that does not tell it


class WorkerView(View):
    """One installed worker type and its instances."""

    name: str
    version: str
    publisher: str
    description: str
    kinds: list[str]
    capabilities: list[str]
    permissions: dict[str, JsonValue]
    wanted: int
    live: int
    state: str  # stopped, building, starting, live, degraded, crash-loop, incompatible
    reason: str = ""
    instances: list[InstanceView] = []
    manifest_digest: str = ""


class CapabilityView(View):
    """One capability with its schemas and who serves it."""

    id: str
    kind: str
    worker: str
    worker_version: str
    description: str = ""
    input: dict[str, JsonValue] | None = None
    output: dict[str, JsonValue] | None = None
    options: dict[str, JsonValue] | None = None
    live_instances: int
    free_slots: int


class PipelineView(View):
    """A pipeline that is stored, or lies in a folder of the installation."""

    name: str  # of an invalid one that of its file
    version: int
    description: str = ""
    parameters: dict[str, JsonValue] = {}
    steps: list[str]
    outputs: list[str]
    origin: str = "stored"
    problem: str = ""  # why its file cannot be used; then nothing else of it is known


class NodeView(View):
    """Progress of one step of a run."""

    name: str
    use: str
    kind: str
    state: RunState
    reason: str = ""
    batches_done: int = 0
    batches_known: int = 0
    records_in: int = 0
    records_out: int = 0
    rejected: int = 0
    attempts: int = 0
    started_at: str | None = None
    ended_at: str | None = None
    done: float = 0.0  # of `total`, in `unit`: as the source tells it
    total: float = 0.0
    unit: str = ""
    condition: str = ""  # it runs only where this holds
    on_error: str = "fail"
    optional: bool = False
    missing: bool = False  # the run went on without what it gives, or without some of it
    child: str = ""  # the run of a step that is a pipeline
    problem: dict[str, JsonValue] | None = None


class RunView(View):
    """One run of a pipeline, or one job."""

    id: str
    pipeline: str
    version: int
    state: RunState
    reason: str = ""
    created_at: str
    started_at: str | None = None
    ended_at: str | None = None
    parameters: dict[str, JsonValue] = {}
    nodes: list[NodeView] = []
    outputs: dict[str, JsonValue] = {}
    rejected: int = 0
    submitter: str = ""
    problem: dict[str, JsonValue] | None = None
    labels: dict[str, str] = {}
    missing: list[str] = []  # fields and steps that it went on without
    parent: str = ""  # the run whose step it is
    parent_step: str = ""
    backfill_of: str = ""  # the run whose missing parts it gives
    batch: str = ""  # of a job: the batch with which it was submitted
    submitted_by: str = ""  # of what a step has started: its key and the name it gave


LabelText = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^=\s]+$")]
Labels = Annotated[dict[LabelText, str], Field(max_length=32)]
Priority = Annotated[int, Field(ge=0, le=10, description="10 starts first.")]


class RunRequest(Body):
    """`POST /v1/runs`: a stored pipeline by `pipeline` (name), or a whole one by `document`."""

    pipeline: str | None = None
    document: dict[str, JsonValue] | None = None
    parameters: dict[str, JsonValue] = {}
    labels: Labels = {}
    data_class: DataClass = DataClass.INTERNAL  # of the parameters; artifacts have their own
    priority: Priority | None = None  # None: that of the pipeline


class RetryRequest(Body):
    """`POST /v1/runs/{id}/retry`: what has failed, or everything from a step on."""

    from_step: str = Field(default="", max_length=40)


class JobRequest(Body):
    """`POST /v1/jobs`: one capability call. With `wait_s` the answer may carry the result."""

    capability: str
    input: JsonValue = None
    options: dict[str, JsonValue] = {}
    wait_s: float = Field(default=0.0, ge=0, le=20)
    deadline_s: float | None = Field(default=None, gt=0)
    idle_timeout_s: float | None = Field(default=None, gt=0)
    max_retries: int | None = Field(default=None, ge=0, le=100)
    data_class: DataClass = DataClass.INTERNAL  # of input and options
    priority: Priority = DEFAULT_PRIORITY
    concurrency_key: str = ""  # jobs with the same key share its limits
    labels: Labels = {}  # lists are filtered by them
    requires: Labels = {}  # labels that the instance has, as `gpu: "true"`


class BatchRequest(Body):
    """First line of `POST /v1/jobs/batch`: what its jobs have in common; then an input a line."""

    capability: str
    options: dict[str, JsonValue] = {}
    deadline_s: float | None = Field(default=None, gt=0)
    idle_timeout_s: float | None = Field(default=None, gt=0)
    max_retries: int | None = Field(default=None, ge=0, le=100)
    data_class: DataClass = DataClass.INTERNAL  # of inputs and options
    priority: Priority = DEFAULT_PRIORITY
    concurrency_key: str = ""
    labels: Labels = {}
    requires: Labels = {}


class BatchView(View):
    """A batch of jobs; their ids are `first` and those that follow it, up to `count`."""

    id: str
    capability: str
    count: int
    first: str
    states: dict[str, int] = {}  # how many jobs are in each; of one batch, not in lists
    open: int  # jobs that have not ended
    created_at: str
    ended_at: str | None = None
    submitter: str = ""
    labels: dict[str, str] = {}


class BatchRetry(Body):
    """`POST /v1/jobs/batch/{id}/retry`: which of its jobs are queued once more."""

    states: set[Literal["failed", "cancelled"]] = {"failed", "cancelled"}


class LimitRequest(Body):
    """`PUT /v1/limits/{target}`: rows at a time, starts in a time (`10/s burst 50`), or both."""

    running: int | None = Field(default=None, ge=1)
    rate: str | None = None


class LimitView(View):
    """A limit and how far it is used."""

    target: str  # all, capability:NAME, key:NAME or key:BEGIN*
    running: int | None = None
    rate: str | None = None
    now_running: int = 0
    now_waiting: int = 0
    origin: str  # settings, or who has set it


class RetentionView(View):
    """How long what has ended is kept, what was removed, and (where asked for) what is due."""

    runs_days: float  # 0: for ever
    jobs_days: float
    events_days: float
    artifacts_days: float
    swept_at: str | None = None
    removed: dict[str, int] = {}  # since the platform's start: runs, jobs, events, artifacts …
    due: dict[str, int] = {}


class ScaleRequest(Body):
    """`POST /v1/workers/{name}/scale`."""

    instances: int = Field(ge=0, le=64)


class DatasetView(View):
    """A dataset version and where it came from."""

    name: str
    version: int
    state: str
    records: int
    bytes: int
    created_at: str
    run: str
    node: str
    data_class: DataClass = DataClass.INTERNAL
    provenance: dict[str, JsonValue] = {}


class ArtifactView(View):
    """A stored artifact."""

    sha256: str
    size: int
    media_type: str
    name: str | None = None
    created_at: str
    data_class: DataClass = DataClass.INTERNAL


class RejectedView(View):
    """A record that was refused, with its place."""

    node: str
    seq: int
    reason: str
    detail: str = ""
    position: JsonValue = None
    data_class: DataClass = DataClass.INTERNAL  # of the record


class ExplainView(View):
    """Why an attempt was placed where it was, or why a row waits (`chosen` is null).

    Each candidate has its score, the parts of it, and the requirement that it does not meet: as it
    stood at the decision, or, for what waits, as it stands now.
    """

    key: str
    attempt: int  # of what waits: the last one that was placed, or 0
    chosen: str | None
    reason: str
    candidates: list[dict[str, JsonValue]]
    not_listed: int = 0  # further candidates
