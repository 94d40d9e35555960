"""`hivemesh worker`: the installed workers, their instances, logs and calls."""

from typing import TYPE_CHECKING, Annotated

import typer

from hivemesh_platform.cli import details, output, session

if TYPE_CHECKING:
    from hivemesh_sdk.client import Client
    from hivemesh_sdk.contracts.api import InstanceView
    from hivemesh_sdk.contracts.dead_letter_api import InstanceAttemptView
    from hivemesh_sdk.contracts.trust_api import DenialView

app = typer.Typer(no_args_is_help=True)

SOON_S = 1.0  # a call that has ended by then shows nothing but its result

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The worker's name, as `worker list` shows it.")
]


@app.command("list")
def list_(
    kind: Annotated[
        str | None, typer.Option(help="Only workers of this kind: source, map …")
    ] = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show the installed workers and how many instances of each are live.

    Examples:  hivemesh worker list  ·  hivemesh worker list --kind source -o json
    """
    with session.client(state) as client:
        workers = [one for one in client.workers() if kind is None or kind in one.kinds]
    output.show_list(
        workers,
        [
            ("name", "name"),
            ("version", "version"),
            ("state", "state"),
            ("live", "live"),
            ("wanted", "wanted"),
            ("capabilities", "capabilities"),
            ("reason", "reason"),
        ],
        fmt,
        wide=[("publisher", "publisher"), ("manifest", "manifest_digest")],
        empty="no workers are installed; put one into the project's folder workers/, where it is "
        "found within seconds, or name its folder in `workers.folders` and start again",
    )


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The worker's name, or the id of one of its instances."
        ),
    ],
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show one worker: capabilities, permissions, instances with load and certificate expiry.

    Of one instance: its load, and what it ran last.

    Examples:  hivemesh worker show email-parser  ·  hivemesh worker show wi-3f2a90c1d7
    """
    with session.client(state) as client:
        instance = _instance(client, name)
        if instance is None:
            details.show_worker(client.worker(name), fmt)
            return
        output.show_one(instance, fmt)
        if fmt == "table":
            typer.echo()
            _show_history(client.attempts_at(instance.id, limit=10), fmt)


@app.command()
def history(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="An instance, also one that is gone; or a worker."),
    ],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, at most.")] = 50,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show what an instance ran, newest first: when, how long, and how it ended.

    Of a worker: what the instances ran that it has now. Instances keep their history until the
    runs and jobs age out.

    Examples:  hivemesh worker history wi-3f2a90c1d7  ·  hivemesh worker history email-parser -n 10
    """
    with session.client(state) as client:
        worker = next((one for one in client.workers() if one.name == name), None)
        ids = [name] if worker is None else [one.id for one in worker.instances]
        found = [one for id_ in ids for one in client.attempts_at(id_, limit=limit)]
        if worker is None and not found and _instance(client, name) is None:
            client.worker(name)  # says that there is none
    found.sort(key=lambda one: one.started_at, reverse=True)
    _show_history(found[:limit], fmt)


def _instance(client: "Client", name: str) -> "InstanceView | None":
    """The known instance of this id."""
    known = (one for worker in client.workers() for one in worker.instances)
    return next((one for one in known if one.id == name), None)


def _show_history(found: "list[InstanceAttemptView]", fmt: str) -> None:
    columns: list[output.Column] = [
        ("key", "key"),
        ("capability", "capability"),
        ("started", "started_at"),
        ("took", lambda one: f"{one.elapsed_s:.2f}s"),
        ("end", lambda one: one.outcome or "runs"),
    ]
    wide: list[output.Column] = [
        ("instance", "instance"),
        ("attempt", "attempt"),
        ("problem", lambda one: str((one.problem or {}).get("detail") or "-")),
    ]
    output.show_list(found, columns, fmt, wide=wide, empty="nothing has run there that you may see")


@app.command()
def logs(
    name: Name,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, max=10_000, help="How many lines.")
    ] = 100,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Print the end of a worker's log: what its capabilities and its process say.

    With `-o json` each line is an object; what `context.log` was given stands in its `fields`.

    Example:  hivemesh worker logs email-parser -n 20
    """
    from hivemesh_platform.cli import log_lines

    with session.client(state) as client:
        text = client.worker_log(name, lines=lines)
    if fmt in {"json", "yaml"}:
        output.show_document([log_lines.parsed(line) for line in text.splitlines()], fmt)
    else:
        for line in text.splitlines():
            typer.echo(log_lines.shown(line))


