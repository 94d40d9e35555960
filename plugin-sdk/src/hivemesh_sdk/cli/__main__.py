"""`python -m hivemesh_sdk.cli` is `hivemesh-worker`."""

import sys

from hivemesh_sdk.cli.main import main

sys.exit(main())
