"""The published permissions: what each route asks for. A test calls every route to hold it true.

`docs/reference/permissions.md` is generated from `ROUTES`; the routes themselves ask `api.access`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hivemesh_platform.access.model import Grant, Rights
from hivemesh_platform.access.roles import ROLES, Role


@dataclass(frozen=True, slots=True)
class Needs:
    """What a route asks of a person: one of the alternatives, and all actions of that one."""

    alternatives: tuple[tuple[str, ...], ...] = ()
    object: str = ""  # on which object, where not on all of the kind
    processes: str = ""  # the action that processes need, see `access.policy`
    workers: bool = False  # whether workers may use it too
    everybody: bool = False  # whoever is known may

    def allowed_to(self, rights: Rights) -> bool:
        """Say whether grants on whole kinds of objects are enough."""
        return self.everybody or any(
            all(_everywhere(rights, action) for action in actions) for actions in self.alternatives
        )

    def text(self) -> str:
        """The needs in words."""
        if self.everybody:
            return "whoever is known"
        found = " or ".join(" and ".join(f"`{one}`" for one in some) for some in self.alternatives)
        if self.processes:
            process = f"processes: `{self.processes}`"
            return f"{found}; {process}" if found else process
        return found + (f" on {self.object}" if self.object else "")


def one_of(*actions: str, on: str = "") -> Needs:
    """Any of the actions."""
    return Needs(tuple((action,) for action in actions), on)


def all_of(*actions: str, on: str = "") -> Needs:
    """All of the actions."""
    return Needs((actions,), on)


def process(action: str) -> Needs:
    """For processes with a certificate of this installation only."""
    return Needs(processes=action)


KNOWN = Needs(everybody=True)
RUN = one_of("read:run", on="its pipeline or capability; or its submitter")
CANCEL = one_of("write:run", on="its pipeline or capability; or its submitter")
REPLAY = all_of(
    "write:run",
    "run:capability",
    on="its pipeline or capability, and the capability that is run; or its submitter",
)
AGAIN = all_of(
    "write:run",
    "run:capability",
    on="its pipeline or capability, and all that it calls; or its submitter",
)

ROUTES: dict[str, Needs] = {
    "GET /v1/health": KNOWN,
    "GET /v1/whoami": KNOWN,
    "GET /v1/status": one_of("read:status"),
    "GET /v1/queue": one_of("read:status"),
    "GET /metrics": one_of("read:metrics"),
    "GET /v1/config": one_of("read:config"),
    # processes
    "PUT /v1/instances/{instance_id}": process("instances:self"),
    "POST /v1/instances/{instance_id}/heartbeat": process("instances:self"),
    "DELETE /v1/instances/{instance_id}": process("instances:self"),
    "GET /v1/discovery": process("discovery:read"),
    "POST /v1/renew": process("identity:renew"),
    "GET /v1/bundle": process("bundle:read"),
    "GET /v1/policy": process("policy:fetch"),
    "POST /v1/artifacts/grants": process("artifacts:grant"),
    "PUT /v1/artifacts/{sha256}": process("artifacts:transfer"),
    "POST /v1/secrets/resolve": process("secrets:resolve"),
    "POST /v1/tickets/exchange": process("tickets:exchange"),
    "POST /v1/submits": process("jobs:submit"),
    # workers
    "GET /v1/capabilities": one_of("read:capability", on="those that are listed"),
    "GET /v1/capabilities/{name}": one_of("read:capability", on="the capability"),
    "GET /v1/workers": one_of("read:worker", on="those that are listed"),
    "GET /v1/workers/{name}": one_of("read:worker", on="the worker"),
    "POST /v1/workers/{name}/scale": one_of("write:worker", on="the worker"),
    "POST /v1/workers/{name}/restart": one_of("write:worker", on="the worker"),
    "GET /v1/workers/{name}/logs": all_of("read:worker", "read:log", on="the worker"),
    "POST /v1/workers/{name}/join-tokens": one_of("create:enrolment", on="the worker"),
    "GET /v1/denials": one_of("read:ca"),
    "POST /v1/denials": one_of("write:worker", on="the target"),
    "POST /v1/denials/lift": one_of("write:worker", on="the target"),
    "GET /v1/enrolment/credentials": one_of("create:enrolment"),
    "POST /v1/enrolment/credentials/{credential_id}/revoke": one_of("create:enrolment"),
    # runs and jobs
    "POST /v1/runs": all_of(
        "run:pipeline",
        "run:capability",
        "write:dataset",
        on="the pipeline, each of its capabilities and datasets; `create:pipeline` where the "
        "document comes with the request",
    ),
    "GET /v1/runs": one_of(
        "read:run", "run:pipeline", "run:capability", on="those that are listed"
    ),
    "GET /v1/runs/{run}": RUN,
    "GET /v1/runs/{run}/changes": RUN,
    "GET /v1/runs/{run}/events": RUN,
    "GET /v1/runs/{run}/rejected": RUN,
    "GET /v1/runs/{run}/explain": RUN,
    "POST /v1/runs/{run}/cancel": CANCEL,
    "POST /v1/runs/{run}/steps/{step}/cancel": CANCEL,
    "POST /v1/runs/{run}/retry": AGAIN,
    "POST /v1/runs/{run}/backfill": all_of(
        "write:run",
        "run:capability",
        "write:dataset",
        on="its pipeline, all that it calls and its datasets; or its submitter",
    ),
    "GET /v1/runs/{run}/attempts": RUN,
    "GET /v1/attempts": one_of(
        "read:run", "run:pipeline", "run:capability", on="those that are listed"
    ),
    "GET /v1/lost-steps": one_of(
        "read:run", "run:pipeline", "run:capability", on="those that are listed"
    ),
    "GET /v1/dead-letters": one_of(
        "read:run", "run:pipeline", "run:capability", on="those that are listed"
    ),
    "GET /v1/dead-letters/{letter}": RUN,
    "GET /v1/dead-letters/{letter}/input": RUN,
    "POST /v1/dead-letters/retry": one_of(
        "write:run", "run:capability", on="those that are retried"
    ),
    "POST /v1/dead-letters/{letter}/retry": REPLAY,
    "POST /v1/dead-letters/{letter}/edit": REPLAY,
    "POST /v1/dead-letters/{letter}/discard": CANCEL,
    "POST /v1/dead-letters/{letter}/reopen": CANCEL,
    "GET /v1/runs/{run}/outputs/{name}": all_of(
        "read:run", "read:dataset", on="the run, and the dataset where the output is one"
    ),
    "POST /v1/jobs": one_of("run:capability", on="the capability"),
    "POST /v1/jobs/batch": one_of("run:capability", on="the capability"),
    "GET /v1/jobs/batch": one_of("read:run", "run:capability", on="those that are listed"),
    "GET /v1/jobs/batch/{batch}": RUN,
    "GET /v1/jobs/batch/{batch}/results": RUN,
    "POST /v1/jobs/batch/{batch}/cancel": CANCEL,
    "POST /v1/jobs/batch/{batch}/retry": AGAIN,
    "GET /v1/jobs/{job}": RUN,
    "POST /v1/jobs/{job}/cancel": CANCEL,
    "POST /v1/jobs/{job}/retry": AGAIN,
    "POST /v1/jobs/{job}/process": one_of("admin:run"),
    "GET /v1/jobs": one_of("read:run", "run:capability", on="those that are listed"),
    "GET /v1/job-types": one_of("read:capability", on="those that are listed"),
    "GET /v1/limits": one_of("read:config"),
    "PUT /v1/limits/{target}": one_of("write:config"),
    "DELETE /v1/limits/{target}": one_of("write:config"),
    "GET /v1/retention": one_of("read:config"),
    "POST /v1/retention/sweep": one_of("write:config"),
    # pipelines and data
    "GET /v1/pipelines": one_of("read:pipeline", on="those that are listed"),
    "GET /v1/pipelines/{name}": one_of("read:pipeline", on="the pipeline"),
    "POST /v1/pipelines": one_of("write:pipeline", "create:pipeline", on="the pipeline"),
    "POST /v1/pipelines/validate": one_of("read:pipeline", "create:pipeline"),
    "GET /v1/datasets": one_of("read:dataset", on="those that are listed"),
    "GET /v1/datasets/{name}": one_of("read:dataset", on="the dataset"),
    "GET /v1/datasets/{name}/records": one_of("read:dataset", on="the dataset"),
    "POST /v1/artifacts": one_of("create:artifact"),
    "GET /v1/artifacts/{sha256}": Needs(
        (("read:artifact",), ("read:dataset",), ("read:run",), ("create:artifact",)),
        "the artifact, a dataset or run that it belongs to, or one's own upload",
        workers=True,
    ),
    # secrets, policy, authority, audit
    "GET /v1/secrets": one_of("read:secret", on="those that are listed"),
    "GET /v1/secrets/{path}": one_of("read:secret", on="the secret"),
    "PUT /v1/secrets/{path}": one_of("write:secret", on="the secret"),
    "POST /v1/secrets/{path}/rotate": one_of("write:secret", on="the secret"),
    "DELETE /v1/secrets/{path}": one_of("write:secret", on="the secret"),
    "POST /v1/secrets/{path}/restore": one_of("write:secret", on="the secret"),
    "POST /v1/secrets/{path}/reveal": one_of("admin:secret", on="the secret"),
    "POST /v1/policy": one_of("write:policy"),
    "POST /v1/policy/test": one_of("read:policy"),
    "GET /v1/policy/versions": one_of("read:policy"),
    "GET /v1/policy/versions/{version}": one_of("read:policy"),
    "GET /v1/policy/explain": one_of("read:policy"),
    "GET /v1/replicas": one_of("read:replica"),
    "GET /v1/ca": one_of("read:ca"),
    "GET /v1/ca/roots": one_of("read:ca"),
    "POST /v1/ca/rotate": one_of("write:ca", on="the key; `admin:ca` in an emergency"),
    "GET /v1/audit": one_of("read:audit"),
    "GET /v1/audit/verification": one_of("read:audit"),
    "GET /v1/audit/export": one_of("read:audit"),
    "POST /v1/audit/hash": one_of("read:audit"),
    # people
    "GET /v1/auth/can": Needs(
        (("read:user",),), "the user; of oneself whoever is known", everybody=True
    ),
    "GET /v1/auth/users": one_of("read:user", on="those that are listed"),
    "GET /v1/auth/users/{name}": one_of("read:user", on="the user; of oneself whoever is known"),
    "GET /v1/auth/roles": one_of("read:role", on="those that are listed"),
    "GET /v1/auth/roles/{name}": one_of("read:role", on="the role"),
    "PUT /v1/auth/roles/{name}": one_of("write:role", on="the role, and all that it grants"),
    "DELETE /v1/auth/roles/{name}": one_of("write:role", on="the role"),
    "POST /v1/auth/grants": one_of(
        "write:user", "write:group", on="the user or group, and all that is given"
    ),
    "POST /v1/auth/grants/revoke": one_of("write:user", "write:group", on="the user or group"),
    "GET /v1/auth/groups": one_of("read:group", on="those that are listed"),
    "POST /v1/auth/members": one_of("write:group", on="the group, and all that it has"),
    "POST /v1/auth/members/remove": one_of("write:group", on="the group"),
    "POST /v1/tokens": one_of(
        "create:token", on="all that it may; `write:user` where it is another user's"
    ),
    "GET /v1/tokens": one_of("create:token", "read:token", on="one's own, or those"),
    "DELETE /v1/tokens/{token_id}": one_of("write:token", on="the token; or its owner"),
}


def matrix(roles: Mapping[str, Role] = ROLES) -> dict[str, dict[str, bool]]:
    """Who may use which route: route -> role -> allowed."""
    rights = {
        name: Rights(Grant.parse(text) for text in role.grants) for name, role in roles.items()
    }
    return {
        route: {name: needs.allowed_to(held) for name, held in rights.items()}
        for route, needs in ROUTES.items()
    }


def _everywhere(rights: Rights, action: str) -> bool:
    verb, _, kind = action.partition(":")
    return rights.everywhere(verb, kind)
