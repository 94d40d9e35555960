"""Every command line of `hivemesh` and `hivemesh-worker` in the documentation is one that they take.

Each is parsed by the command's own parser, and not run. What stands in a block of a shell must be whole; in the
text a command may be named without its arguments.
"""

import re
import shlex
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
import typer
from hivemesh_platform.cli import session
from hivemesh_platform.cli.main import build, take_flags
from hivemesh_platform.cli.session import take_remote
from hivemesh_sdk.cli.main import _parser as worker_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "*/README.md",
        "workers/*/README.md",
        "changelog.d/*.md",
    )
    for path in sorted(ROOT.glob(pattern))
]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
SHELLS = {"sh", "bash", "console", ""}
SPAN = re.compile(r"`([^`]+)`")
ENDS = {"|", "||", "&&", ";", "&", "(", ")"}
UNFINISHED_WORKER = "arguments are required"
UNFINISHED = {"MissingParameter", "BadOptionUsage"}  # an option without its value
LEFT_OUT = re.compile(r"^…$|^\[")  # the reader fills it in, or leaves it
EXAMPLES = re.compile(r"Examples?:\s+(.*?)\n\n", re.DOTALL)  # of help pages: lines are wrapped
NEXT = re.compile(r"·|\n +(?=hivemesh )")


@pytest.fixture(autouse=True)
def _no_other_platform(monkeypatch):
    """What `--server` says is remembered for the process."""
    monkeypatch.setattr(session, "_chosen", {})


@cache
def application():
    return typer.main.get_command(build([], everything=True))


def commands(text):
    """The words of each of our commands in a piece of shell."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = ""
        yield from _of_line(_words(lexer))


def _words(lexer):
    found = []
    try:
        for word in lexer:
            if word.startswith("#"):
                break
            found.append(word)
    except ValueError:  # a quote that the next line closes
        pass
    return found


def _of_line(words):
    one = []
    for word in [*words, ";"]:
        if word not in ENDS:
            one.append(word)
            continue
        while one and re.fullmatch(r"\w+=.*|exec|platform|\$", one[0], re.DOTALL):
            del one[0]
        if one and (tool := one[0].rpartition("/")[2]) in PARSERS:
            yield [tool, *_without_files(one[1:])]
        one = []


def _without_files(words):
    """Without what a shell does with input and output."""
    found, left = [], iter(words)
    for word in left:
        if word in {">", ">>", "<", "2>"}:
            next(left, None)
        else:
            found.append(word)
    return found


def refused(words, *, whole):
    """Why the command would not take the words, or nothing; as a whole line or as it is named in the text."""
    tool, *rest = words
    return PARSERS[tool](rest, whole=whole)


def _of_worker(words, *, whole):
    told = StringIO()
    with redirect_stdout(StringIO()), redirect_stderr(told), suppress(SystemExit):
        worker_parser().parse_args(words)
    return "" if not whole and UNFINISHED_WORKER in told.getvalue() else told.getvalue()


def _of_platform(words, *, whole):
    words, _ = take_flags(take_remote(words))
    command = application()
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands") and not words:
        return ""  # the group itself, or `hivemesh` in a picture
    try:
        command.make_context("hivemesh", list(words))
    except typer.Exit:  # it has shown a page
        return ""
    except Exception as error:
        told = getattr(error, "format_message", None)
        if told is None:
            raise
        return "" if not whole and type(error).__name__ in UNFINISHED else told()
    if hasattr(command, "commands") and not words[0].startswith("-"):
        return f"there is no {words[0]!r}"
    return ""


PARSERS = {"hivemesh": _of_platform, "hivemesh-worker": _of_worker}


def lines(page):
    """The words of each command of a page, and whether it is whole."""
    text = page.read_text()
    if page.name == "cli.md":
        for some in EXAMPLES.findall(text):
            for one in NEXT.split(some):
                yield from ((words, True) for words in commands(" ".join(one.split())))
        return
    for block in BLOCK.finditer(text):
        if block[2] in SHELLS:
            yield from ((words, True) for words in commands(block[3]))
    for span in SPAN.findall(BLOCK.sub("", text)):
        yield from ((words, False) for words in commands(span.replace("\n", " ")))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_command_takes_what_is_written(page):
    wrong = [
        f"{shlex.join(words)}: {why}"
        for words, whole in lines(page)
        if not any(LEFT_OUT.search(word) for word in words)
        if (why := refused(words, whole=whole))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("hivemesh run lst", "there is no 'lst'"),
        ("hivemesh nothing", "there is no 'nothing'"),
        ("echo a | TOKEN=b .venv/bin/hivemesh run list --nope > file", "No such option: --nope"),
        ("hivemesh run show && hivemesh status", "Missing argument"),
        ("hivemesh run show a b  # both", "Got unexpected extra argument"),
        ("hivemesh audit list --limit many", "Invalid value"),
        ("hivemesh run show a --state folder --quiet > file  # --nope", ""),
        ("hivemesh --version; cat hivemesh", ""),
        ("hivemesh-worker call a@1 --with b=c --nope", "error: unrecognized arguments: --nope"),
        ("hivemesh-worker call --with b=c", "error: the following arguments are required"),
        ("hivemesh-worker call a@1 --with b=c", ""),
    ],
)
def test_what_the_command_would_not_take_is_found(line, why):
    told = [found for words in commands(line) if (found := refused(words, whole=True))]
    assert len(told) == bool(why)
    assert all(one.startswith(why) for one in told)
