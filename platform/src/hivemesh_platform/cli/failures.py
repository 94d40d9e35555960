"""The boundary of the `hivemesh` command: every error becomes words and an exit code.

The SDK has the words; it is loaded when there is an error, so that a help page does not wait.
"""

import json
import os
import sys
from collections.abc import Callable
from itertools import pairwise

from typer import Abort, Exit

OK, USAGE, INTERRUPTED = 0, 2, 130


def run_guarded(command: Callable[[], object], *, trace: bool = False) -> int:
    """Run the command and answer with its exit code; only with `trace` a stack trace shows."""
    try:
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


def _failed(error: Exception) -> int:
    usage = getattr(error, "format_message", None)
    if usage is not None:
        return _misused(usage())
    from hivemesh_sdk.failures import document_of, show

    return show(document_of(error), as_json=_wants_json())


def _misused(message: str) -> int:
    fix = "add --help to see the usage and examples"
    sys.stderr.write(f"error: {message}\nfix: {fix}\n")
    if _wants_json():
        sys.stdout.write(json.dumps({"title": message, "status": 400, "remedy": fix}) + "\n")
    return USAGE


def _wants_json() -> bool:
    return not {"-ojson", "--output=json"}.isdisjoint(sys.argv) or any(
        word in {"-o", "--output"} and following == "json" for word, following in pairwise(sys.argv)
    )
