"""Asks the person at the terminal, where there is one and `--no-input` does not forbid it."""

import sys

import typer

NO_INPUT = "--no-input"
_forbidden = False


def forbid() -> None:
    """Ask nothing from now on."""
    global _forbidden  # noqa: PLW0603 - a flag of the process, like its environment
    _forbidden = True


def possible() -> bool:
    """Say whether somebody can be asked."""
    return not _forbidden and sys.stdin is not None and sys.stdin.isatty()


def confirmed(question: str, *, yes: bool) -> None:
    """Go on only where a person, or `--yes`, says so.

    Raises:
        Exit: the answer is no.
        RemoteError: nobody can be asked.
    """
    if yes:
        return
    if not possible():
        refuse(f"nobody can be asked here: {question}", "if that is meant, add --yes")
    if not typer.confirm(question, err=True):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(1)


def refuse(why: str, remedy: str) -> None:
    """End the command: it needs what it may not ask for.

    Raises:
        RemoteError: always.
    """
    from hivemesh_sdk.contracts.problems import problem
    from hivemesh_sdk.errors import RemoteError

    raise RemoteError(problem("answer-missing", why, remedy=remedy))
