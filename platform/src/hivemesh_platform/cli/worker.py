"""`hivemesh worker`: the installed workers, their instances, logs and calls."""

from typing import Annotated

import typer

from hivemesh_platform.cli import details, output, session
from hivemesh_platform.cli.artifact import stored
from hivemesh_platform.cli.values import parse_pairs, read_json

app = typer.Typer(no_args_is_help=True)

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
        empty="no workers are installed; put one into the folder workers/ and start again",
    )


@app.command()
def show(name: Name, fmt: output.Format = "table", state: session.State = None) -> None:
    """Show one worker: capabilities, permissions, instances with load and certificate expiry.

    Example:  hivemesh worker show email-parser
    """
    with session.client(state) as client:
        details.show_worker(client.worker(name), fmt)


@app.command()
def logs(
    name: Name,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, max=10_000, help="How many lines.")
    ] = 100,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Print the end of a worker's log.

    Example:  hivemesh worker logs email-parser -n 20
    """
    with session.client(state) as client:
        text = client.worker_log(name, lines=lines)
    if fmt in {"json", "yaml"}:
        output.show_document(text.splitlines(), fmt)
    else:
        for line in text.splitlines():
            typer.echo(output.printable(line))


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
        typer.echo(
            f"{name}: {before} -> {worker.wanted} instances (undo: hivemesh worker scale {name} {before})"
        )


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
    fmt: output.Format = "json",
    state: session.State = None,
) -> int:
    """Call one capability with one input and print its result.

    Example:  echo '{"subject": "Invoice 7"}' | hivemesh worker call email.classify@1 -i - -w types='["bill"]'
    """
    value = read_json(input_) if input_ is not None else None
    with session.client(state) as client:
        options = stored(client, parse_pairs(with_ or []))
        run = client.call(capability, value, options, wait_s=wait)
    if fmt == "name":
        typer.echo(run.id)
    elif run.state == "completed":
        output.show_document(run.outputs.get("result"), fmt)
    else:
        details.show_run(run, fmt)
        return 6 if not run.state.ended else 1
    return 0
