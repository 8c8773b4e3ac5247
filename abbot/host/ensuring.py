"""Carries out one request of a provider: works out what each interface shall become, and does all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from abbot.host.keys import KeyFolder, make_key, public_key
from abbot.host.managed import Managed
from abbot.host.peers import Peers
from abbot.host.realise import Occupied, Realiser
from abbot.host.requests import Wanted, check_no_self
from abbot.host.specs import InterfaceSpec, WireguardSpec
from abbot.host.state import State
from abbot.host.transactions import Transaction, transaction
from abbot.host.wanted import wanted_carrying, wanted_rules
from abbot.netlink.values import Link
from abbot.wireguard.device import Device
from edgefarm.errors import NetworkFailed

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """An interface that is about to change: what it shall be, its key, and what it is now, if it is ours already.

    `peers_only`: nothing but these peers changes; `listed` are the public keys of the peers in the request.
    """

    spec: InterfaceSpec
    before: Managed | None
    peers_only: bool = False
    listed: tuple[str, ...] = ()
    key: str = field(default="", repr=False)
    new_key: bool = False


@dataclass(frozen=True)
class Tools:
    """What changes the host, and what remembers it."""

    realiser: Realiser
    peers: Peers
    state: State
    keys: KeyFolder


class Ensuring:
    """One request; `managed` are all interfaces of abbot by name, and are left as they are."""

    def __init__(self, tools: Tools, managed: Mapping[str, Managed]) -> None:
        self._realiser = tools.realiser
        self._peers = tools.peers
        self._state = tools.state
        self._keys = tools.keys
        self._managed = managed

    def steps(self, wanted: Sequence[Wanted]) -> list[Step]:
        """What the interfaces of the request mean here; NetworkFailed when one is not the provider's to change."""
        return [self._step(one) for one in wanted]

    def carry_out(
        self, provider: str, steps: Sequence[Step], check: Callable[[Mapping[str, Managed]], T]
    ) -> tuple[dict[str, Managed], T]:
        """Change all interfaces of the provider; what is managed then, and what `check` makes of it before it counts.

        NetworkFailed after taking everything back.
        """
        names = {step.spec.name for step in steps}
        leaving = {
            name for name, managed in self._managed.items() if managed.spec.provider == provider and name not in names
        }
        after = {name: managed for name, managed in self._managed.items() if name not in leaving}
        with transaction() as done:
            self._announce(done, steps)
            # First: what takes their place may need their ports and routes.
            for name in leaving:
                self._remove(done, self._managed[name])
            for step in steps:
                after[step.spec.name] = self._take(done, step)
            checked = check(after)
            self._commit(done, [managed.spec for managed in after.values()])
        return after, checked

    def _step(self, wanted: Wanted) -> Step:
        """What an interface of a request means here; raises when it is not ours to change."""
        spec, before = wanted.spec, self._managed.get(wanted.spec.name)
        if before is not None and before.spec.provider != spec.provider:
            raise NetworkFailed(
                f"interface {spec.name} belongs to the provider {before.spec.provider!r}: take another name"
            )
        if before is None and self._realiser.netlink.link(spec.name) is not None:
            raise NetworkFailed(f"interface {spec.name} exists and was not made by abbot: take another name")
        driver = spec.wireguard
        if driver is None:
            return Step(spec, before)
        old = before.spec.wireguard if before else None
        if wanted.partial and old is None:
            raise NetworkFailed(f"interface {spec.name} does not exist yet: list all its peers, without partial")
        key, new_key = self._key(spec.name, wanted.private_key, driver, old)
        listed = tuple(driver.peers)
        own = public_key(key)
        for number, peer in enumerate(driver.peers.values()):
            check_no_self(spec.name, number, peer, own)
        peers = dict(driver.peers)
        if old is not None:  # unchanged peers stay the same objects: see what has changed at a glance
            peers = {name: old.peers[name] if old.peers.get(name) == peer else peer for name, peer in peers.items()}
        if old is not None and wanted.partial:
            peers = {**old.peers, **peers}
            for name in wanted.removed:
                peers.pop(name, None)
        spec = replace(spec, driver=replace(driver, public_key=own, peers=peers))
        peers_only = wanted.partial and before is not None and _without_peers(before.spec) == _without_peers(spec)
        return Step(spec, before, peers_only, listed, key, new_key)

    def _key(self, name: str, given: str, driver: WireguardSpec, old: WireguardSpec | None) -> tuple[str, bool]:
        """The private key that an interface shall have, and whether it is a new one."""
        if given:
            known = old is not None and self._keys.read(name, driver.public_key) is not None
            return given, not known
        stored = self._keys.read(name, old.public_key) if old is not None and old.own_key else None
        return (stored, False) if stored is not None else (make_key(), True)

    def _announce(self, done: Transaction, steps: Sequence[Step]) -> None:
        """Store what must not be lost, or left behind, when this process is killed in the middle."""
        making = [step.spec.name for step in steps if step.before is None]
        if making:
            done.inverse(lambda: self._state.write(self._specs()))
            self._state.write(self._specs(), making)
        for step in steps:
            if step.new_key:
                done.inverse(partial(self._keys.unstage, step.spec.name))
                self._keys.stage(step.spec.name, step.key)

    def _take(self, done: Transaction, step: Step) -> Managed:
        """Make one interface what it shall be; what is known of it then."""
        before = step.before
        if before is not None and step.peers_only and self._realiser.find(before.spec) is not None:
            carrying = self._peers.change(done, before, step.spec)
            return replace(before, spec=step.spec, carrying=carrying)
        alive = before.alive if before else frozenset()
        driver = step.spec.wireguard
        carrying = wanted_carrying(driver, alive) if driver else {}
        link = self._prepare(done, step)
        old = before.spec.wireguard if before else None
        device = self._peers.device(driver, step.key, carrying, old) if driver else unchanged
        self._realiser.apply(step.spec, link, device)
        return Managed(step.spec, alive, before.rtts if before else {}, carrying)

    def _prepare(self, done: Transaction, step: Step) -> Link:
        """The interface to change, made where it is not there, with its way back registered."""
        spec, before = step.spec, step.before
        link = self._realiser.find(before.spec) if before else None
        if link is not None and before is not None:
            snapshot = self._realiser.snapshot(before.spec, link)
            done.inverse(lambda: self._realiser.bring_back(before.spec, snapshot))
            if type(before.spec.driver) is type(spec.driver):
                return link
            self._realiser.discard(before.spec)
        done.inverse(lambda: self._realiser.discard(spec))
        self._realiser.create(spec)
        return self._realiser.existing(spec.name)

    def _remove(self, done: Transaction, managed: Managed) -> None:
        try:
            link = self._realiser.find(managed.spec)
        except Occupied:
            return  # that is not ours to remove
        if link is not None:
            snapshot = self._realiser.snapshot(managed.spec, link)
            done.inverse(lambda: self._realiser.bring_back(managed.spec, snapshot))
            self._realiser.discard(managed.spec)

    def _commit(self, done: Transaction, specs: Sequence[InterfaceSpec]) -> None:
        """The last steps: from here on a restart leads to the new state."""
        wanted = wanted_rules(specs)
        if wanted or wanted_rules(self._specs()):
            rules = self._realiser.netlink.rules()
            done.inverse(lambda: self._realiser.set_rules(rules))
            self._realiser.set_rules(wanted)
        done.inverse(lambda: self._state.write(self._specs()))
        self._state.write(specs)

    def _specs(self) -> list[InterfaceSpec]:
        return [managed.spec for managed in self._managed.values()]


def unchanged(device: Device) -> Device:
    """What is no tunnel has no device to change."""
    return device


def _without_peers(spec: InterfaceSpec) -> InterfaceSpec:
    return replace(spec, driver=replace(spec.driver, peers={})) if isinstance(spec.driver, WireguardSpec) else spec
