"""Runs the commands of README and tutorial in a fresh clone with an empty HOME, as a new user would.

A block is run when the line before its fence says `<!-- run -->`, and written to a file when it says
`<!-- file: PATH -->`; `<!-- run: COMMAND -->` alone is a command that readers do not need. The README's
blocks are run each in a shell of its own, those of the tutorial one after the other in one.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"<!-- run -->\n```(?:sh|bash|console)\n(.*?)```", re.DOTALL)
STEP = re.compile(
    r"<!-- run: (?P<command>.*?) -->|<!-- (?:run|file: (?P<file>\S+)) -->\n```\w+\n(?P<block>.*?)```",
    re.DOTALL,
)
LONGEST_S = 900


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="clone-") as folder:
        clone, home = Path(folder) / "clone", Path(folder) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        environment = {**os.environ, "HOME": str(home)}
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
            environment.pop(name, None)
        blocks = BLOCK.findall((clone / "README.md").read_text())
        for block in [*blocks, script((clone / "docs" / "tutorial.md").read_text())]:
            print(f"--- {block.strip()}", flush=True)
            command = ["timeout", str(LONGEST_S), "bash", "-euo", "pipefail", "-c", block]
            if subprocess.run(command, cwd=clone, env=environment, check=False).returncode:
                print(f"failed: {block}")
                return 1
    return 0


def script(page: str) -> str:
    """All steps of a page, in one shell that leaves no platform behind."""
    steps = ['root="$PWD"', """trap 'cd "$root" && .venv/bin/hivemesh down' EXIT"""]
    for step in STEP.finditer(page):
        if step["file"]:
            steps.append(f'printf %s {shlex.quote(step["block"])} > "$root"/{step["file"]}')
        else:
            steps.append((step["command"] or step["block"]).strip())
    return "\n".join(steps)


if __name__ == "__main__":
    sys.exit(main())
