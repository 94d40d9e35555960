"""`hivemesh completion`: what makes a shell complete commands, options and names."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hivemesh_platform.cli import output

app = typer.Typer(no_args_is_help=True)

Shell = Annotated[
    Literal["bash", "zsh", "fish"] | None, typer.Argument(help="Default: the shell of $SHELL.")
]
SHELLS = ("bash", "zsh", "fish")
# Commands whose argument is not of the kind that their group is about.
KINDS = {
    "worker call": "capability",
    "job submit": "capability",
    "pipeline validate": "a file",
    "pipeline store": "a file",
}


@app.command()
def install(shell: Shell = None, fmt: output.Format = "table") -> None:
    """Write the completion script where the shell looks for it.

    Example:  hivemesh completion install bash   (undo: delete the file that it names)
    """
    name = shell or _current_shell()
    target = _target(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(script(name))
    if fmt in {"json", "yaml"}:
        output.show_document({"shell": name, "file": str(target)}, fmt)
    else:
        typer.echo(f"{target} written; it is in force in the next {name} (undo: rm {target})")


@app.command("show")
def show_(shell: Shell = None) -> None:
    """Print the completion script.

    Example:  hivemesh completion show zsh
    """
    typer.echo(script(shell or _current_shell()), nl=False)


@app.command("words", hidden=True)
def words_(line: Annotated[list[str], typer.Argument()], state: Path | None = None) -> None:
    """Print what may stand in the place of the last word of a command line, for the scripts."""
    *before, current = line
    command, path = _command_of(before)
    found: Sequence[str]
    if current.startswith("-"):
        found = [name for one in command.params for name in one.opts if name.startswith("--")]
    elif hasattr(command, "commands"):
        found = [name for name, one in command.commands.items() if not one.hidden]
    elif any(one.param_type_name == "argument" for one in command.params):
        found = _values_of(path, state)
    else:
        found = ()
    for word in found:
        typer.echo(word)


def _command_of(line: Sequence[str]) -> "tuple[Any, str]":  # typer has no one type of commands
    """The command that a line names, as far as it does, and its words."""
    from hivemesh_platform.cli.main import build

    command: Any = typer.main.get_command(build(line))
    path: list[str] = []
    for word in line:
        inner = getattr(command, "commands", {}).get(word)
        if inner is not None:
            command = inner
            path.append(word)
    return command, " ".join(path)


def _values_of(path: str, state: Path | None) -> Sequence[str]:
    """The names of the objects that a command works on."""
    from hivemesh_sdk.errors import HivemeshError

    from hivemesh_platform.cli import session
    from hivemesh_platform.cli.near import NAMES

    group = path.rpartition(" ")[0]
    if group == "completion":
        return SHELLS
    kind = KINDS.get(path, group)
    if kind not in NAMES:
        return ()
    try:
        with session.client(state, timeout_s=2) as client:
            return NAMES[kind](client)
    except HivemeshError:
        return ()  # a completion never complains


def script(shell: str) -> str:
    """The completion script of a shell, made from the commands themselves."""
    body = _fish(command_words()) if shell == "fish" else _bash(command_words())
    return (
        f"#compdef hivemesh\nautoload -U +X bashcompinit && bashcompinit\n{body}"
        if shell == "zsh"
        else body
    )


def command_words() -> dict[str, list[str]]:
    """Each command with its subcommands, in the order of the help page."""
    from hivemesh_platform.cli.main import COMMANDS, GROUPS, build

    application = build([], everything=True)
    words: dict[str, list[str]] = {name: [] for name in COMMANDS}
    for group in application.registered_groups:
        if group.name in GROUPS and group.typer_instance is not None:
            words[group.name] = [
                command.name or (command.callback.__name__ if command.callback else "")
                for command in group.typer_instance.registered_commands
                if not command.hidden
            ] + [str(one.name) for one in group.typer_instance.registered_groups]
    return words


def command_lines() -> list[list[str]]:
    """Every command that can be run, as its words."""
    from hivemesh_platform.cli.main import COMMANDS, build

    lines = [[name] for name in COMMANDS]
    for group in build([], everything=True).registered_groups:
        if group.typer_instance is not None and group.name is not None:
            lines += [[group.name, *rest] for rest in _below(group.typer_instance)]
    return lines


def _below(group: typer.Typer) -> list[list[str]]:
    lines = [
        [command.name or (command.callback.__name__ if command.callback else "")]
        for command in group.registered_commands
        if not command.hidden
    ]
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            lines += [[str(inner.name), *rest] for rest in _below(inner.typer_instance)]
    return lines


def _bash(words: dict[str, list[str]]) -> str:
    cases = "\n".join(
        f'    {name}) words="{" ".join(verbs)}" ;;' for name, verbs in words.items() if verbs
    )
    return f"""_hivemesh() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{" ".join(words)}"
  elif [ "$COMP_CWORD" -eq 2 ]; then
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
  else
    words="$(hivemesh completion words -- "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2>/dev/null)"
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -F _hivemesh hivemesh
"""


def _fish(words: dict[str, list[str]]) -> str:
    lines = [f"complete -c hivemesh -n __fish_use_subcommand -a '{' '.join(words)}'"]
    for name, verbs in words.items():
        if verbs:
            lines.append(
                f"complete -c hivemesh -n '__fish_seen_subcommand_from {name}' -a '{' '.join(verbs)}'"
            )
    lines.append(
        "complete -c hivemesh -n 'test (count (commandline -opc)) -ge 3' "
        "-a '(hivemesh completion words -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'"
    )
    return "\n".join(lines) + "\n"


def _current_shell() -> str:
    name = Path(os.environ.get("SHELL", "bash")).name
    return name if name in SHELLS else "bash"


def _target(shell: str) -> Path:
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return {
        "bash": data / "bash-completion/completions/hivemesh",
        "zsh": data / "zsh/site-functions/_hivemesh",
        "fish": config / "fish/completions/hivemesh.fish",
    }[shell]
