"""`hivemesh job`: one call of one capability each: submit, follow, do again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hivemesh_platform.cli import details, job_batch, output, session
from hivemesh_platform.cli.artifact import Class

if TYPE_CHECKING:
    from hivemesh_sdk.client import Client, JobFields
    from hivemesh_sdk.contracts.api import BatchView, RunView

app = typer.Typer(no_args_is_help=True)
app.add_typer(
    job_batch.app,
    name="batch",
    help="Jobs of one request: list, show, watch, cancel.",
    epilog="Example:  hivemesh job batch list",
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `job list` shows it.")]
One = Annotated[
    str,
    typer.Argument(metavar="ID", help="The job's id; none with --batch.", show_default=False),
]
Batch = Annotated[str, typer.Option("--batch", help="All jobs of this batch instead of one.")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait for the end and show the result.")
]


@app.command()
def submit(  # noqa: PLR0913, PLR0917 - one parameter an option
    capability: Annotated[
        str, typer.Argument(help="The capability, for example email.classify@1.")
    ],
    input_: Annotated[
        str | None,
        typer.Option("--input", "-i", help="A JSON file with the input, - for stdin."),
    ] = None,
    file: Annotated[
        str,
        typer.Option(
            "--file", "-f", help="A job for each line of this file, - for stdin: a batch."
        ),
    ] = "",
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", "-w", help="An option, key=value; a file as key=@path."),
    ] = None,
    data_class: Class = "internal",
    priority: session.Priority = 5,
    concurrency_key: Annotated[
        str, typer.Option(help="Jobs with the same key share its limits: `hivemesh limit`.")
    ] = "",
    label: session.Labels = None,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", help="A label that the instance has, as gpu=true."),
    ] = None,
    deadline: Annotated[
        str, typer.Option(help="How long it may take: 30s, 5m. Default: the capability's.")
    ] = "",
    idle_timeout: Annotated[
        str, typer.Option(help="How long it may stand still: 30s, 5m. Default: the capability's.")
    ] = "",
    max_retries: Annotated[
        int | None, typer.Option(min=0, max=100, help="Default: the capability's.")
    ] = None,
    idempotency_key: session.IdempotencyKey = "",
    wait: Wait = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Submit a job; input and options are checked against the capability before it is accepted.

    Examples:  echo '{"subject": "Invoice 7"}' | hivemesh job submit email.classify@1 -i - --wait  ·
               hivemesh job submit email.classify@1 -i mail.json -w types='["bill"]' -o json  ·
               hivemesh job submit email.classify@1 --file mails.ndjson --label team=billing --wait
    """
    from hivemesh_sdk.safeio.pairs import parse_pairs

    from hivemesh_platform.cli.artifact import stored
    from hivemesh_platform.cli.values import parse_labels, read_json, read_lines, seconds

    if file and input_ is not None:
        message = "--input is one job and --file many: give one of them"
        raise typer.BadParameter(message)
    fields: JobFields = {
        "data_class": data_class,
        "priority": priority,
        "concurrency_key": concurrency_key,
        "labels": parse_labels(label or []),
        "requires": parse_labels(require or [], "--require"),
    }
    if deadline:
        fields["deadline_s"] = seconds(deadline, "--deadline")
    if idle_timeout:
        fields["idle_timeout_s"] = seconds(idle_timeout, "--idle-timeout")
    if max_retries is not None:
        fields["max_retries"] = max_retries
    value = read_json(input_, "--input") if input_ is not None else None
    many = read_lines(file, "--file") if file else []
    with session.client(state) as client:
        options = stored(client, parse_pairs(with_ or []), data_class)
        if many:
            batch = client.submit_batch(
                capability, many, options, idempotency_key=idempotency_key, **fields
            )
            return _submitted(client, batch, fmt, wait=wait)
        job = client.submit(capability, value, options, idempotency_key=idempotency_key, **fields)
        if wait:
            job = _ended(client, job)
    if not wait:
        _show(
            job,
            fmt,
            f"{job.id}: {job.state}; follow it with `{session.here(f'hivemesh job watch {job.id}')}`",
        )
        return 0
    return show_result(job, fmt)


