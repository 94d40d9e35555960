"""`hivemesh run`: what runs did, are doing, and gave."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hivemesh_platform.cli import details, output, session

if TYPE_CHECKING:
    from hivemesh_sdk.contracts.api import ExplainView
    from pydantic import JsonValue

PARTS = ("cpu", "memory", "active")  # of a score

app = typer.Typer(no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The run's id, as `run list` shows it.")]


@app.command("list")
def list_(  # noqa: PLR0913, PLR0917 - one parameter an option
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    in_state: Annotated[str, typer.Option("--in", help="Only those in this state.")] = "",
    pipeline: Annotated[str, typer.Option(help="Only those of this pipeline.")] = "",
    capability: Annotated[str, typer.Option(help="Only jobs of this capability.")] = "",
    since: Annotated[str, typer.Option(help="Only those since then: 2h, or a time.")] = "",
    label: Annotated[str, typer.Option(help="Only those with this label, NAME=VALUE.")] = "",
    submitter: Annotated[str, typer.Option(help="Only those of this user.")] = "",
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show the newest runs and jobs.

    Examples:  hivemesh run list  ·  hivemesh run list --in failed --since 2h -o json
    """
    from hivemesh_platform.cli.values import since_time

    filters = {
        "state": in_state,
        "pipeline": pipeline,
        "capability": capability,
        "since": since_time(since),
        "label": label,
        "submitter": submitter,
    }
    with session.client(state) as client:
        output.show_list(
            client.runs(filters, limit=limit),
            [
                ("id", "id"),
                ("pipeline", "pipeline"),
                ("state", "state"),
                ("age", lambda run: output.age(run.created_at)),
                ("rejected", "rejected"),
                ("reason", details.why),
            ],
            fmt,
            wide=[
                ("created", "created_at"),
                ("ended", "ended_at"),
                ("version", "version"),
                ("submitter", "submitter"),
                ("missing", "missing"),
            ],
            empty="no runs yet; start one with `hivemesh demo email` or `hivemesh pipeline run`",
        )


@app.command()
def show(id_: Id, fmt: output.Format = "table", state: session.State = None) -> None:
    """Show one run: its steps with attempts, records and problems, and its outputs.

    Example:  hivemesh run show run_0193a5…
    """
    with session.client(state) as client:
        details.show_run(client.run(id_), fmt)


@app.command()
def watch(id_: Id, fmt: output.Format = "table", state: session.State = None) -> int:
    """Follow a run until it ends. Ctrl-C stops watching; the run goes on.

    Example:  hivemesh run watch run_0193a5…
    """
    from hivemesh_platform.cli.pipeline import exit_code
    from hivemesh_platform.cli.progress import follow

    with session.client(state) as client:
        run = follow(client, id_)
        details.show_run(run, fmt)
    return exit_code(run.state)


