"""The manager: from changes of objects to passes of controllers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from edgefarm.errors import Conflict, EdgefarmError, NatsRefused, VaultUnavailable
from reconciler.context import Key, Registration, Result, Watch
from reconciler.informers import Informers
from reconciler.manager import Manager
from reconciler.metrics import Metrics
from reconciler.ports import CONFIGMAP, LeafOnHub, Object
from reconciler.queue import Backoff, WorkQueue
from tests.runtime.fakes import LOG, FakeKube, configmap, eventually

HOUR = timedelta(hours=1)


@dataclass
class Recording:
    """A controller that remembers its keys; `act` decides what a pass does."""

    name: str = "recording"
    passes: list[Key] = field(default_factory=list)
    act: Callable[[Key], Awaitable[Result]] | None = None

    async def reconcile(self, key: Key) -> Result:
        self.passes.append(key)
        return Result() if self.act is None else await self.act(key)

    def map(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        """All objects of one group `g` belong to one root."""
        for obj in (old, new):
            if obj is not None:
                yield Key(self.name, "network", obj["data"].get("g", "none"))

    def registration(self) -> Registration:
        return Registration(self, [Watch(CONFIGMAP, self.map)])


@dataclass
class World:
    """A manager at work."""

    kube: FakeKube
    manager: Manager
    queue: WorkQueue[Key]
    metrics: Metrics
    informers: Informers
    resync: timedelta = HOUR
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self, *controllers: Registration, workers: int = 2) -> None:
        self.manager.register(controllers)
        self.tasks.append(asyncio.create_task(self.informers.run()))
        await self.informers.synced()
        self.tasks.append(asyncio.create_task(self.manager.run(workers)))

    def count(self, outcome: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "edgefarm_reconciles_total", {"controller": "recording", "result": outcome}
        )
        return value or 0.0


@pytest.fixture
async def world() -> AsyncIterator[World]:
    kube, metrics = FakeKube(), Metrics()
    informers = Informers(kube, log=LOG)
    queue: WorkQueue[Key] = WorkQueue(
        asyncio.get_running_loop().call_later, lambda: 0.5, Backoff(first=0.005, most=0.05)
    )
    made: list[World] = []
    manager = Manager(informers, queue, resync=lambda: made[0].resync, metrics=metrics, log=LOG)
    made.append(World(kube, manager, queue, metrics, informers))
    yield made[0]
    for task in made[0].tasks:
        task.cancel()
    await asyncio.gather(*made[0].tasks, return_exceptions=True)
    queue.close()


@pytest.fixture
def controller() -> Recording:
    return Recording()


def key(group: str) -> Key:
    return Key("recording", "network", group)


async def test_many_objects_of_one_root_are_one_pass(world: World, controller: Recording) -> None:
    for number in range(5):
        await world.kube.create(CONFIGMAP, configmap(f"c{number}", g="one"))
    await world.start(controller.registration())
    await eventually(lambda: controller.passes and world.queue.idle)
    assert controller.passes == [key("one")]


async def test_a_change_that_moves_an_object_wakes_the_old_and_the_new_root(
    world: World, controller: Recording
) -> None:
    await world.kube.create(CONFIGMAP, configmap("c", g="old"))
    await world.start(controller.registration())
    await eventually(lambda: controller.passes and world.queue.idle)
    controller.passes.clear()
    await world.kube.replace(CONFIGMAP, configmap("c", g="new"))
    await eventually(lambda: len(controller.passes) == 2)
    assert set(controller.passes) == {key("old"), key("new")}


async def test_two_controllers_share_an_informer_and_both_are_woken(world: World, controller: Recording) -> None:
    other = Recording("other")
    await world.kube.create(CONFIGMAP, configmap("c"))
    await world.start(controller.registration(), other.registration())
    await eventually(lambda: controller.passes and other.passes)
    assert world.kube.calls["list"] == 1


async def test_keys_that_are_always_due_come_without_any_object(world: World, controller: Recording) -> None:
    await world.start(Registration(controller, (), always=(key("single"),)))
    await eventually(lambda: controller.passes == [key("single")])


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (VaultUnavailable("Vault is away."), "waiting"),
        (Conflict("Somebody else was faster."), "waiting"),
        (NatsRefused("No."), "refused"),
        (EdgefarmError("Strange."), "error"),
        (RuntimeError("a bug"), "error"),
    ],
)
async def test_a_pass_that_fails_is_repeated_until_it_succeeds(
    world: World, controller: Recording, error: Exception, outcome: str
) -> None:
    async def fail_twice(_key: Key) -> Result:
        if len(controller.passes) <= 2:
            raise error
        return Result()

    controller.act = fail_twice
    await world.kube.create(CONFIGMAP, configmap("c"))
    await world.start(controller.registration())
    await eventually(lambda: world.count("success") == 1)
    assert world.count(outcome) == 2
    assert len(controller.passes) == 3


async def test_a_controller_may_ask_for_another_pass_later(world: World, controller: Recording) -> None:
    async def again_once(_key: Key) -> Result:
        return Result(timedelta(milliseconds=5) if len(controller.passes) == 1 else None)

    controller.act = again_once
    await world.kube.create(CONFIGMAP, configmap("c"))
    await world.start(controller.registration())
    await eventually(lambda: len(controller.passes) == 2)


async def test_everything_is_looked_at_again_on_the_resync_period(world: World, controller: Recording) -> None:
    world.resync = timedelta(milliseconds=10)
    await world.kube.create(CONFIGMAP, configmap("c"))
    await world.start(controller.registration())
    await eventually(lambda: len(controller.passes) > 3)


async def test_one_key_is_never_worked_on_twice_at_once_and_different_keys_are(
    world: World, controller: Recording
) -> None:
    running: list[Key] = []
    most = 0
    release = asyncio.Event()

    async def wait(each: Key) -> Result:
        nonlocal most
        assert each not in running
        running.append(each)
        most = max(most, len(running))
        await release.wait()
        running.remove(each)
        return Result()

    controller.act = wait
    for group in "ab":
        await world.kube.create(CONFIGMAP, configmap(group, g=group))
    await world.start(controller.registration(), workers=4)
    await eventually(lambda: len(running) == 2)
    world.manager.enqueue_all()
    release.set()
    await eventually(lambda: len(controller.passes) == 4 and world.queue.idle)
    assert most == 2


async def test_a_controller_with_workers_of_its_own_keeps_no_other_waiting(world: World, controller: Recording) -> None:
    waiting = Recording("waiting")
    release = asyncio.Event()

    async def wait(_: Key) -> Result:
        await release.wait()
        return Result()

    waiting.act = wait
    for number in range(5):
        await world.kube.create(CONFIGMAP, configmap(f"c{number}", g=f"g{number}"))
    slow = Registration(waiting, [Watch(CONFIGMAP, waiting.map)], workers=3)
    await world.start(slow, controller.registration(), workers=1)
    await eventually(lambda: len(controller.passes) == 5 and len(waiting.passes) == 3)
    release.set()
    await eventually(lambda: len(waiting.passes) == 5 and world.queue.idle)


async def test_draining_lets_a_pass_finish_and_begins_no_other(world: World, controller: Recording) -> None:
    release = asyncio.Event()

    async def wait(_key: Key) -> Result:
        await release.wait()
        return Result()

    controller.act = wait
    await world.kube.create(CONFIGMAP, configmap("a", g="a"))
    await world.kube.create(CONFIGMAP, configmap("b", g="b"))
    await world.start(controller.registration(), workers=1)
    await eventually(lambda: len(controller.passes) == 1)
    draining = asyncio.create_task(world.manager.drain(10))
    await asyncio.sleep(0)
    release.set()
    assert await draining
    assert world.count("success") == 1
    assert len(controller.passes) == 1


async def test_draining_gives_up_on_a_pass_that_hangs_and_cancelling_ends_it(
    world: World, controller: Recording
) -> None:
    async def hang(_key: Key) -> Result:
        await asyncio.Event().wait()
        return Result()

    controller.act = hang
    await world.kube.create(CONFIGMAP, configmap("a"))
    await world.start(controller.registration())
    await eventually(lambda: controller.passes)
    assert not await world.manager.drain(0.01)
    world.tasks[-1].cancel()
    await asyncio.gather(world.tasks[-1], return_exceptions=True)
    assert world.count("cancelled") == 1


async def test_a_mapper_that_fails_on_one_object_does_not_hide_the_others(world: World, controller: Recording) -> None:
    def mapper(_old: Object | None, new: Object | None) -> Iterable[Key]:
        assert new is not None
        return [key(new["data"]["g"])]

    await world.kube.create(CONFIGMAP, configmap("a"))  # has no g
    await world.kube.create(CONFIGMAP, configmap("b", g="b"))
    await world.start(Registration(controller, [Watch(CONFIGMAP, mapper)]))
    await eventually(lambda: controller.passes == [key("b")])


def test_two_controllers_of_one_name_are_refused(controller: Recording) -> None:
    kube, metrics = FakeKube(), Metrics()
    queue: WorkQueue[Key] = WorkQueue(lambda _delay, _run: pytest.fail("no timer"), lambda: 0.5)
    manager = Manager(Informers(kube, log=LOG), queue, resync=lambda: HOUR, metrics=metrics, log=LOG)
    with pytest.raises(ValueError, match="two controllers"):
        manager.register([controller.registration(), controller.registration()])


async def test_leafs_that_come_and_go_wake_the_roots_they_concern_whatever_another_mapper_does(world: World) -> None:
    broken, recording = Recording("broken"), Recording()

    def fail(_: Sequence[LeafOnHub]) -> Iterable[Key]:
        raise ValueError("a bug")

    await world.start(
        Registration(broken, [], leafs=fail),
        Registration(recording, [], leafs=lambda leafs: [Key("recording", "", leaf.name) for leaf in leafs]),
    )
    world.manager.leafs_changed([LeafOnHub("A", "net-n1", 0.01, "N.1", listening=True)])
    await eventually(lambda: recording.passes == [Key("recording", "", "net-n1")])
    assert not broken.passes
