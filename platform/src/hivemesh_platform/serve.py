"""`python -m hivemesh_platform.serve` is the platform's process; `hivemesh up` starts it."""

import resource
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the platform until a signal ends it; returns the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold keys and lent secrets
    # structlog loads rich for tracebacks on a terminal; this process writes JSON to a file, and
    # saves 4 MiB and 60 ms (`hivemesh up` has 120 MiB and 3 s).
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None stands for "not there"
    from hivemesh_platform import server  # noqa: PLC0415 - after the line above

    return server.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
