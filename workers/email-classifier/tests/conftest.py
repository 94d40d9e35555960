"""What the tests share: one loaded classifier, and the test data if it is there."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported; see threads.py
sys.path.insert(0, str(Path(__file__).parent))  # messages.py, whichever configuration is used

from worker_email_classifier.classify import Classifier
from worker_email_classifier.model import shipped


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    return Classifier(shipped())


@pytest.fixture(scope="session")
def archives() -> Path:
    root = os.environ.get("HIVEMESH_TEST_DATA")
    if not root or not (Path(root) / "email" / "spamassassin").is_dir():
        pytest.skip("HIVEMESH_TEST_DATA does not name a folder with email/spamassassin")
    return Path(root)
