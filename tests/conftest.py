"""What all tests of the checkout need of the process that they run in."""

import gc
import signal

import pytest
from structlog.dev import ConsoleRenderer, plain_traceback

LONGEST = (  # these files begin, so that no process ends long after the others
    *("execution/test_crash.py", "supervisor/test_supervision.py", "lifecycle/test_process.py"),
    *("execution/test_recovery.py", "serve/test_process.py", "worker/test_executors.py"),
    *("execution/test_failures.py", "storage/test_postgres.py", "execution/test_engine.py"),
    *("docs/test_sdk_readme.py", "serve/test_revocation.py", "supervisor/test_isolation.py"),
    *("execution/test_unplaced.py", "serve/test_membership.py", "execution/test_pipeline.py"),
    *("execution/test_graphs.py", "cli/test_commands.py", "architecture/test_raw_forms.py"),
)

# A shell starts a background job with Ctrl-C ignored, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Thousands of tests are kept until the end; looking for garbage among them takes a sixth of the time.
gc.set_threshold(20_000, 20, 20)

# What a test provokes is logged: a coloured traceback with the values in it takes seconds.
ConsoleRenderer.get_active().exception_formatter = plain_traceback


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get("/".join(item.path.parts[-2:]), len(places)))


def pytest_collection_finish() -> None:
    """Look for no garbage among what was collected: it stays until the end."""
    gc.freeze()
