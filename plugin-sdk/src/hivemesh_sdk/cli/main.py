"""The commands and their arguments; each command lives in its own module and is imported late."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn, TypeAlias

from hivemesh_sdk import __version__
from hivemesh_sdk.contracts.names import PROTOCOL
from hivemesh_sdk.failures import USAGE, guarded

EXAMPLES = """\
examples:
  hivemesh-worker check                          plugin.yaml, code and files agree?
  hivemesh-worker call email.parse@1 --with archive=mail.mbox
  hivemesh-worker conformance workers/email-parser --junit report.xml
  hivemesh-worker schema email.parse@1           JSON Schemas, from the annotations
  hivemesh-worker run                            join the platform named by HIVEMESH_PLATFORM
exit codes:
  0 ok   1 failure   2 usage or invalid input   3 not found   4 denied   5 conflict
  6 time-out or partial   7 unavailable   130 interrupted   141 nobody reads the output
"""
RUN_EXAMPLES = """\
environment:
  HIVEMESH_PLATFORM         mesh address of the platform, https://host:port
  HIVEMESH_ENROLMENT        its enrolment address, https://host:port
  HIVEMESH_TOKEN_FD         descriptor to read a join token from (0 is standard input), or
  HIVEMESH_CREDENTIAL_FILE  file with a deployment credential, mode 0600 or 0400
  HIVEMESH_HOST, HIVEMESH_PORT    where to listen (127.0.0.1, any free port)
  HIVEMESH_ADVERTISE_HOST   name under which others reach this worker
  HIVEMESH_INSTANCE         name of this instance (default: the platform gives one)
  HIVEMESH_ALONE_S          seconds a worker with a token descriptor goes on without its
                            platform (120; 0: for ever)
  HIVEMESH_LOG_LEVEL        debug, info or warning (info)
  HIVEMESH_LOG_CLASS_MAX    public, internal, personal or secret (internal): of steps on data
                            above it the log has neither what they say by context.log nor
                            the messages of what they raise; what they print stays
examples:
  HIVEMESH_TOKEN_FD=0 HIVEMESH_ALONE_S=0 hivemesh-worker run workers/email-parser < fifo
  HIVEMESH_CREDENTIAL_FILE=/run/secrets/credential hivemesh-worker run email-parser
"""
CALL_EXAMPLES = """\
One JSON record a line goes to standard output; rejected records go to standard error.
A value that is JSON is taken as JSON, any other as text; for an artifact give a file or folder.
examples:
  hivemesh-worker call email.parse@1 --with archive=mail.mbox --with headers=none
  hivemesh-worker call email.parse@1 --with archive=mail.mbox | hivemesh-worker call \\
      --worker ../email-classifier email.classify@1 --input -
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    as_json = getattr(options, "output", "text") == "json"
    return guarded(lambda: _dispatch(options), as_json=as_json, trace=options.verbose > 1)


def _dispatch(options: argparse.Namespace) -> int:
    # argparse has checked the name; help and --version import none of the commands
    module = importlib.import_module(f"hivemesh_sdk.cli.{options.command}")
    code: int = module.run(options)
    return code


class _Parser(argparse.ArgumentParser):
    """Tells misuse in the form of every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"error: {message}\nfix: {self.prog} --help shows usage and examples\n")


def _parser() -> "_Parser":
    parser = _Parser(
        prog="hivemesh-worker",
        description="Run, check, call and prove a Hivemesh worker.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print SDK and protocol version"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _run(commands)
    _check(commands)
    _call(commands)
    _conformance(commands)
    _health(commands)
    _schema(commands)
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"  # noqa: SLF001 - argparse gives it no public name


def _run(commands: Commands) -> None:
    parser = _command(commands, "run", "join a platform and serve this worker", RUN_EXAMPLES)
    _where(parser)


def _check(commands: Commands) -> None:
    parser = _command(commands, "check", "compare plugin.yaml, code and files")
    _where(parser)
    _output(parser)


def _call(commands: Commands) -> None:
    parser = _command(
        commands, "call", "run one capability here, without a platform", CALL_EXAMPLES
    )
    parser.add_argument("capability", metavar="CAPABILITY", help="its id, like email.parse@1")
    parser.add_argument(
        "--with",
        dest="options",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the capability; may be repeated",
    )
    parser.add_argument(
        "--input", metavar="FILE", help="records, one JSON document a line; - is standard input"
    )
    parser.add_argument("--worker", metavar="PATH|NAME", help="the worker (default: here)")
    parser.add_argument(
        "--secrets",
        metavar="FILE",
        help="values of secrets: a YAML mapping of names such as mail.password",
    )
    parser.add_argument(
        "--internal",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help="open an internal destination that the manifest declares (repeatable)",
    )
    _output(parser)


def _conformance(commands: Commands) -> None:
    parser = _command(commands, "conformance", "run the conformance suite against a worker")
    _where(parser)
    parser.add_argument("--junit", metavar="FILE", help="write a JUnit report")
    parser.add_argument(
        "--start", metavar="COMMAND", help="how a worker that is not Python is started"
    )
    _output(parser)


def _health(commands: Commands) -> None:
    parser = _command(commands, "health", "say whether the worker running here is healthy")
    parser.add_argument("worker", metavar="NAME", nargs="?", help="its name (default: any)")
    _output(parser)


def _schema(commands: Commands) -> None:
    parser = _command(commands, "schema", "print the JSON Schemas of the capabilities")
    parser.add_argument("capability", metavar="CAPABILITY", nargs="?", help="only this one")
    parser.add_argument("--worker", metavar="PATH|NAME", help="the worker (default: here)")


def _command(commands: Commands, name: str, what: str, epilog: str = "") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-v", "--verbose", action="count", default=0, help="-vv shows stack traces")
    return parser


def _where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "worker",
        metavar="PATH|NAME",
        nargs="?",
        help="the worker's folder, or its name where it is installed (default: here)",
    )


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", choices=("text", "json"), default="text", help="form of the answer"
    )


class _Version(argparse.Action):
    """Prints the versions and ends; nothing is imported for it before."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        sys.stdout.write(f"hivemesh-sdk {__version__}, protocol {PROTOCOL}\n")
        parser.exit()