@app.command()
def cancel(
    id_: Id,
    step: Annotated[str, typer.Option("--step", help="Only this step; the others go on.")] = "",
    seq: Annotated[
        int | None, typer.Option("--seq", min=0, help="Only this batch of the step.")
    ] = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Cancel a run, a step or a batch: what runs is told to stop, and ended after five seconds.

    Examples:  hivemesh run cancel run_0193a5…  ·  hivemesh run cancel run_0193a5… --step classify
    """
    if seq is not None and not step:
        message = "--seq takes --step"
        raise typer.BadParameter(message)
    with session.client(state) as client:
        run = client.cancel_step(id_, step, seq) if step else client.cancel(id_)
    if fmt == "table":
        typer.echo(f"{run.id}: {run.state}")
    else:
        details.show_run(run, fmt)


@app.command()
def retry(
    id_: Id,
    from_: Annotated[
        str, typer.Option("--from", help="Do this step and all behind it afresh.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait and show progress.")] = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Set what has failed, was blocked or cancelled going again; what is recorded is kept.

    Examples:  hivemesh run retry run_0193a5… --wait  ·  hivemesh run retry run_0193a5… --from insights
    """
    from hivemesh_platform.cli.pipeline import exit_code
    from hivemesh_platform.cli.progress import follow

    with session.client(state) as client:
        run = client.retry(id_, from_)
        if wait:
            run = follow(client, id_)
    if fmt == "table" and not wait:
        typer.echo(
            f"{run.id}: {run.state}; follow it with `{session.here(f'hivemesh run watch {run.id}')}`"
        )
    else:
        details.show_run(run, fmt)
    return exit_code(run.state, waited=wait)


@app.command()
def backfill(
    id_: Id,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait and show progress.")] = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Give later what a run went on without, as a new run into a new version of its datasets.

    That are optional steps, and dead letters that were retried as jobs.

    Example:  hivemesh run backfill run_0193a5… --wait
    """
    from hivemesh_platform.cli.pipeline import exit_code
    from hivemesh_platform.cli.progress import follow

    with session.client(state) as client:
        run = client.backfill(id_)
        if wait:
            run = follow(client, run.id)
    if fmt == "table" and not wait:
        typer.echo(
            f"{run.id} gives what {id_} went without; `{session.here(f'hivemesh run watch {run.id}')}`"
        )
    else:
        details.show_run(run, fmt)
    return exit_code(run.state, waited=wait)


@app.command("output")
def output_(
    id_: Id,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The output's name, as `run show` lists it.")
    ],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Write to this file instead of stdout.")
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Of an artifact its reference instead of its bytes.")
    ] = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Print or save one output of a run: NDJSON for records, JSON for values, bytes for artifacts.

    Without --file, -o json gives the reference of an artifact too.

    Example:  hivemesh run output run_0193a5… report --file report.html
    """
    from hivemesh_platform.cli.artifact import output_bytes

    as_reference = reference or (file is None and fmt in {"json", "yaml"})
    with session.client(state) as client:
        blocks = client.output(id_, name) if as_reference else output_bytes(client, id_, name)
        output.save(blocks, file, fmt)


@app.command()
def rejected(id_: Id, fmt: output.Format = "table", state: session.State = None) -> None:
    """Show records that were refused during a run, with reason and place.

    Example:  hivemesh run rejected run_0193a5…
    """
    with session.client(state) as client:
        output.show_list(
            client.rejected(id_),
            [
                ("step", "node"),
                ("batch", "seq"),
                ("reason", "reason"),
                ("position", "position"),
                ("detail", "detail"),
            ],
            fmt,
            empty="no record was refused",
        )


@app.command()
def attempts(
    id_: Id,
    step: Annotated[str, typer.Option("--step", help="Only those of this step.")] = "",
    seq: Annotated[int, typer.Option("--seq", min=-1, help="Only those of this batch.")] = -1,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show every attempt: where it ran, how it ended, and how long it was waited before.

    Example:  hivemesh run attempts run_0193a5… --step classify
    """
    with session.client(state) as client:
        output.show_list(
            client.attempts(id_, step, seq),
            [
                ("key", "key"),
                ("attempt", "attempt"),
                ("instance", "instance"),
                ("outcome", "outcome"),
                ("took", lambda one: f"{one.elapsed_s:.2f}s"),
                ("gap", lambda one: "-" if one.gap_s is None else f"{one.gap_s:.2f}s"),
                ("problem", lambda one: str((one.problem or {}).get("detail") or "-")),
            ],
            fmt,
            wide=[("worker", "worker"), ("started", "started_at"), ("ended", "ended_at")],
            empty="nothing has been placed yet, and nothing waits for an instance",
        )


@app.command()
def lost(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that have come to an end since.")
    ] = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show steps whose worker went away, after how long, and where they run now.

    Examples:  hivemesh run lost  ·  hivemesh run lost --all -o json
    """
    with session.client(state) as client:
        output.show_list(
            client.lost_steps(ended=everything),
            [
                ("key", "key"),
                ("attempt", "attempt"),
                ("lost at", "instance"),
                ("elapsed", lambda one: f"{one.elapsed_s:.1f}s"),
                ("state", "state"),
                ("now attempt", "now_attempt"),
                ("now at", "now_instance"),
            ],
            fmt,
            wide=[("capability", "capability"), ("found", "lost_at")],
            empty="no step is without its worker",
        )


@app.command()
def explain(id_: Id, fmt: output.Format = "table", state: session.State = None) -> None:
    """Show why each attempt was placed where it was, and why rows wait, with every candidate.

    A candidate has its score, the three parts of it, and the requirement that it does not meet: as
    it stood at the decision, or as it stands now for what waits. The table ends with those of the
    last line; -o wide shows those of all.

    Example:  hivemesh run explain run_0193a5… -o json
    """
    show_placement(id_, fmt, state)


def show_placement(id_: str, fmt: str, state: Path | None) -> None:
    """Print where each attempt of a run or job was placed, and why; then what waits, and why."""
    with session.client(state) as client:
        found = client.explain(id_)
    output.show_list(
        found,
        [("key", "key"), ("attempt", "attempt"), ("chosen", "chosen"), ("reason", "reason")],
        fmt,
        wide=[("candidates", lambda one: "; ".join(map(_candidate_text, one.candidates)))],
        empty="nothing has been placed yet, and nothing waits for an instance",
    )
    if fmt == "table" and found:
        _show_candidates(found[-1])


def _show_candidates(placement: "ExplainView") -> None:
    when = "at the decision" if placement.chosen else "now"
    if not placement.candidates:
        typer.echo(f"\ncandidates of {placement.key} {when}: none")
        return
    rows = [
        [
            output.cell(one.get("instance")),
            *(_number(value) for value in (one.get("score"), *_parts(one))),
            output.cell(one.get("unmet")),
        ]
        for one in placement.candidates
    ]
    more = f" ({placement.not_listed} more)" if placement.not_listed else ""
    typer.echo(f"\ncandidates of {placement.key} {when}{more}:")
    typer.echo(output.table(["instance", "score", *PARTS, "unmet"], rows))


def _candidate_text(candidate: "dict[str, JsonValue]") -> str:
    parts = " + ".join(map(_number, _parts(candidate)))
    score = f"{candidate.get('instance')} {_number(candidate.get('score'))} = {parts}"
    unmet = candidate.get("unmet")
    return f"{score}, unmet: {unmet}" if unmet else score


def _parts(candidate: "dict[str, JsonValue]") -> "list[JsonValue]":
    parts = candidate.get("parts")
    return [parts.get(name) if isinstance(parts, dict) else None for name in PARTS]


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "-"
