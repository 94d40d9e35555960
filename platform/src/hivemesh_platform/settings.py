"""The settings tree: every setting with its unit, default and reason. Reading it is `configuration`.

No other module reads the environment or a settings file.
"""

from pathlib import Path
from typing import Annotated, Literal

from hivemesh_sdk.contracts.artifacts import DataClass
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Mode = Literal["local", "production"]
Port = Annotated[int, Field(ge=0, le=65_535)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

DAY_S = 86_400.0


class Section(BaseModel):
    """Settings that belong together: frozen, and unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)


class StateSettings(Section):
    """Where the installation keeps everything that it writes."""

    folder: Path | None = Field(
        default=None,
        description="State folder. Default: `.hivemesh` at the root of a checkout or project, else "
        "`$XDG_STATE_HOME/hivemesh`; nothing is written elsewhere.",
    )


class ApiSettings(Section):
    """Where the platform listens."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. Loopback by default: a laptop's platform is not "
        "offered to the network.",
    )
    port: Port = Field(
        default=8443,
        description="Port of the mesh listener, which demands a client certificate. 0 = any free "
        "one, kept for later starts.",
    )
    enrolment_port: Port = Field(
        default=8444,
        description="Port of the enrolment listener, which serves nothing else. 0 = any free one, "
        "kept for later starts.",
    )
    people_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address of the people listener, which takes API tokens instead of client "
        "certificates. Loopback by default.",
    )
    people_port: Port | None = Field(
        default=None,
        description="Port of the people listener. Default: 8445, or any free one where `port` is "
        "0. 0 = any free one, kept for later starts.",
    )
    people_names: tuple[str, ...] = Field(
        default=(),
        description="Further names and addresses under which people call the platform: they "
        "stand in its web certificate, and requests for other names are refused.",
    )
    advertise_host: str = Field(
        default="",
        description="Host name or address that workers are told to call. Default: `host`; needed "
        "where the platform listens on 0.0.0.0 in a container.",
    )
    max_connections: Count = Field(
        default=1024,
        description="Connections at once. 1024 is the usual limit of open files of a login; more "
        "are answered 503.",
    )
    max_requests: Count = Field(
        default=1024,
        description="Requests at once; more are answered 429 with Retry-After, before work starts. "
        "Each live worker waits in one of them for news of the others; a quarter of those of the "
        "mesh listener is kept for processes and for questions of health.",
    )


class TrustSettings(Section):
    """Lifetimes of certificates. `mode: local` allows short ones, for drills."""

    trust_domain: str = Field(
        default="",
        description="Trust domain. Default: `<8 hex>.hivemesh.internal`, made once per "
        "installation, so that two installations never accept each other.",
    )
    identity: Literal["embedded", "files"] = Field(
        default="embedded",
        description="Where the platform's own certificate comes from: embedded = its authority. "
        "files = PEM files that cert-manager or another issuer keeps fresh; `trust_domain` must be "
        "that of the files. Supervised workers and the command stay with the authority.",
    )
    identity_key: Path | None = Field(
        default=None, description="PEM file of the key, readable by its owner alone; with files."
    )
    identity_chain: Path | None = Field(
        default=None, description="PEM file of the certificates, leaf first; with files."
    )
    identity_bundle: Path | None = Field(
        default=None, description="PEM file of the roots to trust; with files."
    )
    svid_lifetime_s: Seconds = Field(
        default=3600.0,
        description="Seconds a workload certificate is valid; renewed before half of it. One hour "
        "bounds what a stolen key is worth. At least 300 (10 in mode local), at most a day.",
    )
    issuer_lifetime_s: Seconds = Field(
        default=7 * DAY_S,
        description="Seconds the issuing certificate is valid; the next is prepared at half of "
        "it. At least 60.",
    )
    root_lifetime_s: Seconds = Field(
        default=3650 * DAY_S,
        description="Seconds the root is valid. Ten years: every worker has to learn a new one.",
    )
    passphrase: SecretStr = Field(
        default=SecretStr(""),
        description="Encrypts the keys of the authority; write `${file:/path}`. `mode: production` "
        "does not start without one of at least 16 random characters. Default: the keys lie in "
        "files that only their owner may read.",
    )


