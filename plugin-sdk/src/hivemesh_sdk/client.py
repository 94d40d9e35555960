"""`Client`: the platform's API from Python, by the operator's certificate or by an API token.

`api_channel` has the connection, the replicas, and what is sent again. Workers call each other
through `hivemesh_sdk.transport`, never through this.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from pydantic import JsonValue

from hivemesh_sdk.api_channel import BLOCK, Address, ApiChannel, Credentials, Source
from hivemesh_sdk.contracts.access_api import (
    GrantView,
    GroupView,
    NewTokenView,
    PrincipalView,
    RoleView,
    TokenView,
    VerdictView,
)
from hivemesh_sdk.contracts.api import (
    ArtifactView,
    BatchView,
    CapabilityView,
    DatasetView,
    ExplainView,
    LimitView,
    Page,
    PipelineView,
    QueueView,
    RejectedView,
    ReplicaView,
    RetentionView,
    RunView,
    SystemStatus,
    View,
    WorkerView,
)
from hivemesh_sdk.contracts.artifacts import Artifact, Tree
from hivemesh_sdk.contracts.audit_api import AuditHashView, AuditRecordView, AuditReportView
from hivemesh_sdk.contracts.dead_letter_api import (
    AttemptView,
    DeadLetterView,
    InstanceAttemptView,
    LostStepView,
    ReplayedView,
    ReplayView,
)
from hivemesh_sdk.contracts.names import (
    IDEMPOTENCY_HEADER,
    NDJSON_MEDIA_TYPE,
    TREE_MEDIA_TYPE,
)
from hivemesh_sdk.contracts.policy_api import (
    PolicyExplanation,
    PolicyReview,
    PolicyVersionView,
    PolicyView,
)
from hivemesh_sdk.contracts.problems import problem
from hivemesh_sdk.contracts.secrets_api import SecretValueView, SecretView
from hivemesh_sdk.contracts.trust_api import CaView, CredentialView, DenialView, RootsView
from hivemesh_sdk.errors import ConfigurationError, RemoteError
from hivemesh_sdk.safeio.folders import files_of

V = TypeVar("V", bound=View)


class JobFields(TypedDict, total=False):
    """What may be said of a job beside its input and options; all jobs of a batch have it."""

    data_class: str  # of input and options: public, internal, personal or secret
    priority: int  # 0 to 10, which starts first
    concurrency_key: str  # jobs with the same key share its limits
    labels: Mapping[str, str]  # lists are filtered by them
    requires: Mapping[str, str]  # labels that the instance has
    deadline_s: float
    idle_timeout_s: float
    max_retries: int


OPERATOR_FOLDER = "operator"
PEOPLE_PORT = 8445
ENDPOINT_FILE = "endpoint.json"


class Client:
    """Call the platform's API; usable as a context manager.

    Every method raises `RemoteError` with the platform's problem document, or with
    `platform-unreachable` where nobody answers.
    """

    def __init__(
        self, addresses: Sequence[Address], credentials: Credentials, *, timeout_s: float = 30.0
    ) -> None:
        self._channel = ApiChannel(addresses, credentials, timeout_s)

    @classmethod
    def from_state(cls, folder: Path, *, timeout_s: float = 30.0) -> "Client":
        """Read endpoint and operator certificate that the platform keeps in its state folder.

        Raises:
            RemoteError: `platform-unreachable` or `credential-missing`.
        """
        operator = folder / OPERATOR_FOLDER
        try:
            endpoint = json.loads((operator / ENDPOINT_FILE).read_text())
        except FileNotFoundError as error:
            detail = f"no platform has been started with the state folder {str(folder)!r}"
            remedy = (
                "for the platform of a project go into its folder, or name its state folder with "
                "--state or HIVEMESH_STATE__FOLDER; `hivemesh up` starts one with this state folder"
            )
            raise RemoteError(problem("platform-unreachable", detail, remedy=remedy)) from error
        except PermissionError as error:
            detail = f"the operator files in {str(operator)!r} cannot be read by this user"
            raise RemoteError(problem("credential-missing", detail)) from error
        own = [endpoint["host"], endpoint["port"]]
        return cls(
            [
                Address(host, port, endpoint["server_name"])
                for host, port in (own, *endpoint.get("others", ()))
            ],
            Credentials(
                certificate=operator / "certificate.pem",
                key=operator / "key.pem",
                roots=operator / "bundle.pem",
            ),
            timeout_s=timeout_s,
        )

    @classmethod
    def from_server(
        cls, url: str, token: str, *, ca_file: Path | None = None, timeout_s: float = 30.0
    ) -> "Client":
        """Call the people listener at `https://host:port` with an API token.

        Several replicas stand with commas between them; the others are told by who answers.
        `ca_file` is the root to trust (`trust/web-root.pem` in the platform's state folder);
        without it the roots of this machine are, and no host that was not given is called.

        Raises:
            ConfigurationError: the address is no `https://host:port`.
        """
        addresses = [_address(one.strip()) for one in url.split(",")]
        return cls(addresses, Credentials(roots=ca_file, token=token), timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._channel.close()

    # -- people ---------------------------------------------------------------------------

    def whoami(self) -> PrincipalView:
        """Who this client acts as, and everything that he may do."""
        return self._view(PrincipalView, "GET", "/v1/whoami")

    def can(self, action: str, user: str = "") -> VerdictView:
        """Whether a user (or the caller) may do `verb:kind/name`, and why."""
        query = urlencode({"action": action, **({"user": user} if user else {})})
        return self._view(VerdictView, "GET", f"/v1/auth/can?{query}")

    def user(self, name: str) -> PrincipalView:
        """A user with his roles, groups and grants."""
        return self._view(PrincipalView, "GET", f"/v1/auth/users/{quote(name, safe='')}")

    def users(self) -> list[PrincipalView]:
        """The users that were ever named."""
        return self._all(PrincipalView, "/v1/auth/users")

    def groups(self) -> list[GroupView]:
        """Groups with their members and grants."""
        return self._all(GroupView, "/v1/auth/groups")

    def roles(self) -> list[RoleView]:
        """Roles and what they grant."""
        return self._all(RoleView, "/v1/auth/roles")

    def role(self, name: str) -> RoleView:
        """One role."""
        return self._view(RoleView, "GET", f"/v1/auth/roles/{quote(name, safe='')}")

    def put_role(self, name: str, grants: list[str], description: str = "") -> RoleView:
        """Define a role."""
        body: dict[str, JsonValue] = {"grants": [*grants], "description": description}
        return self._view(RoleView, "PUT", f"/v1/auth/roles/{quote(name, safe='')}", body)

    def delete_role(self, name: str) -> None:
        """Delete a role that was defined."""
        self._read("DELETE", f"/v1/auth/roles/{quote(name, safe='')}")

    def grant(self, subject: str, name: str, what: str, *, tenant: str = "default") -> GrantView:
        """Give a role or a grant to a user or group."""
        body: dict[str, JsonValue] = {
            "subject": subject,
            "name": name,
            "grant": what,
            "tenant": tenant,
        }
        return self._view(GrantView, "POST", "/v1/auth/grants", body)

    def revoke(self, subject: str, name: str, what: str, *, tenant: str = "default") -> GrantView:
        """Take a role or a grant away; in force with the next request."""
        body: dict[str, JsonValue] = {
            "subject": subject,
            "name": name,
            "grant": what,
            "tenant": tenant,
        }
        return self._view(GrantView, "POST", "/v1/auth/grants/revoke", body)

    def set_member(self, group: str, user: str, *, member: bool) -> None:
        """Put a user into a group, or take him out."""
        path = "/v1/auth/members" if member else "/v1/auth/members/remove"
        self._read("POST", path, {"group": group, "user": user})

    def create_api_token(
        self,
        name: str,
        *,
        user: str = "",
        roles: list[str] | None = None,
        grants: list[str] | None = None,
        lifetime_s: float = 30 * 86_400.0,
    ) -> NewTokenView:
        """Make an API token; its text is in the answer, and nowhere afterwards."""
        body: dict[str, JsonValue] = {
            "name": name,
            "user": user,
            "roles": [*(roles or [])],
            "grants": [*(grants or [])],
            "lifetime_s": lifetime_s,
        }
        return self._view(NewTokenView, "POST", "/v1/tokens", body)

    def api_tokens(self) -> list[TokenView]:
        """The API tokens that the caller may see."""
        return self._all(TokenView, "/v1/tokens")

    def revoke_api_token(self, token_id: str) -> TokenView:
        """Accept an API token no longer."""
        return self._view(TokenView, "DELETE", f"/v1/tokens/{quote(token_id, safe='')}")

    def join_token(self, worker: str, *, instance: str = "", lifetime_s: float = 600.0) -> str:
        """A join token for one enrolment of a worker, shown once."""
        body: dict[str, JsonValue] = {"instance": instance, "lifetime_s": lifetime_s}
        answer = self._read("POST", f"/v1/workers/{quote(worker, safe='')}/join-tokens", body)
        return str(json.loads(answer)["token"])

    # -- secrets --------------------------------------------------------------------------

    def secrets(self, prefix: str = "") -> list[SecretView]:
        """Names and versions of the secrets, or of those below a path."""
        query = f"?{urlencode({'prefix': prefix})}" if prefix else ""
        return self._all(SecretView, f"/v1/secrets{query}")

    def secret(self, path: str) -> SecretView:
        """What is told of one secret."""
        return self._view(SecretView, "GET", _secret(path))

    def set_secret(self, path: str, value: str) -> SecretView:
        """Store a value as a new version."""
        return self._view(SecretView, "PUT", _secret(path), {"value": value})

    def rotate_secret(self, path: str, value: str) -> SecretView:
        """Store a value in place of the present one."""
        return self._view(SecretView, "POST", f"{_secret(path)}/rotate", {"value": value})

    def delete_secret(self, path: str) -> SecretView:
        """Withdraw a secret."""
        return self._view(SecretView, "DELETE", _secret(path))

    def restore_secret(self, path: str) -> SecretView:
        """Bring a withdrawn secret back."""
        return self._view(SecretView, "POST", f"{_secret(path)}/restore")

    def reveal_secret(self, path: str, version: int | None = None) -> SecretValueView:
        """A secret's value; the audit trail says who asked for it."""
        query = "" if version is None else f"?{urlencode({'version': version})}"
        return self._view(SecretValueView, "POST", f"{_secret(path)}/reveal{query}")

    # -- installation ---------------------------------------------------------------------

    def status(self) -> SystemStatus:
        """The installation at a glance."""
        return self._view(SystemStatus, "GET", "/v1/status")

    def queue(self) -> list[QueueView]:
        """What waits to be placed, by capability, split by priority."""
        return self._page(QueueView, self._read("GET", "/v1/queue"))

    def replicas(self) -> list[ReplicaView]:
        """The replicas of the platform, those included that were declared dead or have left."""
        return self._all(ReplicaView, "/v1/replicas")

    def metrics(self) -> str:
        """The platform's metrics in the Prometheus text format."""
        return self._read("GET", "/metrics").decode()

    def workers(self) -> list[WorkerView]:
        """Installed worker types with their instances."""
        return self._all(WorkerView, "/v1/workers")

    def worker(self, name: str) -> WorkerView:
        """One worker type."""
        return self._view(WorkerView, "GET", f"/v1/workers/{quote(name, safe='')}")

    def scale(self, name: str, instances: int) -> WorkerView:
        """Set how many instances of a worker the supervisor keeps running."""
        path = f"/v1/workers/{quote(name, safe='')}/scale"
        return self._view(WorkerView, "POST", path, {"instances": instances})

    def restart(self, name: str) -> WorkerView:
        """Replace the instances of a worker, one after the other; each finishes its steps first."""
        return self._view(WorkerView, "POST", f"/v1/workers/{quote(name, safe='')}/restart", {})

    def worker_log(self, name: str, *, lines: int = 200) -> str:
        """The end of a worker's log."""
        path = f"/v1/workers/{quote(name, safe='')}/logs?{urlencode({'lines': lines})}"
        return self._read("GET", path).decode(errors="replace")

    # -- trust ----------------------------------------------------------------------------

    def denials(self) -> list[DenialView]:
        """What is refused before it expires."""
        return self._all(DenialView, "/v1/denials")

    def deny(self, action: str, target: str, reason: str) -> list[DenialView]:
        """Evict or ban a worker, an instance, an identity, a serial or a package."""
        body: dict[str, JsonValue] = {"action": action, "target": target, "reason": reason}
        return self._page(DenialView, self._read("POST", "/v1/denials", body))

    def lift(self, target: str, reason: str) -> list[DenialView]:
        """End a ban or a quarantine; returns what is still refused."""
        body: dict[str, JsonValue] = {"target": target, "reason": reason}
        return self._page(DenialView, self._read("POST", "/v1/denials/lift", body))

    def ca(self) -> CaView:
        """The authority's keys and where they stand."""
        return self._view(CaView, "GET", "/v1/ca")

    def roots(self) -> RootsView:
        """The roots to trust now."""
        return self._view(RootsView, "GET", "/v1/ca/roots")

    def rotate(self, key: str, *, emergency: bool = False) -> CaView:
        """Begin to change a key of the authority; an emergency changes all of them at once."""
        body: dict[str, JsonValue] = {"key": key, "emergency": emergency}
        return self._view(CaView, "POST", "/v1/ca/rotate", body)

    def credentials(self) -> list[CredentialView]:
        """Deployment credentials, without their secrets."""
        return self._all(CredentialView, "/v1/enrolment/credentials")

    def revoke_credential(self, credential_id: str) -> CredentialView:
        """Let nobody enrol by a deployment credential any more."""
        path = f"/v1/enrolment/credentials/{quote(credential_id, safe='')}/revoke"
        return self._view(CredentialView, "POST", path, {})

    def capabilities(self) -> list[CapabilityView]:
        """Capabilities of the installed workers."""
        return self._all(CapabilityView, "/v1/capabilities")

    # -- policy ---------------------------------------------------------------------------

    def policy(self, version: int | None = None) -> PolicyView:
        """One version of the policy; the one in force where no number is given."""
        which = "current" if version is None else str(version)
        return self._view(PolicyView, "GET", f"/v1/policy/versions/{which}")

    def policy_versions(self) -> list[PolicyVersionView]:
        """The history of the policy, the newest version first."""
        return self._all(PolicyVersionView, "/v1/policy/versions")

    def review_policy(self, document: str, *, name: str) -> PolicyReview:
        """What a document would change, and how its tests come out; nothing is applied."""
        body: dict[str, JsonValue] = {"document": document, "name": name}
        return self._view(PolicyReview, "POST", "/v1/policy/test", body)

    def apply_policy(
        self, document: str, *, expected: int, name: str, reason: str = ""
    ) -> PolicyView:
        """Make a document the next version, if `expected` is still the one in force."""
        body: dict[str, JsonValue] = {"document": document, "name": name, "reason": reason}
        headers = {"content-type": "application/json", "if-match": f'"{expected}"'}
        data = json.dumps(body, allow_nan=False).encode()
        with self._channel.exchange("POST", "/v1/policy", data, headers) as response:
            return PolicyView.model_validate_json(response.read())

    def explain_policy(
        self,
        caller: str,
        callee: str,
        capability: str,
        *,
        roles: Sequence[str] = (),
        data_class: str = "internal",
        ticket: bool = True,
    ) -> PolicyExplanation:
        """Whether a call is allowed, by which rule, and what would allow it."""
        query = urlencode(
            {
                "caller": caller,
                "callee": callee,
                "capability": capability,
                "role": list(roles),
                "data_class": data_class,
                "ticket": str(ticket).lower(),
            },
            doseq=True,
        )
        return self._view(PolicyExplanation, "GET", f"/v1/policy/explain?{query}")

    # -- pipelines and runs ---------------------------------------------------------------

    def pipelines(self) -> list[PipelineView]:
        """Stored pipelines, newest version of each."""
        return self._all(PipelineView, "/v1/pipelines")

    def store_pipeline(self, document: Mapping[str, JsonValue]) -> PipelineView:
        """Keep a pipeline, to be run by name or as a step of others."""
        return self._view(PipelineView, "POST", "/v1/pipelines", dict(document))

    def validate(self, document: Mapping[str, JsonValue]) -> PipelineView:
        """Check a pipeline without running it."""
        return self._view(PipelineView, "POST", "/v1/pipelines/validate", dict(document))

    def start_run(
        self,
        pipeline: str | Mapping[str, JsonValue],
        parameters: Mapping[str, JsonValue] | None = None,
        *,
        data_class: str = "internal",
        priority: int | None = None,
        labels: Mapping[str, str] | None = None,
        idempotency_key: str = "",
    ) -> RunView:
        """Start a stored pipeline (by name) or a whole pipeline document.

        `data_class` is that of the parameters: public, internal, personal or secret. The same call
        with the same `idempotency_key` means the same run.
        """
        which: dict[str, JsonValue] = (
            {"pipeline": pipeline} if isinstance(pipeline, str) else {"document": dict(pipeline)}
        )
        return self._view(
            RunView,
            "POST",
            "/v1/runs",
            {
                **which,
                "parameters": dict(parameters or {}),
                "data_class": data_class,
                "priority": priority,
                "labels": dict(labels or {}),
            },
            idempotency_key,
        )

    def runs(self, filters: Mapping[str, str] | None = None, *, limit: int = 50) -> list[RunView]:
        """The newest runs and jobs that fit.

        Filters are state, capability, pipeline, since (ISO 8601), label (NAME=VALUE) and submitter.
        """
        return self._filtered(RunView, "/v1/runs", filters, limit)

    def jobs(self, filters: Mapping[str, str] | None = None, *, limit: int = 50) -> list[RunView]:
        """The newest jobs that fit; filters as for `runs`, with batch in place of pipeline."""
        return self._filtered(RunView, "/v1/jobs", filters, limit)

    def job_types(self) -> list[CapabilityView]:
        """What can be submitted as a job, with the schemas of input and options."""
        return self._all(CapabilityView, "/v1/job-types")

    def submit(
        self,
        capability: str,
        value: JsonValue = None,
        options: Mapping[str, JsonValue] | None = None,
        *,
        idempotency_key: str = "",
        **fields: Unpack[JobFields],
    ) -> RunView:
        """Submit a job and return at once; `watch` follows it.

        The same call with the same `idempotency_key` means the same job.
        """
        return self.call(
            capability, value, options, wait_s=0.0, idempotency_key=idempotency_key, **fields
        )

    def retry(self, run_id: str, from_step: str = "") -> RunView:
        """Set what has failed of a run going again; with a step, all from there on afresh."""
        path = f"/v1/runs/{quote(run_id, safe='')}/retry"
        return self._view(RunView, "POST", path, {"from_step": from_step})

    def backfill(self, run_id: str) -> RunView:
        """Start a run that gives what this one went without; the rest is taken from it."""
        return self._view(RunView, "POST", f"/v1/runs/{quote(run_id, safe='')}/backfill", {})

    def retry_job(self, job_id: str) -> RunView:
        """Queue a job that has failed or was cancelled once more."""
        return self._view(RunView, "POST", f"/v1/jobs/{quote(job_id, safe='')}/retry", {})

    def process_job(self, job_id: str) -> RunView:
        """Have a waiting job tried at once; not in production mode."""
        return self._view(RunView, "POST", f"/v1/jobs/{quote(job_id, safe='')}/process", {})

    def run(self, run_id: str) -> RunView:
        """One run."""
        return self._view(RunView, "GET", f"/v1/runs/{quote(run_id, safe='')}")

    def watch(self, run_id: str, *, wait_s: float = 10.0) -> Iterator[RunView]:
        """Yield the run whenever it has changed and after each `wait_s`, the last time at its end."""
        after = 0
        while True:
            query = urlencode({"after": after, "wait": wait_s})
            path = f"/v1/runs/{quote(run_id, safe='')}/changes?{query}"
            answer = json.loads(self._read("GET", path))
            after = answer["version"]
            run = RunView.model_validate(answer["run"])
            yield run
            if run.state.ended:
                return

    def cancel(self, run_id: str) -> RunView:
        """Cancel a run or job."""
        return self._view(RunView, "POST", f"/v1/runs/{quote(run_id, safe='')}/cancel", {})

    def output(self, run_id: str, name: str) -> Iterator[bytes]:
        """The bytes of one output of a run, in blocks."""
        run, output = quote(run_id, safe=""), quote(name, safe="")
        yield from self._stream(f"/v1/runs/{run}/outputs/{output}")

    def rejected(self, run_id: str) -> list[RejectedView]:
        """Records that were refused during a run."""
        return self._all(RejectedView, f"/v1/runs/{quote(run_id, safe='')}/rejected")

    def explain(self, run_id: str) -> list[ExplainView]:
        """Why each attempt of a run or job was placed where it was."""
        return self._all(ExplainView, f"/v1/runs/{quote(run_id, safe='')}/explain")

    def call(
        self,
        capability: str,
        value: JsonValue = None,
        options: Mapping[str, JsonValue] | None = None,
        *,
        wait_s: float = 20.0,
        idempotency_key: str = "",
        **fields: Unpack[JobFields],
    ) -> RunView:
        """Call one capability as a job and wait up to `wait_s` for its end.

        The same call with the same `idempotency_key` means the same job.
        """
        body = {**_common(capability, options, fields), "input": value, "wait_s": wait_s}
        return self._view(RunView, "POST", "/v1/jobs", body, idempotency_key)

    def submit_batch(
        self,
        capability: str,
        values: Iterable[JsonValue],
        options: Mapping[str, JsonValue] | None = None,
        *,
        idempotency_key: str = "",
        **fields: Unpack[JobFields],
    ) -> BatchView:
        """Submit a job for each value, thousands in one request: all are accepted, or none."""
        common = _common(capability, options, fields)
        body = b"\n".join(map(msgspec.json.encode, (common, *values)))
        headers = {"content-type": NDJSON_MEDIA_TYPE, **_key_header(idempotency_key)}
        with self._channel.exchange("POST", "/v1/jobs/batch", body, headers) as response:
            return BatchView.model_validate_json(response.read())

    def batches(
        self, filters: Mapping[str, str] | None = None, *, limit: int = 50
    ) -> list[BatchView]:
        """The newest batches of jobs that fit; filters are capability, since, label, submitter."""
        return self._filtered(BatchView, "/v1/jobs/batch", filters, limit)

    def cancel_batch(self, batch_id: str) -> BatchView:
        """Cancel what has not ended of a batch."""
        return self._view(BatchView, "POST", _batch(batch_id, "/cancel"), {})

    def retry_batch(
        self, batch_id: str, *, states: Collection[str] = ("failed", "cancelled")
    ) -> BatchView:
        """Queue the jobs of a batch once more that are in one of the states."""
        body: dict[str, JsonValue] = {"states": [*states]}
        return self._view(BatchView, "POST", _batch(batch_id, "/retry"), body)

    def batch(self, batch_id: str) -> BatchView:
        """How far a batch of jobs is."""
        return self._view(BatchView, "GET", _batch(batch_id))

    def batch_results(self, batch_id: str) -> Iterator[dict[str, JsonValue]]:
        """Id, state and result or problem of each job of a batch, in order."""
        rest = b""
        for block in self.batch_lines(batch_id):
            *lines, rest = (rest + block).split(b"\n")
            yield from map(json.loads, lines)

    def batch_lines(self, batch_id: str) -> Iterator[bytes]:
        """The same as NDJSON, in blocks."""
        yield from self._stream(_batch(batch_id, "/results"))

    # -- limits -----------------------------------------------------------------------------

    def limits(self) -> list[LimitView]:
        """What may run at a time and start in a time, and how much of it does."""
        return self._all(LimitView, "/v1/limits")

    def set_limit(
        self, target: str, *, running: int | None = None, rate: str | None = None
    ) -> LimitView:
        """Limit `all`, `capability:NAME`, `key:NAME` or `key:BEGIN*`: rows at a time, and `10/s`."""
        body: dict[str, JsonValue] = {"running": running, "rate": rate}
        return self._view(LimitView, "PUT", f"/v1/limits/{quote(target, safe='')}", body)

    def unset_limit(self, target: str) -> None:
        """Take a limit away."""
        self._read("DELETE", f"/v1/limits/{quote(target, safe='')}")

    # -- retention --------------------------------------------------------------------------

    def retention(self, *, due: bool = False) -> RetentionView:
        """How long what has ended is kept; with `due`, how much could be removed now."""
        return self._view(RetentionView, "GET", f"/v1/retention?due={str(due).lower()}")

    def sweep(self) -> RetentionView:
        """Remove now what is older than the settings keep it."""
        return self._view(RetentionView, "POST", "/v1/retention/sweep", {})

    # -- failures ---------------------------------------------------------------------------

    def cancel_step(self, run_id: str, step: str, seq: int | None = None) -> RunView:
        """Cancel one step of a run, or one of its batches; the others go on."""
        query = "" if seq is None else f"?seq={seq}"
        run, name = quote(run_id, safe=""), quote(step, safe="")
        return self._view(RunView, "POST", f"/v1/runs/{run}/steps/{name}/cancel{query}", {})

    def attempts(self, run_id: str, step: str = "", seq: int = -1) -> list[AttemptView]:
        """Every attempt of a run or job, of one step or batch where it is named."""
        query = {"step": step, "seq": seq}
        return self._offsets(AttemptView, f"/v1/runs/{quote(run_id, safe='')}/attempts", query)

    def attempts_at(self, instance: str, *, limit: int = 100) -> list[InstanceAttemptView]:
        """What ran at an instance, newest first, also when it is gone."""
        wanted: dict[str, str | int] = {"instance": instance, "limit": min(limit, 500)}
        return self._until(InstanceAttemptView, "/v1/attempts", wanted, limit)

    def lost_steps(self, *, ended: bool = False) -> list[LostStepView]:
        """Steps whose worker went away; with `ended` those too that have come to an end since."""
        query = urlencode({"ended": str(ended).lower()})
        return self._page(LostStepView, self._read("GET", f"/v1/lost-steps?{query}"))

    def dead_letters(
        self, *, state: str = "open", run: str = "", capability: str = "", limit: int = 100
    ) -> list[DeadLetterView]:
        """Inputs that were given up, newest first; `state` is open, retried, discarded or all."""
        wanted: dict[str, str | int] = {"state": state, "run": run, "capability": capability}
        wanted["limit"] = min(limit, 500)
        return self._until(DeadLetterView, "/v1/dead-letters", wanted, limit)

    def dead_letter(self, letter: str) -> DeadLetterView:
        """One of them."""
        return self._view(DeadLetterView, "GET", _letter(letter))

    def dead_letter_input(self, letter: str) -> Iterator[bytes]:
        """What was given up: JSON of a job, NDJSON of a batch. Audited."""
        yield from self._stream(_letter(letter, "/input"))

    def retry_dead_letter(self, letter: str) -> ReplayView:
        """Run it again as it is."""
        return self._view(ReplayView, "POST", _letter(letter, "/retry"), {})

    def retry_dead_letters(self, *, run: str = "", capability: str = "") -> list[ReplayView]:
        """Run all open ones again that fit; an item without a job stays open, and says why."""
        items: list[ReplayView] = []
        after: str | None = ""
        while after is not None:
            body: dict[str, JsonValue] = {"run": run, "capability": capability, "after": after}
            page = self._view(ReplayedView, "POST", "/v1/dead-letters/retry", body)
            items += page.items
            after = page.next
        return items

    def edit_dead_letter(self, letter: str, changes: Mapping[str, JsonValue]) -> ReplayView:
        """Run it again as a new job with another `input`, other `options`, or both."""
        return self._view(ReplayView, "POST", _letter(letter, "/edit"), dict(changes))

    def discard_dead_letter(self, letter: str) -> DeadLetterView:
        """Put it away; `reopen_dead_letter` takes that back."""
        return self._view(DeadLetterView, "POST", _letter(letter, "/discard"), {})

    def reopen_dead_letter(self, letter: str) -> DeadLetterView:
        """Take a discard back."""
        return self._view(DeadLetterView, "POST", _letter(letter, "/reopen"), {})

    # -- data -----------------------------------------------------------------------------

    def datasets(self) -> list[DatasetView]:
        """Datasets, newest version of each."""
        return self._all(DatasetView, "/v1/datasets")

    def dataset(self, name: str, version: int | None = None) -> DatasetView:
        """One dataset; the newest version unless another is named."""
        return self._view(DatasetView, "GET", _dataset_path(name, version))

    def records(self, name: str, version: int | None = None) -> Iterator[bytes]:
        """The records of a dataset as NDJSON, in blocks."""
        yield from self._stream(_dataset_path(name, version, "/records"))

    def put_artifact(
        self,
        source: BinaryIO,
        *,
        name: str | None = None,
        media_type: str | None = None,
        data_class: str = "internal",
    ) -> ArtifactView:
        """Store bytes; the platform answers with their digest and size.

        Raises:
            ConfigurationError: the source cannot be read.
        """
        query = urlencode({"class": data_class, **({"name": name} if name else {})})
        headers = {"content-type": media_type or "application/octet-stream"}
        with self._channel.exchange(
            "POST", f"/v1/artifacts?{query}", Source(source), headers
        ) as response:
            return ArtifactView.model_validate_json(response.read())

    def put_folder(
        self,
        folder: Path,
        *,
        patterns: Sequence[str] = (),
        recursive: bool = True,
        data_class: str = "internal",
    ) -> ArtifactView:
        """Store files of a folder and then the tree that names them, which is answered.

        Taken are those whose names fit one of the patterns (`*.pdf`), or all; with
        `recursive=False` none of the folders below.

        Raises:
            ConfigurationError: this is no folder, or a file in it cannot be read to its end.
            NotFoundError: no file of it fits.
            OSError: a file in it cannot be opened.
        """
        entries = {}
        for path in files_of(folder, patterns, recursive=recursive):
            with path.open("rb") as source:
                view = self.put_artifact(source, name=path.name, data_class=data_class)
            name = path.relative_to(folder).as_posix()
            entries[name] = Artifact(sha256=view.sha256, size=view.size, name=path.name)
        tree = BytesIO(msgspec.json.encode(Tree(entries=entries)))
        return self.put_artifact(
            tree, name=folder.name, media_type=TREE_MEDIA_TYPE, data_class=data_class
        )

    def artifact(self, sha256: str) -> Iterator[bytes]:
        """The bytes of an artifact, in blocks."""
        yield from self._stream(f"/v1/artifacts/{quote(sha256, safe='')}")

    # -- audit trail ----------------------------------------------------------------------

    def audit(
        self, filters: Mapping[str, str] | None = None, *, limit: int = 100
    ) -> list[AuditRecordView]:
        """The newest records of the audit trail that fit.

        Filters are actor, action, object, decision, run, since and until.
        """
        chosen = {name: value for name, value in (filters or {}).items() if value}
        items: list[AuditRecordView] = []
        after: str | None = ""
        while after is not None and len(items) < limit:
            query = {**chosen, "limit": str(min(500, limit - len(items))), "after": after}
            answer = self._read("GET", f"/v1/audit?{urlencode(query)}")
            page = Page[AuditRecordView].model_validate_json(answer)
            items.extend(page.items)
            after = page.next
        return items

    def verify_audit(self) -> AuditReportView:
        """Have the platform verify its audit trail."""
        return self._view(AuditReportView, "GET", "/v1/audit/verification")

    def export_audit(self, *, since: str = "", until: str = "") -> Iterator[bytes]:
        """A part of the audit trail with its checkpoints, in blocks; the times are ISO 8601."""
        span = {name: value for name, value in (("since", since), ("until", until)) if value}
        yield from self._stream(f"/v1/audit/export?{urlencode(span)}")

    def audit_hash(self, name: str, value: JsonValue) -> str:
        """What audit records hold in place of a parameter's value."""
        body: dict[str, JsonValue] = {"name": name, "value": value}
        return self._view(AuditHashView, "POST", "/v1/audit/hash", body).hmac

    # -- exchange -------------------------------------------------------------------------

    def _view(
        self,
        kind: type[V],
        method: str,
        path: str,
        body: dict[str, JsonValue] | None = None,
        key: str = "",
    ) -> V:
        return kind.model_validate_json(self._read(method, path, body, key))

    def _filtered(
        self, kind: type[V], path: str, filters: Mapping[str, str] | None, limit: int
    ) -> list[V]:
        chosen = {name: value for name, value in (filters or {}).items() if value}
        items: list[V] = []
        after: str | None = ""
        while after is not None and len(items) < limit:
            query = {**chosen, "limit": str(min(200, limit - len(items))), "after": after}
            page = Page[kind].model_validate_json(self._read("GET", f"{path}?{urlencode(query)}"))  # type: ignore[valid-type]  # a type chosen at run time
            items.extend(page.items)
            after = page.next
        return items

    def _page(self, kind: type[V], answer: bytes) -> list[V]:
        return Page[kind].model_validate_json(answer).items  # type: ignore[valid-type]  # as below

    def _until(
        self, kind: type[V], path: str, query: Mapping[str, str | int], limit: int
    ) -> list[V]:
        """Up to so many items, over as many pages as they take."""
        items: list[V] = []
        after: str | None = ""
        while after is not None and len(items) < limit:
            asked = f"{path}?{urlencode({**query, 'after': after})}"
            page = Page[kind].model_validate_json(self._read("GET", asked))  # type: ignore[valid-type]  # a type chosen at run time
            items.extend(page.items)
            after = page.next
        return items[:limit]

    def _offsets(self, kind: type[V], path: str, query: Mapping[str, object]) -> list[V]:
        items: list[V] = []
        after: str | None = "0"
        while after is not None:
            asked = f"{path}?{urlencode({**query, 'after': after})}"
            page = Page[kind].model_validate_json(self._read("GET", asked))  # type: ignore[valid-type]  # a type chosen at run time
            items.extend(page.items)
            after = page.next
        return items

    def _all(self, kind: type[V], path: str) -> list[V]:
        items: list[V] = []
        after = ""
        while True:
            query = f"?{urlencode({'after': after})}" if after else ""
            page = Page[kind].model_validate_json(self._read("GET", path + query))  # type: ignore[valid-type]  # as above
            items.extend(page.items)
            if page.next is None:
                return items
            after = page.next

    def _read(
        self, method: str, path: str, body: dict[str, JsonValue] | None = None, key: str = ""
    ) -> bytes:
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        headers = {} if data is None else {"content-type": "application/json"}
        headers |= _key_header(key)
        return self._channel.read(method, path, data, headers)

    def _stream(self, path: str) -> Iterator[bytes]:
        with self._channel.exchange("GET", path, None, {}) as response:
            while block := response.read(BLOCK):
                yield block


def _letter(letter: str, rest: str = "") -> str:
    return f"/v1/dead-letters/{quote(letter, safe='')}{rest}"


def _batch(batch: str, rest: str = "") -> str:
    return f"/v1/jobs/batch/{quote(batch, safe='')}{rest}"


def _common(
    capability: str, options: Mapping[str, JsonValue] | None, fields: "JobFields"
) -> dict[str, JsonValue]:
    """What is asked for beside the inputs."""
    given: dict[str, JsonValue] = msgspec.to_builtins(fields)
    return {"capability": capability, "options": dict(options or {}), **given}


def _secret(path: str) -> str:
    return f"/v1/secrets/{quote(path, safe='')}"


def _dataset_path(name: str, version: int | None, rest: str = "") -> str:
    query = f"?{urlencode({'version': version})}" if version is not None else ""
    return f"/v1/datasets/{quote(name, safe='')}{rest}{query}"


def _key_header(key: str) -> dict[str, str]:
    return {IDEMPOTENCY_HEADER: key} if key else {}


def _address(url: str) -> Address:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path not in {"", "/"}:
        message = f"{url!r} is no address of a platform; write https://host:port"
        raise ConfigurationError(message)
    return Address(parts.hostname, parts.port or PEOPLE_PORT, parts.hostname)
