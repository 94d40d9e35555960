"""Measures classification: `python -m worker_email_classifier.measure RECORDS.ndjson`.

RECORDS holds message records, one a line, as `email.parse@1` gives them.
"""

import resource
import sys
import time
from itertools import islice
from pathlib import Path

from worker_email_classifier.classify import Classifier
from worker_email_classifier.model import shipped
from worker_email_classifier.types import BILL, RECEIPT, SPAM, TYPES

BATCH = 500  # records, as the platform cuts them
_CHOICES = (TYPES, (SPAM, BILL, RECEIPT), (SPAM,))


def main(path: Path) -> None:
    """Print the cost of a message for several choices of types, loading, and the memory it took."""
    start = time.process_time()
    classifier = Classifier(shipped())
    print(f"model loaded in {1e3 * (time.process_time() - start):.0f} ms")  # noqa: T201 - a command
    for types in _CHOICES:
        messages, spent = _run(classifier, path, types)
        each = 1e6 * spent / max(1, messages)
        print(f"{messages:,} messages, {each:.0f} us each for {', '.join(types)}")  # noqa: T201 - as above
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"peak {peak} MiB")  # noqa: T201 - as above


def _run(classifier: Classifier, path: Path, types: tuple[str, ...]) -> tuple[int, float]:
    messages, spent = 0, 0.0
    with path.open("rb") as file:
        while batch := list(islice(file, BATCH)):
            start = time.process_time()
            classifier.records(batch, types)
            spent += time.process_time() - start
            messages += len(batch)
    return messages, spent


if __name__ == "__main__":
    main(Path(sys.argv[1]))
