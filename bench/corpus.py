"""Archives to measure with: real mail repeated to the wanted size, dates and senders as they are."""

import mailbox
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "bench" / "scratch"
SAMPLE = ROOT / "platform/src/hivemesh_platform/samples/email/sample.mbox"


def archive(size: int) -> Path:
    """An mbox of at least `size` bytes in bench/scratch, made once."""
    source = _base()
    path = WORK / f"{source.stem}-{size // 1_000_000}.mbox"
    if path.exists() and path.stat().st_size >= size:
        return path
    base = source.read_bytes()
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(base)
    return path


def _base() -> Path:
    data = os.environ.get("HIVEMESH_TEST_DATA", "")
    corpus = Path(data) / "email" / "spamassassin"
    if not data or not corpus.is_dir():
        print("HIVEMESH_TEST_DATA has no email/spamassassin: measuring with the shipped sample")
        return SAMPLE
    path = WORK / "spamassassin.mbox"
    if not path.exists():
        box = mailbox.mbox(path)
        for file in sorted(one for one in corpus.rglob("*") if one.is_file()):
            box.add(file.read_bytes())
        box.close()
    return path