class WorkersSettings(Section):
    """Which workers run here, and how many of each."""

    supervise: bool = Field(
        default=True,
        description="Whether the platform starts the workers itself. False where containers do.",
    )
    folders: tuple[str, ...] = Field(
        default=("workers",),
        description="Folders of workers: one with a plugin.yaml, or one whose subfolders have "
        "one. Relative to the checkout or project.",
    )
    default_instances: Annotated[int, Field(ge=0, le=64)] = Field(
        default=1, description="Instances of a worker that `instances` does not name."
    )
    instances: dict[str, Annotated[int, Field(ge=0, le=64)]] = Field(
        default_factory=dict,
        description="Instances per worker, for example `{email-classifier: 2}`.",
    )
    builder: Literal["auto", "uv", "pip"] = Field(
        default="auto",
        description="What builds the environments: auto = uv, and pip where uv cannot run.",
    )
    host: str = Field(
        default="127.0.0.1", description="Address on which supervised workers listen."
    )
    start_timeout_s: Seconds = Field(
        default=30.0,
        description="Seconds from the start of a process to its registration; then it is replaced.",
    )
    stop_grace_s: Seconds = Field(
        default=30.0,
        description="Seconds a worker may take to finish its steps when it is stopped.",
    )
    alone_s: Seconds = Field(
        default=120.0,
        description="Seconds after which a worker whose platform is gone ends by itself; long "
        "enough for a platform to be restarted.",
    )


class RetrySettings(Section):
    """What bounds repetitions, whatever a manifest or pipeline asks for."""

    max_s: Seconds = Field(
        default=300.0, description="Seconds that the gap between two attempts grows to."
    )
    budget_ratio: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.2,
        description="Retries of a capability per first attempt, so that a failing callee does not "
        "meet a multiple of its load.",
    )
    budget_per_s: Annotated[float, Field(gt=0, le=100_000)] = Field(
        default=10.0, description="Retries of a capability per second beside that."
    )


class ExecutionSettings(Section):
    """How runs are cut and repeated, and how much of them runs at a time."""

    limits: dict[str, Count] = Field(
        default={},
        description="How many rows of work run at a time: by `all`, `capability:NAME`, `key:NAME` "
        "or `key:BEGIN*`. What `hivemesh limit set` says goes before it.",
    )
    rates: dict[str, str] = Field(
        default={},
        description="How many rows start in a time: `10/s`, `600/m`, `1000/h`, each perhaps with "
        "` burst 50`; by the same names.",
    )
    submit_keys_hours: Annotated[float, Field(gt=0, le=8760)] = Field(
        default=24.0,
        description="Hours for which a request that is sent again under its Idempotency-Key means "
        "the same work.",
    )
    retry: RetrySettings = RetrySettings()

    log_class_max: DataClass = Field(
        default=DataClass.INTERNAL,
        description="Highest class of data whose steps may write text to the logs of platform and "
        "workers, by `context.log` or by the message of an exception; of others only that a line "
        "came, and the type and frames of an exception. What code prints is not looked at.",
    )

    batch_records: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=500, description="Records per batch: enough to make a durable step cheap (3 %)."
    )
    batch_bytes: Annotated[int, Field(ge=1024, le=4 * 1024 * 1024)] = Field(
        default=4 * 1024 * 1024, description="Bytes per batch; half a page of the protocol."
    )
    batch_seconds: Seconds = Field(
        default=1.0, description="Seconds after which a slow source's batch is cut anyway."
    )
    in_flight_batches: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=16,
        description="Batches that a source may be ahead of the slowest step behind it; this "
        "bounds memory and disk, not the size of the input.",
    )
    retry_delay_s: Seconds = Field(
        default=1.0,
        description="Seconds before the first repetition; doubled for each further one.",
    )
    optional_wait_s: Seconds = Field(
        default=10.0,
        description="Seconds without a live instance after which a run goes on without an "
        "`optional` step: longer than a lost worker takes to be replaced.",
    )
    status_interval_s: Seconds = Field(
        default=2.0, description="Seconds between two status questions to a worker with steps."
    )
    status_misses: Count = Field(
        default=3, description="Unanswered questions after which the worker's steps are lost."
    )


class RoutingSettings(Section):
    """Weights of the load score; the lowest score is chosen."""

    cpu_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.4, description="Weight of the CPU fraction of the instance's own limit."
    )
    memory_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.3, description="Weight of the memory fraction of the instance's own limit."
    )
    active_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.3, description="Weight of the active steps, counted in tens."
    )
    explanations: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=2000, description="Decisions kept in memory for `job explain`; the oldest go first."
    )
    slow_factor: Annotated[float, Field(ge=0, le=1000)] = Field(
        default=3.0,
        description="An instance that takes this many times as long for a record as the others of "
        "its capability gets no steps for a while; never more than half of them. 0 = never.",
    )
    failures: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=5,
        description="The same for one whose last steps all failed, or half of ten and more in 30 s, "
        "or far more than the others' by their part of all failures. 0 = never.",
    )
    ejected_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=10.0,
        description="Seconds until one step, the probe, is tried there again; doubled each time "
        "that the probe is slow or fails, or it is out again within 30 s, up to 300.",
    )