@app.command("list")
def list_(  # noqa: PLR0913, PLR0917 - one parameter an option
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    in_state: Annotated[str, typer.Option("--in", help="Only those in this state.")] = "",
    capability: Annotated[str, typer.Option(help="Only those of this capability.")] = "",
    since: Annotated[str, typer.Option(help="Only those since then: 2h, or a time.")] = "",
    submitter: Annotated[str, typer.Option(help="Only those of this user.")] = "",
    label: Annotated[str, typer.Option(help="Only those with this label, NAME=VALUE.")] = "",
    batch: Annotated[str, typer.Option(help="Only those of this batch.")] = "",
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show the newest jobs.

    Examples:  hivemesh job list --in failed  ·  hivemesh job list --capability email.classify@1  ·
               hivemesh job list --label team=billing  ·  hivemesh job list --batch batch_0193a5…
    """
    from hivemesh_platform.cli.values import since_time

    filters = {
        "state": in_state,
        "capability": capability,
        "since": since_time(since),
        "submitter": submitter,
        "label": label,
        "batch": batch,
    }
    with session.client(state) as client:
        output.show_list(
            client.jobs(filters, limit=limit),
            [
                ("id", "id"),
                ("capability", lambda job: job.nodes[0].use),
                ("state", "state"),
                ("age", lambda job: output.age(job.created_at)),
                ("attempts", lambda job: str(job.nodes[0].attempts)),
                ("reason", details.why),
            ],
            fmt,
            wide=[
                ("labels", "labels"),
                ("submitter", "submitter"),
                ("created", "created_at"),
                ("ended", "ended_at"),
            ],
            empty="no such jobs; submit one with `hivemesh job submit CAPABILITY`",
        )


@app.command()
def show(id_: Id, fmt: output.Format = "table", state: session.State = None) -> None:
    """Show one job: its state, attempts, times, and what went wrong.

    Example:  hivemesh job show job_0193a5…
    """
    with session.client(state) as client:
        details.show_run(client.run(id_), fmt)


@app.command()
def explain(id_: Id, fmt: output.Format = "table", state: session.State = None) -> None:
    """Show why each attempt was placed where it was, or why the job waits, with every candidate.

    A candidate has its score, the three parts of it, and the requirement that it does not meet: as
    it stood at the decision, or as it stands now for what waits.

    Example:  hivemesh job explain job_0193a5… -o json
    """
    from hivemesh_platform.cli.run import show_placement

    show_placement(id_, fmt, state)


@app.command()
def cancel(
    id_: One = "",
    batch: Batch = "",
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Cancel a job: it is told to stop, and ended after five seconds. Undo: `job retry`.

    Examples:  hivemesh job cancel job_0193a5…  ·  hivemesh job cancel --batch batch_0193a5…
    """
    _one_of(id_, batch)
    if batch:
        job_batch.cancel(batch, fmt, state)
        return
    with session.client(state) as client:
        job = client.cancel(id_)
    _show(job, fmt, f"{job.id}: {job.state} (undo: {session.here(f'hivemesh job retry {job.id}')})")


@app.command()
def retry(
    id_: One = "",
    batch: Batch = "",
    failed: job_batch.Failed = False,
    wait: Wait = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Queue a job that has failed or was cancelled once more, with all of its retries.

    Examples:  hivemesh job retry job_0193a5… --wait  ·
               hivemesh job retry --batch batch_0193a5… --failed
    """
    _one_of(id_, batch)
    if batch:
        job_batch.retry(batch, failed=failed, fmt=fmt, state=state)
        return job_batch.watch(batch, fmt, state) if wait else 0
    with session.client(state) as client:
        job = client.retry_job(id_)
        if wait:
            job = _ended(client, job)
    if not wait:
        _show(job, fmt, f"{job.id}: {job.state}")
        return 0
    return show_result(job, fmt)


@app.command()
def watch(id_: Id, fmt: output.Format = "table", state: session.State = None) -> int:
    """Follow a job to its end and print its result. Ctrl-C stops watching; the job goes on.

    Example:  hivemesh job watch job_0193a5… -o json
    """
    from hivemesh_platform.cli.progress import follow

    with session.client(state) as client:
        job = follow(client, id_)
    return show_result(job, fmt)


@app.command()
def types(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show what can be submitted as a job, with the schemas of input and options (`-o yaml`).

    Examples:  hivemesh job types  ·  hivemesh job types -o yaml
    """
    with session.client(state) as client:
        output.show_list(
            client.job_types(),
            [
                ("capability", "id"),
                ("input", lambda one: _fields(one.input)),
                ("options", lambda one: _fields(one.options)),
                ("worker", "worker"),
                ("instances", "live_instances"),
                ("free slots", "free_slots"),
            ],
            fmt,
            wide=[("description", "description")],
            empty="nothing can be called; see `hivemesh capability list`",
        )


@app.command("output")
def output_(
    id_: Id,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Write to this file instead of stdout.")
    ] = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Print or save the result of a job as JSON.

    Example:  hivemesh job output job_0193a5… --file result.json
    """
    with session.client(state) as client:
        output.save(client.output(id_, "result"), file, fmt)


@app.command()
def process(id_: Id, fmt: output.Format = "table", state: session.State = None) -> None:
    """Try a waiting job at once, before all others of its capability; not in production mode.

    Example:  hivemesh job process job_0193a5…
    """
    with session.client(state) as client:
        job = client.process_job(id_)
    _show(job, fmt, f"{job.id}: {job.state}")


def _one_of(id_: str, batch: str) -> None:
    if bool(id_) == bool(batch):
        message = "name one job by its ID, or all of a batch with --batch"
        raise typer.BadParameter(message)


def _submitted(client: "Client", batch: "BatchView", fmt: str, *, wait: bool) -> int:
    """Say what was accepted, or wait until all of it has ended."""
    if not wait:
        further = f"follow it with `{session.here(f'hivemesh job batch watch {batch.id}')}`"
        job_batch.say(batch, fmt, further)
        return 0
    typer.echo(f"{batch.id}: {batch.count:,} jobs", err=True)
    batch = job_batch.follow(client, batch.id)
    output.show_one(batch, fmt)
    return job_batch.exit_code(batch)


def _ended(client: "Client", job: "RunView") -> "RunView":
    """Say which job it is, and wait for its end."""
    from hivemesh_platform.cli.progress import follow

    typer.echo(f"{job.id}: {job.state}", err=True)
    return follow(client, job.id)


def _fields(schema: object) -> str:
    """The names of a schema's fields, the required ones with a star."""
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        return "any"
    required = schema.get("required") or []
    names = [f"{name}*" if name in required else str(name) for name in schema["properties"]]
    return ", ".join(names) or "none"


def _show(job: "RunView", fmt: str, text: str) -> None:
    if fmt == "table":
        typer.echo(text)
    elif fmt == "name":
        typer.echo(job.id)
    else:
        details.show_run(job, fmt)


def show_result(job: "RunView", fmt: str) -> int:
    """Print the result, or the job where it has none."""
    from hivemesh_platform.cli.pipeline import exit_code

    if fmt == "name":
        typer.echo(job.id)
    elif "result" in job.outputs and fmt in {"table", "json", "yaml"}:
        output.show_document(job.outputs["result"], "json" if fmt == "table" else fmt)
    else:
        details.show_run(job, fmt)
    return exit_code(job.state)
