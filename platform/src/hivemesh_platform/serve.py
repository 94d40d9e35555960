"""`python -m hivemesh_platform.serve` is the platform's process; `hivemesh up` starts it."""

import sys

from hivemesh_platform.server import main

if __name__ == "__main__":
    sys.exit(main())
