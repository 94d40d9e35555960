"""A platform as a process of its own, for tests that kill it; workers run in the tests' environment.

Run it as `python killable_platform.py --state FOLDER --set key=value …`.
"""

import sys
from pathlib import Path

from hivemesh_platform import serve
from hivemesh_platform.supervisor.environment import EnvironmentBuilder, Recipe


async def of_the_tests(_self: EnvironmentBuilder, _recipe: Recipe, _log: Path) -> Path:
    """Stands for the building of an environment."""
    return Path(sys.executable)


if __name__ == "__main__":
    EnvironmentBuilder.build = of_the_tests
    sys.exit(serve.main())
