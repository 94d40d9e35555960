"""Entry of the `hivemesh` command: which command lives in which module, loaded when it is asked for.

A help page must not wait for modules that it does not need, so only the named group is imported.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

import typer

from hivemesh_platform.cli import asking
from hivemesh_platform.cli.failures import run_guarded
from hivemesh_platform.cli.session import take_remote

# name -> (module, help); `EXAMPLES` has what its help page ends with; the attribute `app` of the module is a Typer
GROUPS = {
    "worker": ("hivemesh_platform.cli.worker", "Workers: list, show, logs, call, scale, restart."),
    "capability": ("hivemesh_platform.cli.capability", "Capabilities and their schemas."),
    "pipeline": ("hivemesh_platform.cli.pipeline", "Pipelines: list, validate, store, run."),
    "policy": ("hivemesh_platform.cli.policy", "Who may call what: show, test, apply, explain."),
    "job": ("hivemesh_platform.cli.job", "Jobs: submit, list, show, watch, cancel, retry, types."),
    "run": ("hivemesh_platform.cli.run", "Runs: list, show, watch, cancel, output, explain."),
    "dead-letter": (
        "hivemesh_platform.cli.dead_letter",
        "Inputs that were given up: list, show, retry, edit, discard.",
    ),
    "limit": ("hivemesh_platform.cli.limit", "Limits and rates: list, set, unset."),
    "retention": ("hivemesh_platform.cli.retention", "What has ended: how long it is kept; run."),
    "dataset": ("hivemesh_platform.cli.dataset", "Datasets: list, show, export."),
    "artifact": ("hivemesh_platform.cli.artifact", "Artifacts: put and get bytes."),
    "secret": ("hivemesh_platform.cli.secret", "Secrets: set, get, list, rotate, delete."),
    "auth": ("hivemesh_platform.cli.auth", "Who may do what: can, explain, grant, roles, groups."),
    "token": ("hivemesh_platform.cli.token", "API tokens: create, list, revoke."),
    "audit": (
        "hivemesh_platform.cli.audit",
        "Audit trail: list, verify, export, hash.",
    ),
    "ca": ("hivemesh_platform.cli.ca", "The authority: status, rotate, export-root."),
    "replica": ("hivemesh_platform.cli.replica", "Replicas of the platform: list."),
    "config": (
        "hivemesh_platform.cli.config",
        "Settings: show each value and its origin, validate.",
    ),
    "state": ("hivemesh_platform.cli.state", "The state folder: show its version, upgrade it."),
    "completion": ("hivemesh_platform.cli.completion", "Shell completion: install or print it."),
    "demo": ("hivemesh_platform.cli.demo", "Demonstrations on shipped data: email."),
}
EXAMPLES = {
    "worker": "hivemesh worker list · hivemesh worker logs email-parser -n 20",
    "capability": "hivemesh capability list · hivemesh capability show email.classify@1 -o yaml",
    "pipeline": "hivemesh pipeline run email-insights -p archive=@mail.mbox",
    "policy": "hivemesh policy explain parser classifier email.classify@1",
    "job": "hivemesh job types · hivemesh job submit email.classify@1 -i mail.json --wait",
    "run": "hivemesh run list · hivemesh run show RUN_ID",
    "dead-letter": "hivemesh dead-letter list · hivemesh dead-letter retry --all",
    "limit": "hivemesh limit set key:customer-7 --running 2 · hivemesh limit list",
    "retention": "hivemesh retention show · hivemesh retention run --dry-run",
    "dataset": "hivemesh dataset export email-insights.messages --as csv --file mail.csv",
    "artifact": "hivemesh artifact put mail.mbox",
    "secret": "hivemesh secret set mail.password --file password.txt · hivemesh secret list",
    "auth": "hivemesh auth grant anna analyst · hivemesh auth can anna write dataset/sales",
    "token": "hivemesh token create --name ci --role analyst --ttl 30d > ci.token",
    "audit": "hivemesh audit list --since 1h --decision deny · hivemesh audit verify",
    "ca": "hivemesh ca status · hivemesh ca rotate --root",
    "replica": "hivemesh replica list",
    "config": "hivemesh config show --origin",
    "state": "hivemesh state show",
    "completion": "hivemesh completion install bash",
    "demo": "hivemesh demo email --mbox ~/mail.mbox",
}
# name -> (module, attribute): commands without a group
COMMANDS = {
    "up": ("hivemesh_platform.cli.lifecycle", "up", "Start the platform and its workers."),
    "down": ("hivemesh_platform.cli.lifecycle", "down", "Stop them; --purge removes the state."),
    "serve": ("hivemesh_platform.cli.lifecycle", "serve", "Run the platform in this process."),
    "init": ("hivemesh_platform.cli.init", "init", "Make the CA and credentials for containers."),
    "status": ("hivemesh_platform.cli.status", "status", "The installation at a glance."),
    "health": ("hivemesh_platform.cli.status", "health", "Exit 0 when the platform is ready."),
    "whoami": ("hivemesh_platform.cli.whoami", "whoami", "Who you are and what you may do."),
    "doctor": ("hivemesh_platform.cli.doctor", "doctor", "Find what is wrong and how to mend it."),
    "help": ("hivemesh_platform.cli.help", "help_", "Explain a command, a topic or an error code."),
}
# Anywhere on the command line, before `--`.
TRACE, NO_COLOR = "-vv", "--no-color"
QUIET = {"--quiet", "-q"}
EPILOG = "First steps: hivemesh up -d · hivemesh demo email · hivemesh status · hivemesh down. "
EPILOG += (
    "Anywhere: --quiet (nothing but data and errors), --no-color (or NO_COLOR), --no-input (asks "
)
EPILOG += "nothing: what needs an answer then needs --yes), -vv (an error shows its stack trace). "
EPILOG += "Another machine's platform: --server https://HOST:PORT --token-file FILE --ca-file FILE "
EPILOG += "anywhere, or HIVEMESH_SERVER, HIVEMESH_TOKEN and HIVEMESH_CA_FILE."


def main() -> None:
    """Run the command line of this process."""
    words, flags = take_flags(take_remote(sys.argv[1:]))
    if NO_COLOR in flags:
        os.environ["NO_COLOR"] = "1"
    if asking.NO_INPUT in flags:
        asking.forbid()
    if not words or (len(words) == 1 and words[0] in GROUPS):
        words.append("--help")  # nothing was asked for: that is a question, not a mistake
    command = lambda: build(words)(words, prog_name="hivemesh", standalone_mode=False)  # noqa: E731
    quiet = not QUIET.isdisjoint(flags)
    sys.exit(run_guarded(command, words, trace=TRACE in flags, quiet=quiet))


def take_flags(words: Sequence[str]) -> tuple[list[str], set[str]]:
    """Split the flags that may stand anywhere from the command line; behind `--` all are words."""
    end = words.index("--") if "--" in words else len(words)
    flags = {*words[:end]} & {TRACE, NO_COLOR, asking.NO_INPUT, *QUIET}
    return [word for word in words[:end] if word not in flags] + list(words[end:]), flags


def build(arguments: Sequence[str], *, everything: bool = False) -> typer.Typer:
    """Make the application with the named group or command loaded, the others by name only."""
    app = typer.Typer(
        help="Hivemesh: one secure data-processing system out of independent workers.",
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    wanted = next((word for word in arguments if not word.startswith("-")), "")
    for name, (module, attribute, text) in COMMANDS.items():
        loaded = getattr(_load(module), attribute) if everything or name == wanted else _nothing
        app.command(name, help=loaded.__doc__ if loaded is not _nothing else text, short_help=text)(
            loaded
        )
    for name, (module, text) in GROUPS.items():
        group = _load(module).app if everything or name == wanted else typer.Typer()
        if not group.registered_commands:
            group.command("…")(_nothing)
        group.rich_markup_mode = None
        app.add_typer(group, name=name, help=text, epilog=f"Examples:  {EXAMPLES[name]}")
    return app


def _load(module: str) -> ModuleType:
    return importlib.import_module(module)


def _nothing() -> None:
    """Stand in for a command that was not asked for."""


def _version(wanted: bool) -> None:
    if wanted:
        from hivemesh_platform.cli.version import text

        typer.echo(text())
        raise typer.Exit


def _root(
    *,
    version: bool = typer.Option(
        False,
        "--version",
        callback=_version,
        is_eager=True,
        help="Print the versions of platform, SDK, API and protocol.",
    ),
) -> None:
    """Hivemesh: one secure data-processing system out of independent workers."""