@app.command()
def scale(
    name: Name,
    instances: Annotated[int, typer.Argument(min=0, max=64, help="How many instances to keep.")],
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Set how many instances of a worker the platform keeps running.

    Example:  hivemesh worker scale email-classifier 3   (undo: scale it back)
    """
    with session.client(state) as client:
        before = client.worker(name).wanted
        worker = client.scale(name, instances)
    if fmt in {"json", "yaml", "name"}:
        output.show_one(worker, fmt, name="name")
    else:
        undo = session.here(f"hivemesh worker scale {name} {before}")
        typer.echo(f"{name}: {before} -> {worker.wanted} instances (undo: {undo})")


@app.command()
def restart(name: Name, fmt: output.Format = "table", state: session.State = None) -> None:
    """Replace the instances of a worker, as after a change of its code; each finishes its steps first.

    One after the other: the next when the new one is live. Where that does not come up, the others
    go on as they are; `worker list` says why.

    Example:  hivemesh worker restart word-counter
    """
    with session.client(state) as client:
        worker = client.restart(name)
    if fmt in {"json", "yaml", "name"}:
        output.show_one(worker, fmt, name="name")
    else:
        further = session.here("hivemesh worker list")
        how = f"{worker.wanted} instances are replaced, one after the other"
        typer.echo(f"{name}: {how}; `{further}` follows them")


@app.command("join-token")
def join_token(
    name: Name,
    ttl: Annotated[str, typer.Option(help="How long it is valid: 10m, 24h at most.")] = "10m",
    instance: Annotated[
        str, typer.Option(help="Only for the instance of this name (default: any).")
    ] = "",
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Make a join token for one instance of a worker on another machine; it is shown this once.

    Example:  hivemesh worker join-token email-parser --ttl 10m > join.token
    """
    from hivemesh_platform.cli.values import seconds

    with session.client(state) as client:
        token = client.join_token(name, instance=instance, lifetime_s=seconds(ttl, "--ttl"))
    if fmt in {"json", "yaml"}:
        output.show_document({"worker": name, "token": token}, fmt)
    else:
        typer.echo(token)
        typer.echo(f"for one enrolment of {name} within {ttl}; it is not shown again", err=True)


@app.command()
def call(
    capability: Annotated[
        str, typer.Argument(help="The capability, for example email.classify@1.")
    ],
    with_: Annotated[
        list[str] | None, typer.Option("--with", "-w", help="An option, key=value.")
    ] = None,
    input_: Annotated[
        str | None, typer.Option("--input", "-i", help="A JSON file with the input, - for stdin.")
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the end.", min=0, max=20)] = 20,
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Call one capability with one input and print its result as JSON.

    Example:  echo '{"subject": "Invoice 7"}' | hivemesh worker call email.classify@1 -i - -w types='["bill"]'
    """
    from hivemesh_sdk.safeio.pairs import parse_pairs

    from hivemesh_platform.cli.artifact import stored
    from hivemesh_platform.cli.job import show_result
    from hivemesh_platform.cli.pipeline import exit_code
    from hivemesh_platform.cli.progress import follow
    from hivemesh_platform.cli.values import read_json

    value = read_json(input_, "--input") if input_ is not None else None
    with session.client(state) as client:
        options = stored(client, parse_pairs(with_ or []))
        job = client.call(capability, value, options, wait_s=min(wait, SOON_S))
        if not job.state.ended:
            typer.echo(f"{job.id}: {job.state}", err=True)
            job = follow(client, job.id, for_s=max(0, wait - SOON_S))
    if job.state.ended or fmt != "table":
        return show_result(job, fmt)
    return exit_code(job.state)


Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it is kept in the audit trail.")]
Denied = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="An instance, a worker, a SPIFFE ID, serial:<hex> or sha256:<manifest digest>.",
    ),
]


@app.command()
def evict(
    target: Denied, reason: Reason, fmt: output.Format = "table", state: session.State = None
) -> None:
    """Refuse the present certificates; with a new token it may enrol again.

    A supervised instance is replaced at once, with a fresh identity.

    Examples:  hivemesh worker evict wi-3f2a90c1d7 --reason "strange load"  ·
               hivemesh worker evict email-parser --reason "host rebuilt"
    """
    with session.client(state) as client:
        refused = client.deny("evict", target, reason)
    _show_denials(refused, fmt, empty=f"{target} holds no valid certificate; nothing to evict")


@app.command()
def ban(
    target: Denied, reason: Reason, fmt: output.Format = "table", state: session.State = None
) -> None:
    """Refuse a worker, an instance or a package for good; nothing of it is started again.

    Undo: hivemesh worker unban TARGET

    Examples:  hivemesh worker ban email-parser --reason "compromised"  ·
               hivemesh worker ban sha256:9f86d0… --reason "known bad build"
    """
    with session.client(state) as client:
        refused = client.deny("ban", target, reason)
    _show_denials(refused, fmt)


@app.command()
def unban(
    target: Denied, reason: Reason, fmt: output.Format = "table", state: session.State = None
) -> None:
    """End a ban or a quarantine; the worker may enrol again.

    Example:  hivemesh worker unban email-parser --reason "host rebuilt"
    """
    with session.client(state) as client:
        left = client.lift(target, reason)
    if fmt == "table":
        typer.echo(f"{target} is refused no longer")
    else:
        _show_denials(left, fmt)


@app.command()
def denied(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show who is refused before his certificate expires, since when and why.

    Example:  hivemesh worker denied -o json
    """
    with session.client(state) as client:
        _show_denials(client.denials(), fmt)


def _show_denials(
    refused: "list[DenialView]", fmt: str, *, empty: str = "nobody is refused"
) -> None:
    columns: list[output.Column] = [
        ("rule", "rule"),
        ("kind", "kind"),
        ("since", "at"),
        ("until", "until"),
        ("reason", "reason"),
    ]
    output.show_list(refused, columns, fmt, wide=[("by", "by")], empty=empty)


credential = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    credential,
    name="credential",
    help="Deployment credentials: list, revoke.",
    epilog="Example:  hivemesh worker credential list",
)


@credential.command("list")
def list_credentials(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show the deployment credentials by which containers enrol; secrets are never shown.

    Example:  hivemesh worker credential list
    """
    with session.client(state) as client:
        found = client.credentials()
    columns: list[output.Column] = [
        ("id", "id"),
        ("worker", "worker"),
        ("created", "created_at"),
        ("max live", "max_live"),
        ("revoked", "revoked_at"),
    ]
    output.show_list(found, columns, fmt, empty="there are none; `hivemesh init` makes them")


@credential.command("revoke")
def revoke_credential(
    credential_id: Annotated[
        str, typer.Argument(metavar="ID", help="The id that `credential list` shows.")
    ],
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Let nobody enrol by a credential any more; who is in stays in until evicted.

    There is no undo: make another one with `hivemesh init`.

    Example:  hivemesh worker credential revoke 0123456789abcdef
    """
    with session.client(state) as client:
        revoked = client.revoke_credential(credential_id)
    if fmt == "table":
        typer.echo(f"{revoked.id} of {revoked.worker}: revoked")
        evict_them = session.here(f"hivemesh worker evict {revoked.worker} --reason …")
        typer.echo(f"its instances: {evict_them}", err=True)
    else:
        output.show_one(revoked, fmt)
