"""What every way to lead keeps: one at a time, epochs that rise. Inherit it and give a `database`."""

import asyncio

from hivemesh_platform.replicas.model import SILENT_BEATS
from replica_support import TRUST, WORK, joined, replica, ticks


async def take(one):
    """Fence the replicas that are to be taken over; returns the names of those that were."""
    async with asyncio.timeout(30):
        gone = await one.gone()
    return [
        found.id
        for found in gone
        if await one._database.write(lambda tx, found=found: one.fence(tx, found))
    ]


async def leadership(one):
    return (await one.present()).leaders[TRUST]


class LeaderConformance:
    """Leadership by rows, of replicas that beat."""

    async def test_one_leads_and_leadership_moves_from_the_dead(self, database):
        a, b = await joined(database, "a", "b")
        assert [one.leads(TRUST) for one in (a, b)] == [True, False]
        before = await leadership(b)
        await ticks(SILENT_BEATS, b)
        await take(b)
        await ticks(1, b)
        assert b.leads(TRUST)
        assert (await leadership(b)).epoch == before.epoch + 1

    async def test_of_many_that_come_at_once_one_leads_in_each_thing(self, database):
        found = [replica(database, name) for name in "abcd"]
        await asyncio.gather(*(one.join() for one in found))
        await asyncio.gather(*(one.tick() for one in found))
        for name in (TRUST, WORK):
            assert [one.leads(name) for one in found].count(True) == 1
        assert (await leadership(found[0])).epoch == 1

    async def test_of_many_that_see_a_leader_gone_one_follows(self, database):
        a, *others = await joined(database, "a", "b", "c", "d")
        await a.leave()
        await asyncio.gather(*(one.tick() for one in others))
        await ticks(1, *others)
        assert [one.leads(TRUST) for one in others].count(True) == 1
        assert (await leadership(others[0])).epoch == 2

    async def test_who_was_declared_dead_leads_no_longer_when_it_wakes(self, database):
        a, b = await joined(database, "a", "b")
        await ticks(SILENT_BEATS, b)
        await take(b)
        await ticks(1, b, a)
        assert not a.leads(TRUST)
        await ticks(1, a)
        assert [one.leads(TRUST) for one in (a, b)] == [False, True]

    async def test_a_leader_that_starts_anew_leads_by_a_new_epoch(self, database):
        await joined(database, "a")
        again = replica(database, "a")
        await again.join()
        await again.tick()
        found = await leadership(again)
        assert again.leads(TRUST)
        assert (found.epoch, found.holder_epoch) == (2, again.standing.epoch)

    async def test_a_leader_stays_while_it_beats(self, database):
        a, b = await joined(database, "a", "b")
        before = await leadership(a)
        await ticks(3 * SILENT_BEATS, a, b)
        assert await leadership(b) == before

    async def test_a_leader_without_heartbeats_stops_leading_by_itself(self, database):
        [a] = await joined(database, "a")
        a._clock.advance(5.0)
        assert not a.leads(TRUST)
        await ticks(1, a)
        assert a.leads(TRUST)

    async def test_one_replica_alone_leads_always(self, database):
        one = replica(database, "p1", alone=True)
        await one.join()
        one._clock.advance(3600.0)
        assert one.leads(TRUST)