class VaultSettings(Section):
    """The store `vault`: OpenBao or HashiCorp Vault over TLS."""

    address: str = Field(
        default="",
        description="Address, for example https://vault.internal:8200. TLS only; the server's "
        "certificate is always verified.",
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authority that signed the server's certificate. Default: "
        "those that the system trusts.",
    )
    mount: str = Field(
        default="secret", min_length=1, description="Mount of the KV version 2 engine."
    )
    prefix: str = Field(
        default="hivemesh",
        description="Path below the mount under which all secrets of this installation lie, so "
        "that its role needs no other.",
    )
    dynamic: dict[str, str] = Field(
        default_factory=dict,
        description="Engines that make credentials for each step, by the first part of the name: "
        "`{db: database/creds}` has `{{ vault.db.reader.password }}` ask `database/creds/reader`.",
    )
    auth_mount: str = Field(
        default="approle", min_length=1, description="Mount of the AppRole login."
    )
    role_id: str = Field(default="", description="RoleID of the platform's AppRole.")
    secret_id: SecretStr = Field(
        default=SecretStr(""),
        description="SecretID of the platform's AppRole; write `${file:/path}`.",
    )
    transit_key: str = Field(
        default="",
        description="Name of a transit key that wraps the key of the store `encrypted_file`: its "
        "secrets can then be read only while the vault is unsealed. Default: not wrapped.",
    )
    transit_mount: str = Field(
        default="transit", min_length=1, description="Mount of the transit engine."
    )
    timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(
        default=5.0, description="Seconds to wait for an answer."
    )


class SecretsSettings(Section):
    """Where secrets are kept and for how long a step is lent one."""

    store: str = Field(
        default="encrypted_file",
        description="encrypted_file = in the state folder, AES-256-GCM. vault = OpenBao or Vault. "
        "Extensions may add others.",
    )
    passphrase: SecretStr = Field(
        default=SecretStr(""),
        description="Encrypts the key of the store `encrypted_file`; write `${file:/path}` with "
        "the file on another volume. Default: `trust.passphrase`, where it is set; else the key "
        "lies beside the secrets, readable by the owner alone.",
    )
    lease_s: Annotated[float, Field(ge=1, le=DAY_S)] = Field(
        default=900.0,
        description="Seconds for which a step is lent a secret, at most until its deadline. A "
        "longer step asks again.",
    )
    check_s: Annotated[float, Field(ge=0.1, le=600)] = Field(
        default=5.0,
        description="Seconds between two questions whether a store is sealed; what waits for it "
        "goes on that soon after it was unsealed.",
    )
    vault: VaultSettings = VaultSettings()


class StorageSettings(Section):
    """Bounds of what is written."""

    quota_bytes: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Bytes that artifacts may take together; 0 = what the disk holds. Beyond it "
        "new data is refused with storage-full, and work goes on once there is space.",
    )
    log_bytes: Annotated[int, Field(ge=4096)] = Field(
        default=8 * 1024 * 1024, description="Bytes after which a log file is rotated."
    )
    log_files: Annotated[int, Field(ge=1, le=100)] = Field(
        default=3, description="Rotated files kept per log."
    )


class RetentionSettings(Section):
    """How long what has ended is kept. Datasets and open dead letters are never removed by it."""

    runs_days: Annotated[float, Field(ge=0, le=36_500)] = Field(
        default=90.0,
        description="Days after their end for which runs are kept, with steps, attempts and "
        "rejected records. 0 = for ever.",
    )
    jobs_days: Annotated[float, Field(ge=0, le=36_500)] = Field(
        default=30.0, description="The same for jobs."
    )
    events_days: Annotated[float, Field(ge=0, le=36_500)] = Field(
        default=30.0, description="The same for the event logs of runs, which may go sooner."
    )
    artifacts_days: Annotated[float, Field(ge=0, le=36_500)] = Field(
        default=90.0,
        description="Days for which an uploaded file, or one that a step has stored, is kept that "
        "no dataset and no run, job, pipeline or dead letter names. 0 = for ever.",
    )
    every_s: Annotated[float, Field(ge=1, le=DAY_S)] = Field(
        default=3600.0, description="Seconds between two sweeps."
    )


