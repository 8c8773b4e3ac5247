"""What a leaf stores, on its way into a stream of the hub: while they are connected, and after an outage."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgefarm import names
from reconciler.ports import STREAM
from tests.bench.edge import load
from tests.bench.edge.core import NODE
from tests.bench.edge.figures import Case, note
from tests.bench.edge.installation import TENANT, Installation, until
from tests.bench.edge.plain import PlainPair
from tests.bench.edge.wire import Api, Target
from tests.sidecar_leaf.uplink import Uplink

_PEER: Final = "plain nats-servers, linked"
_SIZE: Final = 128
_EDGE_STREAM: Final = "READINGS"
_MAIN_STREAM: Final = "ALL"
#: Seconds between two looks at the hub's stream.
_PAUSE: Final = 0.005
_PATIENCE: Final = 60.0


@dataclass(frozen=True)
class Amount:
    """How many messages are stored in one run, how many pairs of runs there are, and how long an outage is, in s."""

    messages: int
    rounds: int
    outage: float


@dataclass
class Side:
    """A leaf and its hub, with both streams in place."""

    name: str
    leaf: Callable[[], Target]
    api: Api
    connect: Callable[[int | None], Awaitable[None]]
    hub_leaf_port: int

    async def stored(self) -> int:
        """How many messages the hub has."""
        return await asyncio.to_thread(self.api.messages, _MAIN_STREAM)

    async def publish(self, count: int) -> tuple[float, float]:
        """Store messages at the leaf; when the first was sent and the last acknowledged."""
        return await asyncio.to_thread(load.store, self.leaf(), "readings.bench", _SIZE, count)

    async def arrived(self, count: int) -> float:
        """When the hub had so many."""
        await until(lambda: self._has(count), f"{count} messages in the hub", _PATIENCE, _PAUSE)
        return time.monotonic()

    async def _has(self, count: int) -> bool:
        return await self.stored() >= count


async def measure(installation: Installation, folder: Path, amount: Amount, *, flow: bool, outage: bool) -> None:
    """Both cases, or one of them."""
    pair = PlainPair.start(folder / "pair", installation.world.authority)
    try:
        pair.start_leaf()
        ours, plain = await _ours(installation), await _plain(pair, installation)
        try:
            if flow:
                await _flow(ours, plain, amount)
            if outage:
                await _outage(ours, plain, amount)
        finally:
            for side in (ours, plain):
                side.api.__exit__()
    finally:
        pair.stop()


async def _ours(installation: Installation) -> Side:
    spec = {"location": "edge", "subjects": ["readings.>"]}
    await installation.create(STREAM, "readings", TENANT, name=_EDGE_STREAM, **spec)
    await installation.create(STREAM, "all", TENANT, name=_MAIN_STREAM, location="main", link={"stream": _EDGE_STREAM})
    for name in ("readings", "all"):
        await until(lambda name=name: installation.is_ready(STREAM, name, TENANT), f"Stream {name} is Ready")  # type: ignore[misc]
    login = installation.sensor()
    return Side(
        "ours",
        lambda: installation.at_leaf(NODE, login),
        Api(installation.at_hub(await installation.controller())),
        lambda port: installation.restart_leaf(NODE, port),
        installation.hub_leaf_port,
    )


async def _plain(pair: PlainPair, installation: Installation) -> Side:
    """The same streams as ours, made by hand."""

    async def connect(port: int | None) -> None:
        pair.start_leaf(port)

    side = Side("plain", lambda: pair.at_leaf, Api(pair.hub.target), connect, pair.hub_leaf_port)
    domain = names.leaf_domain(installation.network, NODE)
    with Api(installation.at_hub(await installation.controller())) as ours:
        edge, main = ours.config(_EDGE_STREAM, domain), ours.config(_MAIN_STREAM)
    with Api(pair.at_leaf) as leaf:
        leaf.request(f"$JS.API.STREAM.CREATE.{_EDGE_STREAM}", _without_owner(edge))
    main["sources"] = [{**main["sources"][0], "external": {"api": "$JS.leaf.API"}}]
    side.api.request(f"$JS.API.STREAM.CREATE.{_MAIN_STREAM}", _without_owner(main))
    return side


def _without_owner(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "metadata"}


async def _flow(ours: Side, plain: Side, amount: Amount) -> None:
    case = Case("edge to hub through a source, 128 B", _PEER)
    note(case.name)
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    for side in (ours, plain):
        await _warm_up(side)
    for number in range(amount.rounds):
        for side in _order(number, ours, plain):
            before = await side.stored()
            began, acknowledged = await side.publish(amount.messages)
            arrived = await side.arrived(before + amount.messages)
            figures = amount.messages / (acknowledged - began), amount.messages / (arrived - began)
            found[side.name].append(figures)
    for metric, index in (("acknowledged_at_the_leaf", 0), ("stored_in_the_hub", 1)):
        case.say(metric, "messages/s", *([run[index] for run in found[name]] for name in ("ours", "plain")))


async def _outage(ours: Side, plain: Side, amount: Amount) -> None:
    case = Case(f"catch-up with {amount.messages} messages after an outage of {amount.outage:g} s", _PEER)
    found: dict[str, list[tuple[float, float, float]]] = {"ours": [], "plain": []}
    async with _cuttable(ours) as our_link, _cuttable(plain) as plain_link:
        links = {"ours": our_link, "plain": plain_link}
        for number in range(amount.rounds):
            for side in _order(number, ours, plain):
                note(f"{case.name}: round {number + 1}, {side.name}")
                found[side.name].append(await _one_outage(side, links[side.name], amount))
    for metric, unit, index in (("heal_to_first", "s", 0), ("heal_to_all", "s", 1), ("catch_up", "messages/s", 2)):
        case.say(metric, unit, *([run[index] for run in found[name]] for name in ("ours", "plain")))


async def _one_outage(side: Side, link: Uplink, amount: Amount) -> tuple[float, float, float]:
    """Seconds from the uplink's return to the first and to the last message, and messages per second until then."""
    before = await side.stored()
    link.cut()
    cut = time.monotonic()
    await side.publish(amount.messages)
    # Leafs try again every second; the uplink must not always return at the same moment of that.
    healing = cut + amount.outage + random.random()
    await asyncio.sleep(max(0.0, healing - time.monotonic()))
    if await side.stored() != before:
        raise RuntimeError("the cut uplink let messages through")
    await link.mend()
    healed = time.monotonic()
    first = await side.arrived(before + 1)
    last = await side.arrived(before + amount.messages)
    return first - healed, last - healed, amount.messages / (last - healed)


@asynccontextmanager
async def _cuttable(side: Side) -> AsyncIterator[Uplink]:
    """The leaf reaches its hub through a relay that can be cut."""
    link = await Uplink(side.hub_leaf_port).open()
    try:
        await side.connect(link.port)
        await _warm_up(side)
        yield link
    finally:
        await link.close()


async def _warm_up(side: Side) -> None:
    """Return when messages arrive."""
    began, before = time.monotonic(), await side.stored()
    await side.publish(100)
    await side.arrived(before + 100)
    note(f"{side.name}: messages arrive after {time.monotonic() - began:.1f} s")


def _order(number: int, ours: Side, plain: Side) -> tuple[Side, Side]:
    """Who begins takes turns."""
    return (plain, ours) if number % 2 else (ours, plain)
