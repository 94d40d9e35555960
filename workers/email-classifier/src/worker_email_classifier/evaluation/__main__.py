"""Prints the tables and exits with 1 where a floor does not hold."""

import os
import sys
from pathlib import Path

from worker_email_classifier.threads import one_thread


def main() -> int:
    """Run the evaluation on `$HIVEMESH_TEST_DATA`."""
    root = os.environ.get("HIVEMESH_TEST_DATA")
    if not root:
        sys.stderr.write("set HIVEMESH_TEST_DATA to the folder that holds email/spamassassin\n")
        return 2
    one_thread()
    from worker_email_classifier.evaluation.report import evaluate  # noqa: PLC0415 - after one_thread

    broken = evaluate(Path(root), sys.stdout)
    for floor in broken:
        sys.stderr.write(f"floor does not hold: {floor}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
