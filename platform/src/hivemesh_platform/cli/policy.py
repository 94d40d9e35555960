"""`hivemesh policy`: who may call which capability; shown, tested, changed, explained."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hivemesh_platform.cli import asking, output, session

if TYPE_CHECKING:
    from hivemesh_sdk.contracts.policy_api import PolicyReview

app = typer.Typer(no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The policy document, YAML.")]


@app.command()
def show(
    version: Annotated[
        int | None, typer.Option("--version", help="An older version.", min=1)
    ] = None,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Print the policy in force: the document, then the rules that manifests add to it.

    Examples:  hivemesh policy show > policy.yaml  ·  hivemesh policy show --version 2
    """
    with session.client(state) as client:
        view = client.policy(version)
    if fmt in {"json", "yaml"}:
        output.show_one(view, fmt)
        return
    if fmt == "name":
        typer.echo(view.version)
        return
    at = f", in force at {view.in_force_at} of {view.asked_by} workers" if view.current else ""
    typer.echo(f"# policy version {view.version} of {view.created_at}, by {view.author}{at}")
    typer.echo(view.document.rstrip())
    if view.consented:
        typer.echo("\n# By consent to the installed manifests; a rule of the same id replaces one:")
    for rule in view.consented:
        typer.echo(f"#  - {json.dumps(rule)}")


@app.command()
def history(fmt: output.Format = "table", state: session.State = None) -> None:
    """List every version: when, by whom, why. To go back, apply an older one again.

    Example:  hivemesh policy history   (back to version 2: policy show --version 2 > old.yaml,
    then policy apply old.yaml)
    """
    with session.client(state) as client:
        versions = client.policy_versions()
    output.show_list(
        versions,
        [
            ("version", "version"),
            ("made", "created_at"),
            ("author", "author"),
            ("rules", "rules"),
            ("denials", "denials"),
            ("reason", "reason"),
        ],
        fmt,
    )


