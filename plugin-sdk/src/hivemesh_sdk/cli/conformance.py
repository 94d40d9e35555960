"""`hivemesh-worker conformance`: runs the suite against a worker and prints numbered results."""

import argparse
import importlib.util
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.failures import FAILURE, OK, UNREAD
from hivemesh_sdk.lifecycle.location import locate

if TYPE_CHECKING:
    import pytest

OWN_TEST = Path("tests") / "test_conformance.py"
_SIGNS = {"passed": "✓", "skipped": "-", "failed": "✗"}


def run(options: argparse.Namespace) -> int:
    """Run the suite; a test that does not apply to the worker is skipped with its reason."""
    if importlib.util.find_spec("pytest") is None:
        remedy = "in a checkout: make install; elsewhere: pip install 'hivemesh-sdk[testing]'"
        message = "the suite needs pytest, which is not installed here"
        raise ConfigurationError(message, slug="command-misused", remedy=remedy)
    folder = locate(options.worker).folder
    command = shlex.split(options.start) if options.start else None
    reporter = _Reporter(folder, command, as_json=options.output == "json")
    return _run_pytest(reporter, options.junit)


@dataclass(slots=True)
class Result:
    """One rule and whether the worker keeps it."""

    number: int
    rule: str
    outcome: str = ""
    detail: str = ""


class _Reporter:
    """A plugin of pytest that stands in the place of its terminal."""

    def __init__(self, folder: Path, command: Sequence[str] | None, *, as_json: bool) -> None:
        self.folder = folder
        self.command = command
        self.as_json = as_json
        self._results: dict[str, Result] = {}
        self.unread = False  # the reader of the output has gone

    def say(self, text: str) -> None:
        """Print at once; an error here would be one of pytest."""
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            self.unread = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @property
    def results(self) -> list[Result]:
        """What was found, in order."""
        return list(self._results.values())

    @property
    def failed(self) -> bool:
        """Whether a rule is broken, or nothing could be tested."""
        return not self._results or any(one.outcome == "failed" for one in self.results)

    def pytest_configure(self, config: "pytest.Config") -> None:
        """Tell the suite what to start."""
        from hivemesh_sdk.testing import suite  # noqa: PLC0415 - only once pytest runs

        config.stash[suite.FOLDER] = self.folder
        config.stash[suite.COMMAND] = self.command

    def pytest_collection_finish(self, session: "pytest.Session") -> None:
        """Number the tests."""
        for number, item in enumerate(session.items, 1):
            rule = item.name.removeprefix("test_").replace("_", " ").replace("[", ": ").rstrip("]")
            self._results[item.nodeid] = Result(number, rule)

    def pytest_runtest_logreport(self, report: "pytest.TestReport") -> None:
        """Note the worst outcome of set-up, test and tear-down."""
        result = self._results[report.nodeid]
        if report.outcome != "passed" and result.outcome != "failed":
            result.outcome = report.outcome
            result.detail = _reason(report)
        elif report.when == "call" and not result.outcome:
            result.outcome = "passed"
        if report.when == "teardown" and not self.as_json:
            self.say(_text(result))

    def pytest_collectreport(self, report: "pytest.CollectReport") -> None:
        """A suite that cannot be collected is a failure of its own."""
        if report.failed:
            number = len(self._results) + 1
            result = Result(number, f"{report.nodeid} is collected", "failed", str(report.longrepr))
            self._results[report.nodeid] = result
            if not self.as_json:
                self.say(_text(result))


def _run_pytest(reporter: _Reporter, junit: str | None) -> int:
    import pytest  # noqa: PLC0415 - an extra

    arguments = [
        _target(reporter),
        "-c/dev/null",  # the worker's own settings of pytest may ask for plugins it has not here
        f"--rootdir={reporter.folder}",
        "--import-mode=importlib",
        *("-p" + name for name in ("no:terminal", "no:cacheprovider", "no:randomly", "no:asyncio")),
    ]
    if junit is not None:
        arguments.append(f"--junitxml={Path(junit).resolve()}")
    pytest.main(arguments, plugins=[reporter])
    counts = dict.fromkeys(_SIGNS, 0)
    for result in reporter.results:
        counts[result.outcome or "skipped"] += 1
    if reporter.as_json:
        _print_json(reporter, counts)
    else:
        shown = ", ".join(f"{count} {name}" for name, count in counts.items())
        reporter.say(f"{reporter.folder.name}: {shown}\n")
    if reporter.unread:
        return UNREAD
    return FAILURE if reporter.failed else OK


def _target(reporter: _Reporter) -> str:
    own = reporter.folder / OWN_TEST
    if own.is_file() and reporter.command is None:
        return str(own)
    suite = importlib.util.find_spec("hivemesh_sdk.testing.suite")
    return str(suite.origin if suite else "")


def _print_json(reporter: _Reporter, counts: dict[str, int]) -> None:
    document = {"worker": reporter.folder.name, **counts, "results": reporter.results}
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")


def _reason(report: "pytest.TestReport") -> str:
    if isinstance(report.longrepr, tuple):  # skipped: file, line, reason
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def _text(result: Result) -> str:
    line = f"{result.number:3} {_SIGNS[result.outcome or 'skipped']} {result.rule}"
    if result.outcome == "skipped":
        return f"{line} ({result.detail})\n"
    if result.outcome == "failed":
        indented = "\n".join(f"      {one}" for one in result.detail.splitlines())
        return f"{line}\n{indented}\n"
    return f"{line}\n"
