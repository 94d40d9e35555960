"""The boundary of the `hivemesh` command: every error becomes words and an exit code.

The SDK has the words; it is loaded when there is an error, so that a help page does not wait.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from itertools import pairwise

from typer import Abort, Exit

OK, USAGE, INTERRUPTED = 0, 2, 130


def run_guarded(command: Callable[[], object], *, trace: bool = False, quiet: bool = False) -> int:
    """Run the command and answer with its exit code.

    Only with `trace` a stack trace shows; with `quiet` nothing but the error, if there is one.
    """
    try:
        with _silent() if quiet else nullcontext():
            result = command()
    except Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, Abort):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: be quiet
        return OK
    except Exception as error:
        if trace:
            raise
        return _failed(error)
    return result if isinstance(result, int) else OK


@contextmanager
def _silent() -> Iterator[None]:
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):  # noqa: PTH123 - quicker than pathlib
        yield


def _failed(error: Exception) -> int:
    usage = getattr(error, "format_message", None)
    if usage is not None:
        return _misused(usage())
    from hivemesh_sdk.failures import document_of, show

    return show(document_of(error), as_json=_wants_json())


def _misused(message: str) -> int:
    from hivemesh_sdk.contracts.problems import problem
    from hivemesh_sdk.failures import show

    return show(problem("command-misused", message), as_json=_wants_json())


def _wants_json() -> bool:
    return not {"-ojson", "--output=json"}.isdisjoint(sys.argv) or any(
        word in {"-o", "--output"} and following == "json" for word, following in pairwise(sys.argv)
    )
