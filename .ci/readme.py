"""Runs the README's commands in a fresh clone with an empty HOME, as a new user would.

A block is run when the line before its fence says `<!-- run -->`.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"<!-- run -->\n```(?:sh|bash|console)\n(.*?)```", re.DOTALL)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="clone-") as folder:
        clone, home = Path(folder) / "clone", Path(folder) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        environment = {**os.environ, "HOME": str(home)}
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
            environment.pop(name, None)
        for block in BLOCK.findall((clone / "README.md").read_text()):
            print(f"--- {block.strip()}", flush=True)
            command = ["bash", "-euo", "pipefail", "-c", block]
            if subprocess.run(command, cwd=clone, env=environment, check=False).returncode:
                print(f"failed: {block}")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