class DatabaseSettings(Section):
    """Where the rows are: a SQLite file in the state folder, or a PostgreSQL server."""

    url: SecretStr = Field(
        default=SecretStr(""),
        description="Address of a PostgreSQL database of its own, for example "
        "`postgresql://hivemesh@db.internal/hivemesh`, best written `${file:/path}`. TLS with a "
        "checked name (`sslmode=verify-full`) unless the address says `sslmode=disable` or names "
        "a socket. Default: SQLite in the state folder, for one platform process.",
    )
    direct_url: SecretStr = Field(
        default=SecretStr(""),
        description="Address that reaches the server itself where `url` names a pooler in "
        "transaction mode, as PgBouncer: for LISTEN, migrations and the engine of runs.",
    )
    connections: Annotated[int, Field(ge=1, le=64)] = Field(
        default=4,
        description="Connections that write at the same time; as many again read. One replica "
        "takes up to 2x of them and 9 more.",
    )
    start_timeout_s: Seconds = Field(
        default=60.0,
        description="Seconds a starting platform waits for the server, then it ends with a "
        "problem. A running one waits without end.",
    )


class ReplicaSettings(Section):
    """This platform process among others on the same PostgreSQL database."""

    id: str = Field(
        default="p1",
        pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$",
        description="Name of this replica, in its certificate and in the audit trail: small "
        "letters, digits, hyphens. Each replica needs one of its own, the same at each start.",
    )
    shared_folder: Path | None = Field(
        default=None,
        description="Folder that all replicas mount: keys of the authority, artifacts, secrets, "
        "and the audit trail of each. Default: the state folder, for one replica.",
    )


class AuditSettings(Section):
    """Where the audit trail tells its checkpoints, and how long its records are kept."""

    checkpoint_file: str = Field(
        default="audit-checkpoints.jws",
        min_length=1,
        max_length=4096,
        description="Second place of the signed checkpoints: a file, relative to the state folder, "
        "or `syslog`; the trail's end is told beside it, in `<file>.end`. On another volume it shows "
        "that the end of the trail was cut off, or that all of it was written anew, even by somebody "
        "who owns the state folder. Security actions need it.",
    )
    keep_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        default=365,
        description="Days after which sealed segments are dropped; each leaves its signed head, so "
        "that the rest still verifies. 0 = never.",
    )


class TelemetrySettings(Section):
    """What is logged."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is written to the platform's log."
    )
    log_to: Literal["file", "stderr"] = Field(
        default="file",
        description="file = `logs/platform.log` in the state folder, rotated by size. stderr = for "
        "containers, whose runtime collects and rotates it.",
    )


class Settings(Section):
    """The whole tree. `hivemesh config show --origin` prints it with the origin of each value."""

    mode: Mode = Field(
        default="local",
        description="local = a laptop: crash points, short lifetimes. production refuses them.",
    )
    state: StateSettings = StateSettings()
    api: ApiSettings = ApiSettings()
    trust: TrustSettings = TrustSettings()
    workers: WorkersSettings = WorkersSettings()
    execution: ExecutionSettings = ExecutionSettings()
    routing: RoutingSettings = RoutingSettings()
    secrets: SecretsSettings = SecretsSettings()
    storage: StorageSettings = StorageSettings()
    retention: RetentionSettings = RetentionSettings()
    database: DatabaseSettings = DatabaseSettings()
    replica: ReplicaSettings = ReplicaSettings()
    audit: AuditSettings = AuditSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @model_validator(mode="after")
    def _lifetimes_fit(self) -> "Settings":
        least = 10 if self.mode == "local" else 300
        if not least <= self.trust.svid_lifetime_s <= DAY_S:
            message = f"trust.svid_lifetime_s must lie between {least} and {DAY_S:.0f} s"
            raise ValueError(message)
        if self.trust.issuer_lifetime_s < max(60.0, 2 * self.trust.svid_lifetime_s):
            message = "trust.issuer_lifetime_s must be at least 60 s and twice svid_lifetime_s"
            raise ValueError(message)
        files = (self.trust.identity_key, self.trust.identity_chain, self.trust.identity_bundle)
        if self.trust.identity == "files" and (None in files or not self.trust.trust_domain):
            message = (
                "trust.identity: files needs trust.trust_domain, trust.identity_key, "
                "trust.identity_chain and trust.identity_bundle"
            )
            raise ValueError(message)
        return self
