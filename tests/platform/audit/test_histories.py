"""Whatever happens to a trail in whatever order, nothing acknowledged is lost and all of it verifies."""

import errno
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from audit_support import Place, event
from hivemesh_platform.audit import segments as files
from hivemesh_platform.audit.errors import AuditUnavailableError
from hivemesh_platform.audit.segments import segments
from hypothesis import given, settings
from hypothesis import strategies as st

BOUNDS = {"segment_bytes": 2500, "checkpoint_records": 4}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(1, 6)),
        st.tuples(st.just("note"), st.integers(1, 4)),
        st.tuples(st.just("fail"), st.integers(0, 300)),
        st.tuples(st.just("torn"), st.integers(0, 300)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("later"), st.integers(1, 40)),
        st.tuples(st.just("drop"), st.integers(1, 40)),
    ),
    max_size=25,
)


class History:
    """A trail, and what it has acknowledged."""

    def __init__(self, place):
        self.place = place
        self.acknowledged = set()
        self.dropped = set()
        self.number = 0

    def next_event(self):
        self.number += 1
        return event(self.number)

    async def lived(self, trail, steps):
        """Do the steps up to the next restart; returns the rest."""
        for at, (what, number) in enumerate(steps):
            if what in {"restart", "torn"}:
                return steps[at:]
            await getattr(self, f"_{what}")(trail, number)
        return []

    async def _record(self, trail, number):
        for _ in range(number):
            one = self.next_event()
            await trail.record(one)
            self.acknowledged.add(one.target)

    async def _note(self, trail, number):
        for _ in range(number):
            trail.note(self.next_event())

    async def _fail(self, trail, number):
        """The next write gets so many bytes, and they cannot be taken back."""
        real, cut = files.os.write, files.os.ftruncate

        def write(descriptor, data):
            if len(data) <= number:
                return real(descriptor, data)
            real(descriptor, data[:number])
            raise OSError(errno.EIO, "broken")

        def refuse(*_):
            raise OSError(errno.EIO, "broken")

        files.os.write, files.os.ftruncate = write, refuse
        try:
            with suppress(AuditUnavailableError):
                await self._record(trail, 1)
        finally:
            files.os.write, files.os.ftruncate = real, cut

    async def _later(self, trail, number):
        self.place.clock.advance(timedelta(days=number))

    async def _drop(self, trail, number):
        for head in await trail.drop_before(timedelta(days=number)):
            self.dropped |= set(range(head.first, head.last + 1))

    def tear(self, number):
        known = segments(self.place.folder)
        if known and not known[-1].dropped:
            with known[-1].path.open("ab") as file:
                file.write(b'{"action":"run:pipeline","actor":"%b' % (b"x" * number))


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
async def test_a_trail_outlives_its_history(steps):
    with tempfile.TemporaryDirectory() as folder:
        history = History(Place(Path(folder)))
        rest = steps
        while True:
            async with history.place.open(**BOUNDS) as trail:
                rest = await history.lived(trail, rest)
            report = history.place.verify()
            assert report.finding is None, report
            if not rest:
                break
            (what, number), *rest = rest
            if what == "torn":
                history.tear(number)
        found = history.place.records()
        assert [one.seq for one in found] == list(
            range(report.dropped + 1, report.dropped + len(found) + 1)
        )
        left = {one.object for one in found}
        gone = history.acknowledged - left
        assert len(gone) <= len(history.dropped)
        if not history.dropped:
            assert not gone
