"""`hivemesh pipeline`: list, validate and run pipelines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hivemesh_platform.cli import details, output, session
from hivemesh_platform.cli.artifact import Class

if TYPE_CHECKING:
    from pydantic import JsonValue

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show the pipelines that can be run by name, and files of them that are not valid.

    Example:  hivemesh pipeline list
    """
    with session.client(state) as client:
        output.show_list(
            client.pipelines(),
            [
                ("name", "name"),
                ("version", "version"),
                ("steps", "steps"),
                ("outputs", "outputs"),
                (
                    "description",
                    lambda one: f"invalid: {one.problem}" if one.problem else one.description,
                ),
            ],
            fmt,
            wide=[("origin", "origin"), ("parameters", "parameters")],
            empty="no pipelines; run one from a file with `hivemesh pipeline run FILE`",
        )


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="The pipeline's YAML file.")],
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Check a pipeline against the installed workers; nothing is run.

    Example:  hivemesh pipeline validate pipelines/email-insights.yaml
    """
    from hivemesh_platform.cli.located import located

    document = _document(file)
    with session.client(state) as client, located(file):
        view = client.validate(document)
    if fmt == "table":
        typer.echo(f"{file}: valid ({view.name} version {view.version}, {len(view.steps)} steps)")
    else:
        output.show_one(view, fmt, name="name")


@app.command()
def store(
    file: Annotated[Path, typer.Argument(help="The pipeline's YAML file.")],
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Keep a pipeline, to be run by name or as a step of others; a changed one takes a new version.

    Example:  hivemesh pipeline store weekly.yaml
    """
    from hivemesh_platform.cli.located import located

    document = _document(file)
    with session.client(state) as client, located(file):
        view = client.store_pipeline(document)
    if fmt == "table":
        typer.echo(
            f"{view.name} version {view.version} is stored: use pipeline/{view.name}@{view.version}"
        )
    else:
        output.show_one(view, fmt, name="name")


@app.command("run")
def run_(  # noqa: PLR0913, PLR0917 - one parameter an option
    pipeline: Annotated[str, typer.Argument(help="A pipeline's name, or its YAML file.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="key=value; a file as key=@path is stored first."),
    ] = None,
    data_class: Class = "internal",
    priority: Annotated[
        int | None,
        typer.Option(min=0, max=10, help="10 starts first. Default: that of the pipeline."),
    ] = None,
    label: session.Labels = None,
    idempotency_key: session.IdempotencyKey = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait and show progress.")] = True,
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Run a pipeline, show its progress and the run at its end. Ctrl-C leaves the run going.

    Example:  hivemesh pipeline run email-insights -p archive=@mail.mbox --class personal
    """
    from hivemesh_sdk.safeio.pairs import parse_pairs

    from hivemesh_platform.cli.artifact import stored
    from hivemesh_platform.cli.located import located
    from hivemesh_platform.cli.progress import follow
    from hivemesh_platform.cli.values import parse_labels

    which: str | dict[str, JsonValue] = pipeline
    if pipeline.endswith((".yaml", ".yml")):
        which = _document(Path(pipeline))
    with session.client(state) as client:
        given = stored(client, parse_pairs(parameter or []), data_class)
        with located(None if isinstance(which, str) else Path(pipeline)):
            run = client.start_run(
                which,
                given,
                data_class=data_class,
                priority=priority,
                labels=parse_labels(label or []),
                idempotency_key=idempotency_key,
            )
        typer.echo(f"run {run.id} started", err=True)
        if wait:
            run = follow(client, run.id)
        details.show_run(run, fmt)
    return exit_code(run.state, waited=wait)


def exit_code(run_state: str, *, waited: bool = True) -> int:
    """0 completed, 1 failed or cancelled, 6 partial or not ended."""
    if run_state == "completed" or not waited:
        return 0
    return 1 if run_state in {"failed", "cancelled"} else 6


def _document(file: Path) -> "dict[str, JsonValue]":
    from hivemesh_sdk.safeio.documents import load_pipeline

    return load_pipeline(file).model_dump(mode="json", by_alias=True)
