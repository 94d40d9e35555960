"""`python -m hivemesh_platform.serve` is the platform's process; `hivemesh up` starts it."""

import gc
import resource
import sys
from collections.abc import Sequence

from hivemesh_platform.omitted import omit_unused


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the platform until a signal ends it; returns the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold keys and lent secrets
    gc.disable()  # until it serves: a start makes little garbage, and looking for it takes a tenth
    omit_unused()
    import hivemesh_sdk.web  # noqa: F401, PLC0415 - after the line above; loads FastAPI without its models

    from hivemesh_platform import server  # noqa: PLC0415 - as above

    return server.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
