"""Informers against a Kubernetes whose watches break in every way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from edgefarm.errors import KubernetesRefused, KubernetesUnavailable
from reconciler.informers import Informers
from reconciler.ports import CONFIGMAP, POD, Object
from reconciler.queue import Backoff
from reconciler.watch import Informer, ObjectStore, Source, Timing
from tests.runtime.fakes import LOG, FakeKube, configmap, eventually

QUICK = Timing(backoff=Backoff(first=0.01, most=0.05))


class Changes:
    """Remembers what handlers were told: the old and the new value of `v`."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None, str | None]] = []

    def __call__(self, old: Object | None, new: Object | None) -> None:
        either = new or old
        assert either is not None
        values = [None if obj is None else obj["data"].get("v", "") for obj in (old, new)]
        self.seen.append((either["metadata"]["name"], values[0], values[1]))


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
async def informer(kube: FakeKube, changes: Changes) -> AsyncIterator[Informer]:
    await kube.create(CONFIGMAP, configmap("a", v="1"))
    informer = Informer(kube, Source(CONFIGMAP), log=LOG, timing=QUICK)
    informer.add_handler(changes)
    task = asyncio.create_task(informer.run())
    await eventually(lambda: kube.watching)
    yield informer
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_exists_is_told_first_and_then_every_change(
    kube: FakeKube, informer: Informer, changes: Changes
) -> None:
    assert informer.synced.is_set()
    await kube.create(CONFIGMAP, configmap("b", v="1"))
    await kube.replace(CONFIGMAP, configmap("a", v="2"))
    await kube.delete(CONFIGMAP, "network", "b")
    await eventually(lambda: len(changes.seen) == 4)
    assert changes.seen == [("a", None, "1"), ("b", None, "1"), ("a", "1", "2"), ("b", "1", None)]
    assert [obj["metadata"]["name"] for obj in informer.store.list()] == ["a"]


async def test_a_watch_that_ends_is_continued_without_listing_again(kube: FakeKube, informer: Informer) -> None:
    kube.break_watches()
    await eventually(lambda: kube.calls["watch"] == 2 and kube.watching)
    await kube.create(CONFIGMAP, configmap("b"))
    await eventually(lambda: informer.store.get("network", "b"))
    assert kube.calls["list"] == 1


async def test_a_watch_that_breaks_is_mended(kube: FakeKube, informer: Informer) -> None:
    kube.break_watches(KubernetesUnavailable("connection reset"))
    await eventually(lambda: kube.calls["watch"] == 2 and kube.watching)
    await kube.create(CONFIGMAP, configmap("b"))
    await eventually(lambda: informer.store.get("network", "b"))


async def test_a_version_that_is_gone_leads_to_a_new_list_that_finds_everything_missed(
    kube: FakeKube, informer: Informer, changes: Changes
) -> None:
    kube.silent = True  # the watch loses these
    await kube.create(CONFIGMAP, configmap("b", v="1"))
    await kube.delete(CONFIGMAP, "network", "a")
    kube.silent = False
    kube.break_watches(KubernetesRefused("too old", 410))
    await eventually(lambda: len(changes.seen) == 3)
    assert changes.seen[1:] == [("a", "1", None), ("b", None, "1")]
    assert kube.calls["list"] == 2


async def test_a_version_that_the_server_never_takes_is_given_up_for_a_new_list(
    kube: FakeKube, informer: Informer
) -> None:
    kube.fail["watch"] = KubernetesUnavailable("too large resource version")
    kube.break_watches(kube.fail["watch"])
    await eventually(lambda: kube.calls["list"] == 2)


async def test_a_failing_list_is_repeated_until_it_succeeds(kube: FakeKube) -> None:
    kube.fail["list"] = KubernetesUnavailable("no route")
    informer = Informer(kube, Source(CONFIGMAP), log=LOG, timing=QUICK)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await eventually(lambda: kube.calls["list"] >= 3)
        assert not informer.synced.is_set()
        del kube.fail["list"]
        await eventually(informer.synced.is_set)
        task.cancel()