@app.command("test")
def check(
    file: File,
    offline: Annotated[
        bool, typer.Option("--offline", help="Without a platform: only what the file itself says.")
    ] = False,
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Run the `tests:` of a document; nothing is applied. Exit code 1 when one fails.

    Examples:  hivemesh policy test policy.yaml  ·  hivemesh policy test policy.yaml --offline
    """
    text = _text(file)
    review = _reviewed_here(text, file) if offline else _reviewed(text, file, state)
    if fmt in {"json", "yaml"}:
        output.show_document([one.model_dump(mode="json") for one in review.tests], fmt)
    else:
        _show_tests(review)
    return 0 if review.passed else 1


@app.command()
def diff(file: File, fmt: output.Format = "table", state: session.State = None) -> None:
    """Show what a document would change: its text, its rules, and which ways are cut or opened.

    Example:  hivemesh policy diff policy.yaml
    """
    review = _reviewed(_text(file), file, state)
    if fmt in {"json", "yaml"}:
        output.show_one(review, fmt)
    else:
        _show_changes(review)


@app.command()
def apply(
    file: File,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show and test it, change nothing.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; it is kept in the history.")] = "",
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Make a document the next version, in force everywhere within seconds.

    It shows what changes, runs the document's tests and refuses when one fails.

    Examples:  hivemesh policy apply policy.yaml  ·  hivemesh policy apply policy.yaml --dry-run  ·
    undo: hivemesh policy show --version N > old.yaml, then apply that
    """
    text = _text(file)
    review = _reviewed(text, file, state)
    if fmt not in {"json", "yaml", "name"}:
        _show_changes(review)
        _show_tests(review)
    elif dry_run:
        output.show_one(review, fmt, name="based_on")
    if dry_run:
        return 0 if review.passed else 1
    if review.passed:
        asking.confirmed(_question(review), yes=yes)
    with session.client(state) as client:
        view = client.apply_policy(text, expected=review.based_on, name=file.name, reason=reason)
    if fmt in {"json", "yaml", "name"}:
        output.show_one(view, fmt, name="version")
    else:
        at = f"{view.in_force_at} of {view.asked_by} workers"
        show_old = session.here(f"hivemesh policy show --version {review.based_on}")
        undo = f"{show_old} > old.yaml && {session.here('hivemesh policy apply old.yaml')}"
        typer.echo(f"policy version {view.version} is in force at {at} (undo: {undo})", err=True)
    return 0


@app.command()
def explain(  # noqa: PLR0913 - the parts of a question
    caller: Annotated[
        str, typer.Argument(help="A worker (short names do), `platform`, or a SPIFFE ID.")
    ],
    callee: Annotated[str, typer.Argument(help="The worker that is called.")],
    capability: Annotated[str, typer.Argument(help="The capability, for example email.parse@1.")],
    *,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", help="A role of whom it is done for; may be repeated."),
    ] = None,
    data_class: Annotated[
        str, typer.Option("--data-class", help="public, internal, personal or secret.")
    ] = "internal",
    ticket: Annotated[
        bool, typer.Option("--ticket/--no-ticket", help="Whether the call carries a ticket.")
    ] = True,
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Say whether a call is allowed, by which rule, and what would allow it. Exit code 4 if not.

    Examples:  hivemesh policy explain parser classifier email.classify@1  ·
    hivemesh policy explain platform classifier email.classify@1 --role viewer --data-class personal
    """
    with session.client(state) as client:
        found = client.explain_policy(
            caller, callee, capability, roles=role or (), data_class=data_class, ticket=ticket
        )
    if fmt in {"json", "yaml", "name"}:
        output.show_one(found, fmt, name="decision")
    else:
        typer.echo(f"{found.decision}: {found.why} (policy version {found.version})")
        for number, one in enumerate(found.would_allow):
            typer.echo(f"{'would allow it: ' if number == 0 else '            or: '}{one}")
    return 0 if found.decision == "allow" else 4


def _text(file: Path) -> str:
    from hivemesh_sdk.safeio.documents import read_text
    from hivemesh_sdk.safeio.problems import MalformedError

    try:
        return read_text(file).decode()
    except UnicodeDecodeError as error:
        message = f"{file.name} is no UTF-8 text"
        raise MalformedError(message, code="not-utf-8") from error


def _reviewed(text: str, file: Path, state: Path | None) -> "PolicyReview":
    with session.client(state) as client:
        return client.review_policy(text, name=file.name)


def _reviewed_here(text: str, file: Path) -> "PolicyReview":
    from hivemesh_sdk.contracts.policy_api import PolicyReview
    from hivemesh_sdk.safeio.documents import parse_policy

    from hivemesh_platform.access.workload_policy import offline_tests

    document = parse_policy(text, name=file.name)
    return PolicyReview(based_on=0, tests=offline_tests(document))


def _show_tests(review: "PolicyReview") -> None:
    for one in review.tests:
        mark = "ok  " if one.passed else "FAIL"
        by = f" by {one.rule}" if one.rule else ""
        line = f"{mark} {one.caller} -> {one.callee} {one.capability}: {one.result}{by}"
        if not one.passed:
            line += f", expected {one.expected}{f' ({one.detail})' if one.detail else ''}"
        typer.echo(line)
    failed = sum(not one.passed for one in review.tests)
    if review.tests:
        typer.echo(f"{len(review.tests) - failed} passed, {failed} failed", err=True)
    else:
        typer.echo("the document has no tests", err=True)


def _show_changes(review: "PolicyReview") -> None:
    if review.diff:
        typer.echo(review.diff)
    changes = [(one.change, one) for one in review.edges]
    for change, edge in sorted(changes, key=lambda pair: (not pair[1].live, pair[0])):
        live = "" if edge.live else " (not live)"
        typer.echo(f"{change}: {edge.caller} -> {edge.callee} {edge.capability}{live}")
    if not review.diff and not changes:
        typer.echo(f"nothing differs from version {review.based_on}", err=True)


def _question(review: "PolicyReview") -> str:
    cut = sum(one.change == "cut" and one.live for one in review.edges)
    return f"replace version {review.based_on}{f' and cut {cut} live ways' if cut else ''}?"
