"""The boundary of the `hivemesh` command: every error becomes words and an exit code.

The SDK has the words; it is loaded when there is an error, so that a help page does not wait.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from itertools import pairwise

from typer import Abort, Exit

OK, USAGE, INTERRUPTED, UNREAD = 0, 2, 130, 141


def run_guarded(
    command: Callable[[], object],
    words: Sequence[str] = (),
    *,
    trace: bool = False,
    quiet: bool = False,
) -> int:
    """Run the command of these words and answer with its exit code.

    Only with `trace` a stack trace shows; with `quiet` nothing but the error, if there is one.
    """
    try:
        with _silent() if quiet else nullcontext():
            result = command()
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written is known here, not when the process ends
    except Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, Abort):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        return _unread(error)
    except Exception as error:
        if trace:
            raise
        return _failed(error, words)
    return result if isinstance(result, int) else OK


@contextmanager
def _silent() -> Iterator[None]:
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):  # noqa: PTH123 - quicker than pathlib
        yield


def _unread(error: BrokenPipeError | SystemExit) -> int:
    """End as a tool that SIGPIPE ends: the reader, such as `head`, has seen enough.

    Raises:
        SystemExit: it has another cause; the command line's library makes one of a broken pipe too.
    """
    if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
        raise error
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
    return UNREAD


def _failed(error: Exception, words: Sequence[str]) -> int:
    usage = getattr(error, "format_message", None)
    if usage is not None:
        return _misused(usage())
    from hivemesh_sdk.failures import document_of, show

    from hivemesh_platform.cli.near import with_near

    return show(with_near(document_of(error), words), as_json=_wants_json())


def _misused(message: str) -> int:
    from hivemesh_sdk.contracts.problems import problem
    from hivemesh_sdk.failures import show

    said = message.replace("Value error, ", "")  # the word of the library that checks values
    return show(problem("command-misused", said), as_json=_wants_json())


def _wants_json() -> bool:
    return not {"-ojson", "--output=json"}.isdisjoint(sys.argv) or any(
        word in {"-o", "--output"} and following == "json" for word, following in pairwise(sys.argv)
    )
