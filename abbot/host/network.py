"""The interfaces of a host, by provider: ensures, answers, restores, mends and removes them.

Blocking; one call at a time, from a thread that lives as long as the daemon (the kernel ends a tunnel's process with
the thread that started it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from structlog.stdlib import BoundLogger

from abbot.host import answers
from abbot.host.ensuring import Ensuring, Step, Tools, unchanged
from abbot.host.keys import KeyFolder
from abbot.host.managed import Managed, Tunnel
from abbot.host.peers import Peers
from abbot.host.realise import Devices, Netlink, Realiser
from abbot.host.requests import check_request
from abbot.host.specs import BridgeSpec, InterfaceSpec
from abbot.host.state import State
from abbot.host.wanted import wanted_carrying, wanted_rules
from abbot.netlink.rtnl import Rtnl
from abbot.netlink.values import Address, Link
from abbot.ports import STATIC_PROVIDER
from abbot.wireguard.backends import BackendName, Backends
from abbot.wireguard.device import Device
from abbot.wireguard.endpoints import Resolver
from abbot.wireguard.userspace import Userspace
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.errors import InvalidMessage, NetworkFailed

_OURS = frozenset({"bridge", "wireguard"})


@dataclass(frozen=True)
class HostSettings:
    """Where the state is kept, and who serves WireGuard: `backend` auto, kernel or userspace."""

    data_dir: Path
    backend: BackendName = "auto"
    wireguard_program: str = "wireguard-go"


class HostNetwork:
    """The interfaces that abbot manages on this host.

    An interface belongs to one provider. One that belongs to another, or that abbot did not make, is never touched.
    On an interface of its own abbot removes what was not asked for: addresses (but not the link-local ones that the
    kernel gives a bridge), its own routes, a tunnel's peers.

    A bridge's `hairpin`, `guard`, `fastLeave`, `root_block`, `learning`, `flood`, `proxy_arp` and `proxy_arp_wifi` are
    settings of its ports. When one of them is set, all eight apply to every port that the bridge has, and to later ones
    as soon as `repair` sees them; when none is set the ports keep the kernel's defaults, as a bridge that neither
    learns nor floods is of no use.
    """

    def __init__(self, tools: Tools, log: BoundLogger) -> None:
        self._tools = tools
        self._realiser = tools.realiser
        self._peers = tools.peers
        self._state = tools.state
        self._keys = tools.keys
        self._log = log
        remembered = self._state.read()
        self._managed = {spec.name: Managed(spec) for spec in remembered.specs}
        self._making = remembered.making

    # ---- what abbot-proto asks

    def ensure(self, request: pb.HostNetworkConfigEnsureRequest) -> pb.HostNetworkConfigResponse:
        """Make a provider's interfaces what the request says, or change nothing.

        InvalidMessage when the request is wrong, NetworkFailed when it cannot be done; both say which interface.
        """
        if request.provider == STATIC_PROVIDER:
            raise InvalidMessage(f"the provider {STATIC_PROVIDER!r} stands for abbot's own configuration: take another")
        return self._ensure(request.provider, request.expected)

    def set_static(self, interfaces: Sequence[pb.HostNetworkInterface]) -> None:
        """The same as `ensure` for the interfaces of the configuration."""
        self._ensure(STATIC_PROVIDER, interfaces)

    def query(self, request: pb.HostNetworkConfigQueryRequest) -> pb.HostNetworkConfigResponse:
        """The interfaces of these providers as they are; of all, and unmanaged ones too, when none is named."""
        netlink = self._realiser.netlink
        addresses = netlink.addresses()
        actual = []
        for link in netlink.links():
            managed = self._managed.get(link.name)
            if managed is not None and (not request.providers or managed.spec.provider in request.providers):
                if managed.spec.wireguard:
                    self._peers.tunnel(managed)
                actual.append(self._answer(managed, link, addresses.get(link.index, [])))
            elif managed is None and not request.providers:
                actual.append(answers.unmanaged(link, addresses.get(link.index, [])))
        return pb.HostNetworkConfigResponse(actual=actual)

    # ---- what the daemon does by itself

    def restore(self) -> list[str]:
        """Make again what was ensured before the daemon ended; what failed, as sentences. To be called once, first."""
        for name in set(self._making) - set(self._managed):
            link = self._realiser.netlink.link(name)
            if link is not None and link.kind in _OURS:
                self._log.warning("removing what is left of an unfinished change", interface=name)
                self._realiser.netlink.delete_link(link)
        self._tidy_keys()
        problems = self.repair()
        if self._making:
            try:
                self._state.write(self._specs())
                self._making = ()
            except OSError as error:
                problems.append(f"cannot store that an unfinished change was cleared away: {error.strerror or error}")
        return problems

    def repair(self) -> list[str]:
        """Mend what somebody deleted or changed; what failed, as sentences."""
        problems = []
        for managed in self._managed.values():
            try:
                self._mend(managed)
            except NetworkFailed as error:
                problems.append(str(error))
        try:
            self._realiser.set_rules(wanted_rules(self._specs()))
        except NetworkFailed as error:
            problems.append(str(error))
        return problems

    def close(self) -> None:
        """The daemon ends: remove what shall not stay, and what a process of ours serves."""
        staying = []
        for name, managed in self._managed.items():
            if managed.spec.delete_on_exit or self._realiser.devices.in_userspace(name):
                try:
                    self._realiser.discard(managed.spec)
                except NetworkFailed as error:
                    self._log.warning("cannot remove an interface", interface=name, reason=str(error))
            else:
                staying.append(managed.spec)
        try:
            self._realiser.set_rules(wanted_rules(staying))
        except NetworkFailed as error:
            self._log.warning("cannot remove routing rules", reason=str(error))
        self._realiser.devices.close()
        self._realiser.netlink.close()

    # ---- paths

    def tunnels(self) -> tuple[Tunnel, ...]:
        """All tunnels with their peers as they are now; one whose process has died is made again first."""
        tunnels = [managed for managed in self._managed.values() if managed.spec.wireguard]
        for managed in tunnels:
            self._revive(managed)
        return tuple(map(self._peers.tunnel, tunnels))

    def set_alive(self, interface: str, alive: frozenset[str], rtts: Mapping[str, float]) -> None:
        """Let the peers with these public keys carry what they list; `rtts` are seconds by public key."""
        if managed := self._tunnel(interface):
            self._peers.set_alive(managed, alive, rtts)

    def set_endpoint(self, interface: str, public_key: str, endpoint: str) -> None:
        """Reach a peer at this endpoint from now on."""
        if managed := self._tunnel(interface):
            self._peers.set_endpoint(managed, public_key, endpoint)

    def _ensure(self, provider: str, interfaces: Sequence[pb.HostNetworkInterface]) -> pb.HostNetworkConfigResponse:
        ensuring = Ensuring(self._tools, self._managed)
        steps = ensuring.steps(check_request(provider, interfaces))
        self._managed, actual = ensuring.carry_out(
            provider, steps, lambda managed: [self._answer_to(step, managed[step.spec.name]) for step in steps]
        )
        self._tidy_keys()
        self._log.info("interfaces ensured", provider=provider, interfaces=[step.spec.name for step in steps])
        return pb.HostNetworkConfigResponse(actual=actual)

    def _tidy_keys(self) -> None:
        """Put new keys in use and remove those of interfaces that are gone; what fails is done at the next start."""
        try:
            for name, managed in self._managed.items():
                if managed.spec.wireguard:
                    self._keys.settle(name, managed.spec.wireguard.public_key)
            self._keys.keep_only(self._managed)
        except OSError as error:
            self._log.warning("cannot tidy the folder of keys", reason=str(error))

    # ---- mending

    def _mend(self, managed: Managed) -> None:
        spec, driver = managed.spec, managed.spec.wireguard
        key = ""
        if driver is not None:
            key = self._keys.read(spec.name, driver.public_key) or ""
            if not key:
                raise NetworkFailed(f"interface {spec.name}: its private key is lost: ensure it anew")
        link = self._realiser.find(spec)
        if link is None:
            self._log.info("making an interface again", interface=spec.name)
            self._realiser.create(spec)
            link = self._realiser.existing(spec.name)
        device: Callable[[Device], Device] = unchanged
        if driver is not None:
            managed.carrying = wanted_carrying(driver, managed.alive)
            device = self._peers.device(driver, key, managed.carrying, driver)
        self._realiser.apply(spec, link, device)

    def _revive(self, managed: Managed) -> None:
        """Not only at the next `repair`: meanwhile all its traffic is lost. What fails now is tried again then."""
        devices, name = self._realiser.devices, managed.spec.name
        if not devices.in_userspace(name) or devices.alive(name):
            return
        self._log.warning("the WireGuard process has ended", interface=name)
        try:
            self._mend(managed)
        except NetworkFailed as error:
            self._log.warning("cannot make the interface again", interface=name, reason=str(error))

    # ---- answering

    def _answer_to(self, step: Step, managed: Managed) -> pb.HostNetworkInterface:
        """What a request is answered for an interface that it listed."""
        link = self._realiser.existing(step.spec.name)
        addresses = self._realiser.netlink.addresses(link).get(link.index, [])
        if not step.peers_only:
            if managed.spec.wireguard:
                self._peers.look(managed)
            return self._answer(managed, link, addresses)
        message = answers.wireguard(managed.spec, managed.tunnel, link, addresses)
        peers = [managed.tunnel.peers[key] for key in step.listed]
        answers.add_peers(message.wireguard, peers, managed.seen, _paths(managed))
        return message

    def _answer(self, managed: Managed, link: Link, addresses: Sequence[Address]) -> pb.HostNetworkInterface:
        driver = managed.spec.driver
        if isinstance(driver, BridgeSpec):
            return answers.bridge(managed.spec, driver, link, addresses)
        message = answers.wireguard(managed.spec, driver, link, addresses)
        answers.add_peers(message.wireguard, driver.peers.values(), managed.seen, _paths(managed))
        return message

    def _tunnel(self, interface: str) -> Managed | None:
        """None when it has been removed since it was looked at."""
        managed = self._managed.get(interface)
        return managed if managed is not None and managed.spec.wireguard else None

    def _specs(self) -> list[InterfaceSpec]:
        return [managed.spec for managed in self._managed.values()]


def open_host_network(settings: HostSettings, log: BoundLogger) -> HostNetwork:
    """The host's network as it was remembered; nothing is changed before the first call."""
    netlink = Rtnl()
    devices = Backends(settings.backend, netlink, Userspace(settings.wireguard_program, log))
    return host_network(settings.data_dir, netlink, devices, log)


def host_network(data_dir: Path, netlink: Netlink, devices: Devices, log: BoundLogger) -> HostNetwork:
    """The same over ports of the caller's choice."""
    realiser = Realiser(netlink, devices)
    tools = Tools(realiser, Peers(realiser, Resolver()), State(data_dir, log), KeyFolder(data_dir / "keys"))
    return HostNetwork(tools, log)


def _paths(managed: Managed) -> answers.Paths:
    return answers.Paths(managed.alive, managed.carrying, managed.rtts)
