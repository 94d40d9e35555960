"""`dead-letter retry --all` runs all again, page after page, and tells how many stay."""

import pytest
from hivemesh_platform.cli import dead_letter, session
from hivemesh_sdk.client import Client
from hivemesh_sdk.contracts.dead_letter_api import ReplayedView, ReplayView


class Letters(Client):
    """A client of a platform that holds five letters, of which one cannot be run again."""

    def __init__(self):
        self.asked = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def _view(self, kind, method, path, body=None, key=""):
        assert (kind, method, path) == (ReplayedView, "POST", "/v1/dead-letters/retry")
        self.asked.append(body["after"])
        first = int(body["after"].removeprefix("dl_") or 6) - 1
        names = [f"dl_{number}" for number in range(first, max(0, first - 2), -1)]
        items = [ReplayView(letter=one, job="" if one == "dl_3" else f"job_{one}") for one in names]
        return ReplayedView(items=items, next=names[-1] if len(names) == 2 else None)


@pytest.fixture
def letters(monkeypatch):
    found = Letters()
    monkeypatch.setattr(session, "client", lambda _state: found)
    return found


def test_every_page_is_run_again_and_what_stays_is_told(letters, capsys):
    assert dead_letter.retry(None, everything=True) == 6
    assert letters.asked == ["", "dl_4", "dl_2"]
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[1:]] == [
        f"dl_{n}" for n in (5, 4, 3, 2, 1)
    ]
    assert "4 run again, 1 stay" in err
