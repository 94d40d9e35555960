"""Trains on `$HIVEMESH_TEST_DATA` and writes `spam.npz` into this package."""

import hashlib
import os
import sys
from importlib import resources
from pathlib import Path

from worker_email_classifier.threads import one_thread

_SETS = ("email/spamassassin", "email/r-lists")


def main() -> int:
    """Write the model; say its size and digest."""
    root = os.environ.get("HIVEMESH_TEST_DATA")
    if not root:
        sys.stderr.write("set HIVEMESH_TEST_DATA to the folder that holds email/spamassassin\n")
        return 2
    one_thread()
    from worker_email_classifier.training.corpus import digest  # noqa: PLC0415 - after one_thread
    from worker_email_classifier.training.recipe import (  # noqa: PLC0415 - after one_thread
        train,
        training_set,
    )

    header: dict[str, object] = {"data": {name: digest(Path(root), name) for name in _SETS}}
    data = train(training_set(Path(root))).file(header)
    target = Path(str(resources.files("worker_email_classifier"))) / "spam.npz"
    target.write_bytes(data)
    sys.stdout.write(
        f"{target.name}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
