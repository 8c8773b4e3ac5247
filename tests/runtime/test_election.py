"""Leader election between candidates on one Lease."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest

from edgefarm.errors import KubernetesUnavailable
from reconciler.election import Candidate, LeaderElection, LeaseLostError
from reconciler.ports import LEASE
from reconciler.settings import ElectionSettings
from tests.runtime.fakes import LOG, FakeKube, eventually

QUICK = ElectionSettings(timedelta(seconds=1), timedelta(seconds=0.3), timedelta(seconds=0.05))


def candidate(kube: FakeKube, identity: str, settings: ElectionSettings = QUICK, skew: float = 0) -> LeaderElection:
    """`skew`: seconds by which the candidate's clock is wrong."""
    return LeaderElection(
        kube,
        Candidate("network", "network-controller", identity, settings),
        clock=lambda: datetime.now(UTC) + timedelta(seconds=skew),
        chance=lambda: 0.5,
        log=LOG,
    )


async def holder(kube: FakeKube) -> str:
    lease = await kube.get(LEASE, "network", "network-controller")
    return "" if lease is None else str(lease["spec"]["holderIdentity"])


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


async def test_the_first_candidate_leads_and_the_second_waits(kube: FakeKube) -> None:
    first, second = candidate(kube, "first"), candidate(kube, "second")
    await first.acquire()
    async with asyncio.TaskGroup() as group:
        holding = group.create_task(first.hold())
        waiting = group.create_task(second.acquire())
        # Longer than the Lease's duration: renewals keep the second one away.
        await eventually(lambda: kube.calls["replace"] > 25)
        assert first.leading
        assert not waiting.done()
        holding.cancel()
        waiting.cancel()


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
async def test_a_successor_takes_over_when_the_lease_ran_out_however_wrong_its_clock_is(
    kube: FakeKube, skew: float
) -> None:
    loop = asyncio.get_running_loop()
    await candidate(kube, "first").acquire()  # and never renews
    began = loop.time()
    await candidate(kube, "second", skew=skew).acquire()
    assert loop.time() - began >= QUICK.lease_duration.total_seconds()
    assert await holder(kube) == "second"
    lease = await kube.get(LEASE, "network", "network-controller")
    assert lease is not None
    assert lease["spec"]["leaseTransitions"] == 1


async def test_a_released_lease_is_taken_over_at_once(kube: FakeKube) -> None:
    slow = ElectionSettings(timedelta(hours=1), timedelta(minutes=30), timedelta(seconds=0.05))
    first, second = candidate(kube, "first", slow), candidate(kube, "second", slow)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await first.release()
    assert not first.leading
    await asyncio.wait_for(waiting, 5)
    assert await holder(kube) == "second"


async def test_a_holder_that_cannot_renew_stops_before_the_lease_runs_out(kube: FakeKube) -> None:
    loop, first = asyncio.get_running_loop(), candidate(kube, "first")
    await first.acquire()
    kube.fail["replace"] = KubernetesUnavailable("no route")
    began = loop.time()
    with pytest.raises(LeaseLostError, match=r"could not be renewed within 0\.3 s"):
        await first.hold()
    assert loop.time() - began < QUICK.lease_duration.total_seconds()
    assert not first.leading


async def test_a_holder_whose_lease_was_taken_stops(kube: FakeKube) -> None:
    first = candidate(kube, "first")
    await first.acquire()
    lease = await kube.get(LEASE, "network", "network-controller")
    assert lease is not None
    lease["spec"]["holderIdentity"] = "thief"
    await kube.replace(LEASE, lease)
    with pytest.raises(LeaseLostError, match="taken by thief"):
        await first.hold()


async def test_a_short_outage_does_not_cost_the_lease(kube: FakeKube) -> None:
    first = candidate(kube, "first")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    kube.fail["replace"] = KubernetesUnavailable("no route")
    tried = kube.calls["replace"]
    await eventually(lambda: kube.calls["replace"] > tried + 1)
    del kube.fail["replace"]
    tried = kube.calls["replace"]
    await eventually(lambda: kube.calls["replace"] > tried + 3)
    assert first.leading
    holding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await holding


async def test_of_many_candidates_exactly_one_leads(kube: FakeKube) -> None:
    candidates = [candidate(kube, f"candidate-{number}") for number in range(5)]
    tasks = [asyncio.create_task(each.acquire()) for each in candidates]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert sum(each.leading for each in candidates) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_candidate_that_never_led_releases_nothing(kube: FakeKube) -> None:
    await candidate(kube, "first").acquire()
    writes = kube.writes
    await candidate(kube, "second").release()
    assert kube.writes == writes
    assert await holder(kube) == "first"