async def test_an_optional_kind_that_is_not_there_keeps_nobody_waiting_and_is_found_when_it_comes(
    kube: FakeKube, changes: Changes
) -> None:
    optional = replace(CONFIGMAP, optional=True)
    kube.fail["list"] = KubernetesRefused("the server could not find the requested resource", 404)
    informer = Informer(kube, Source(optional), log=LOG, timing=Timing(absent=0.01, backoff=QUICK.backoff))
    informer.add_handler(changes)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await eventually(informer.synced.is_set)
        assert informer.store.problem == "the server could not find the requested resource"
        await kube.create(CONFIGMAP, configmap("late", v="1"))
        del kube.fail["list"]
        await eventually(lambda: informer.store.get("network", "late"))
        assert informer.store.problem == ""
        kube.fail["list"] = kube.fail["watch"] = KubernetesRefused("you may not", 403)
        kube.break_watches(kube.fail["watch"])
        await eventually(lambda: informer.store.problem == "you may not")
        assert changes.seen == [("late", None, "1"), ("late", "1", None)]
        task.cancel()


async def test_what_nobody_needs_is_not_asked_for_keeps_nobody_waiting_and_is_followed_once_it_is_needed(
    kube: FakeKube, changes: Changes
) -> None:
    needed = False
    await kube.create(CONFIGMAP, configmap("there", v="1"))
    informer = Informer(kube, Source(CONFIGMAP), log=LOG, timing=QUICK)
    informer.add_need(lambda: False)
    informer.add_need(lambda: needed)
    informer.add_handler(changes)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await eventually(informer.synced.is_set)
        informer.reconsider()
        assert informer.synced.is_set()
        assert kube.calls["list"] == 0
        needed = True
        informer.reconsider()
        assert not informer.synced.is_set(), "who needs it waits for it"
        await informer.synced.wait()
        await eventually(lambda: kube.watching == 1)
        needed = False
        kube.break_watches()
        await eventually(lambda: changes.seen == [("there", None, "1"), ("there", "1", None)])
        assert informer.store.list() == []
        assert kube.calls["list"] == 1
        needed = True
        informer.reconsider()
        await eventually(lambda: informer.store.get("network", "there"))
        task.cancel()


async def test_everything_is_listed_again_on_a_period_in_case_a_watch_lost_something(kube: FakeKube) -> None:
    informer = Informer(kube, Source(CONFIGMAP), log=LOG, timing=Timing(relist=0.0, backoff=QUICK.backoff))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await eventually(lambda: kube.watching)
        kube.silent = True
        await kube.create(CONFIGMAP, configmap("lost"))
        kube.break_watches()
        await eventually(lambda: informer.store.get("network", "lost"))
        task.cancel()


async def test_one_handler_that_fails_does_not_blind_the_others(kube: FakeKube, informer: Informer) -> None:
    def broken(_old: Object | None, _new: Object | None) -> None:
        raise RuntimeError("a bug")

    later = Changes()
    informer.add_handler(broken)
    informer.add_handler(later)
    await kube.create(CONFIGMAP, configmap("b", v="1"))
    await eventually(lambda: later.seen == [("b", None, "1")])


def test_an_index_follows_its_objects() -> None:
    store = ObjectStore()
    store.put(configmap("a", v="red"))
    store.add_index("colour", lambda obj: [obj["data"]["v"]])
    store.put(configmap("b", v="red"))
    assert [obj["metadata"]["name"] for obj in store.by_index("colour", "red")] == ["a", "b"]
    store.put(configmap("a", v="blue"))
    store.remove(("network", "b"))
    assert store.by_index("colour", "red") == []
    assert [obj["metadata"]["name"] for obj in store.by_index("colour", "blue")] == ["a"]


async def test_watches_of_the_same_objects_share_one_informer_and_stores_are_found_by_kind(kube: FakeKube) -> None:
    informers = Informers(kube, log=LOG)
    first = informers.informer(Source(CONFIGMAP, "network"))
    assert informers.informer(Source(CONFIGMAP, "network")) is first
    assert informers(CONFIGMAP) is first.store
    second = informers.informer(Source(CONFIGMAP, "network", labels="a=b"))
    assert informers(CONFIGMAP, labels="a=b") is second.store
    with pytest.raises(LookupError, match="2 informers of configmaps"):
        informers(CONFIGMAP)
    with pytest.raises(LookupError, match="0 informers of pods"):
        informers(POD)
    assert informers.unsynced() == ["configmaps"]
