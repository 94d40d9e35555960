"""Turns errors into what a person sees: one line, why, the fix, and the exit code of `ux.md`."""

import os
import sys
from collections.abc import Callable
from itertools import pairwise

from typer import Abort, Exit

OK, FAILURE, USAGE, NOT_FOUND, DENIED, CONFLICT, INCOMPLETE, UNAVAILABLE = range(8)
INTERRUPTED = 130

_BY_STATUS = {
    400: USAGE,
    401: DENIED,
    403: DENIED,
    404: NOT_FOUND,
    409: CONFLICT,
    422: USAGE,
    429: UNAVAILABLE,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: INCOMPLETE,
}


def run_guarded(command: Callable[[], object]) -> int:
    """Run the command and answer with its exit code; nothing but `-vv` shows a stack trace."""
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
        if "-vv" in sys.argv:
            raise
        return show(error)
    return result if isinstance(result, int) else OK


def show(error: Exception) -> int:
    """Print an error in words and answer with its exit code."""
    usage = getattr(error, "format_message", None)
    if usage is not None:
        _print(f"error: {usage()}", "fix: add --help to see the usage and examples")
        return USAGE
    # Late: a help page never needs these.
    from hivemesh_sdk.contracts.problems import problem
    from hivemesh_sdk.errors import HivemeshError

    if isinstance(error, HivemeshError):
        document = error.problem()
    elif isinstance(error, OSError) and error.filename:
        document = problem("file-unreadable", f"{error.filename}: {error.strerror}")
    else:
        document = problem("internal", f"{type(error).__name__}: {error}")
    if _wants_json():
        import msgspec

        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    lines = [f"error[{document.code}]: {document.title}"]
    if document.detail:
        lines.append(f"why: {document.detail}")
    lines.extend(f"  at {one.pointer or '/'}: {one.message}" for one in document.errors)
    if document.remedy:
        lines.append(f"fix: {document.remedy}")
    lines.append(f"docs: docs/reference/errors.md#{document.code.lower()}")
    if document.request_id:
        lines.append(f"request: {document.request_id}")
    _print(*lines)
    return _BY_STATUS.get(document.status, FAILURE)


def _wants_json() -> bool:
    words = sys.argv
    return "-ojson" in words or any(
        word in {"-o", "--output"} and following == "json" for word, following in pairwise(words)
    )


def _print(*lines: str) -> None:
    sys.stderr.write("\n".join(lines) + "\n")
