"""`hivemesh help`: the help page of a command, a topic that belongs to no command, or an error code."""

from typing import Annotated

import typer

TOPICS = {
    "output": """\
Data goes to standard output, everything else to standard error.

  -o table|wide|json|yaml|name   anywhere data is shown; json and yaml have stable keys, of errors too
  --quiet, -q                    say nothing but data and errors
  --no-input                     ask nothing: what needs an answer then needs --yes or a file
  --no-color                     no colour and no moving lines; the same as NO_COLOR in the environment
  -vv                            an error shows its stack trace""",
    "exit-codes": """\
  0 done   1 failed   2 wrong usage or input   3 not found   4 denied   5 conflict
  6 not complete or timed out   7 unavailable   130 interrupted   141 nobody reads the output""",
    "settings": """\
A value is taken from the first of: --set key=value, the environment (HIVEMESH_SECTION__KEY),
./hivemesh.yaml, the user's file, /etc/hivemesh/hivemesh.yaml, the default.

  hivemesh config show --origin   each value and where it came from
  hivemesh config validate        what is wrong in them""",
    "remote": """\
Commands work on the platform of the state folder, with the operator's certificate, or on the one
that is named by these, anywhere on the command line or in the environment:

  --server https://HOST:PORT   HIVEMESH_SERVER
  --token-file FILE            HIVEMESH_TOKEN_FILE, or the token itself in HIVEMESH_TOKEN
  --ca-file FILE               HIVEMESH_CA_FILE""",
    "errors": """\
An error shows its code, why it came, and the fix. `hivemesh help CODE` explains a code, such as
HM-1605; docs/reference/errors.md has all of them.""",
}


def help_(
    topic: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"A command, an error code, or one of: {', '.join(TOPICS)}.", metavar="[TOPIC]..."
        ),
    ] = None,
) -> None:
    """Explain a command, a topic or an error code.

    Examples:  hivemesh help worker scale  ·  hivemesh help exit-codes  ·  hivemesh help HM-1605
    """
    words = topic or []
    if len(words) == 1 and words[0] in TOPICS:
        typer.echo(TOPICS[words[0]])
    elif len(words) == 1 and words[0].upper().startswith("HM-"):
        typer.echo(_explained(words[0].upper()))
    else:
        _page(words)


def _explained(code: str) -> str:
    from hivemesh_sdk.contracts.problems import CATALOGUE

    found = next((row for row in CATALOGUE.values() if row.code == code), None)
    if found is None:
        message = f"there is no error {code}; docs/reference/errors.md has all of them"
        raise typer.BadParameter(message)
    again = "\nThe platform repeats it by itself (3 times, after 1, 2 and 4 seconds)."
    return (
        f"{found.code} {found.slug}: {found.title}\nfix: {found.remedy}"
        f"{again if found.retryable else ''}\ndocs: docs/reference/errors.md#{code.lower()}"
    )


def _page(words: list[str]) -> None:
    from hivemesh_platform.cli.main import COMMANDS, GROUPS, build

    if words and words[0] not in {*COMMANDS, *GROUPS}:
        from difflib import get_close_matches

        near = get_close_matches(words[0], [*COMMANDS, *GROUPS, *TOPICS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        message = f"no command or topic {words[0]!r}{hint} Topics: {', '.join(TOPICS)}"
        raise typer.BadParameter(message)
    build(words)([*words, "--help"], prog_name="hivemesh", standalone_mode=False)
