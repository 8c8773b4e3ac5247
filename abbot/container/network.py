"""The container network of a host: answers the container requests of abbot-proto."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from abbot.container import masquerade
from abbot.container.conflist import refuse_foreign_ranges
from abbot.container.hostports import listened_on
from abbot.container.maker import LeftBehind, Maker, living_namespace, status
from abbot.container.namespaces import Namespace, find, is_own, links, remove_address
from abbot.container.plugins import Plugins
from abbot.container.records import Log, Record, Records
from abbot.container.requests import (
    NetworkConfig,
    arguments,
    container_id,
    interface_name,
    namespace_path,
    network_config,
    same_host_port,
)
from abbot.container.settings import ContainerSettings
from abbot.container.template import BUILT_IN, Conflist, render
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.errors import InvalidMessage, InvalidResource, NetworkFailed, SettingsError

_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")
# Any subnets: whether a template is right does not depend on them.
_SAMPLE: Final = NetworkConfig(ipv4="192.0.2.0/24", ipv6="2001:db8::/64")


class ContainerNetwork:
    """The networks of a host's containers, in files below the data folder; one call at a time.

    InvalidMessage: the request is wrong; nothing was done. NetworkFailed: it cannot be done; the container has the
    network that it had before, or none where that is gone, too.
    """

    def __init__(self, settings: ContainerSettings, template: str, log: Log) -> None:
        self._settings = settings
        self._template = template
        self._log = log
        self._records = Records(settings.data_dir, log)
        self._maker = Maker(Plugins(settings.plugin_dirs), self._records, settings.bridge, log)
        self._config = self._records.config()

    def start(self) -> None:
        """Make what the host needs for the containers that it may still have; failures are logged, since later calls
        try again."""
        try:
            if self._config.subnets:
                self._masquerade(self._config)
        except NetworkFailed as error:
            self._log.warning("containers are not masqueraded", error=str(error))

    def ensure_config(self, request: pb.ContainerNetworkConfigEnsureRequest) -> pb.ContainerNetworkStatusListResponse:
        """Take over the host's subnets, and tell about all containers.

        Containers whose addresses lay in the subnets before and do not now are made anew in place, and have new
        addresses: with one bridge, they would lose their gateway otherwise. Containers that cannot be are logged, and
        stand without interfaces in the answer. Without any subnet the host has no container network: new containers
        are refused, running ones stay as they are.
        """
        config = network_config(request)
        self._conflist(config)
        self._masquerade(config)
        try:
            self._records.store_config(config)
        except NetworkFailed:
            self._masquerade(self._config)
            raise
        before, self._config = self._config, config
        if config.subnets and config.subnets != before.subnets:
            self._move(before, config)
        return pb.ContainerNetworkStatusListResponse(
            container_networks={record.container_id: self._status(record) for record in self._records.all()}
        )

    def query_config(self, _request: pb.ContainerNetworkConfigQueryRequest) -> pb.ContainerNetworkConfigResponse:
        """The subnets that were told last; empty fields when none were."""
        dns = self._config.dns
        answer = pb.ContainerNetworkConfigResponse(ipv4_subnet=self._config.ipv4, ipv6_subnet=self._config.ipv6)
        if dns:
            answer.dns.CopyFrom(
                pb.CNICapArgs.DNSConfig(servers=dns.servers, searches=dns.searches, options=dns.options)
            )
        return answer

    def ensure(self, request: pb.ContainerNetworkEnsureRequest) -> pb.ContainerNetworkStatusResponse:
        """Give a container the network that is asked for; one that has it keeps it.

        A container is known by its id and has one network. Without arguments it gets those of the request before.
        """
        known = self._records.get(container_id(request))
        wanted = self._draft(request, known)
        self._refuse_taken_ports(wanted)
        if self._settings.template is None:
            refuse_foreign_ranges(wanted.arguments, self._config.subnets)
        self._masquerade(self._config)
        return self._ensure(wanted, known)

    def restore(self, request: pb.ContainerNetworkRestoreRequest) -> pb.ContainerNetworkStatusResponse:
        """Give a container its network again, perhaps in a new namespace, with the same addresses where they are free.

        NetworkFailed when it never had one.
        """
        known = self._known(request)
        return self.ensure(
            pb.ContainerNetworkEnsureRequest(container_id=known.container_id, pid=request.pid, netns=request.netns)
        )

    def delete(self, request: pb.ContainerNetworkDeleteRequest) -> None:
        """Remove a container's network; nothing is done for one that has none. Its namespace may be gone."""
        known = self._records.get(container_id(request))
        if known is not None:
            self._maker.remove(known, namespace_path(request))
            self._maker.forget(known)

    def query(self, request: pb.ContainerNetworkQueryRequest) -> pb.ContainerNetworkStatusResponse:
        """A container's interfaces as they are; NetworkFailed when it has no network, or not the one that was made."""
        known = self._known(request)
        namespace = living_namespace(known, namespace_path(request))
        if namespace is None or known.result is None:
            what = "its network namespace has gone" if namespace is None else "its network is not complete"
            raise NetworkFailed(f"container {known.container_id}: {what}; restore it or delete it")
        self._maker.check(known, namespace)
        return status(known, namespace)

    def _known(self, request: pb.ContainerNetworkRestoreRequest | pb.ContainerNetworkQueryRequest) -> Record:
        known = self._records.get(container_id(request))
        if known is None:
            raise NetworkFailed(f"container {request.container_id} has no network; ensure one")
        return known

    def _draft(self, request: pb.ContainerNetworkEnsureRequest, known: Record | None) -> Record:
        """What a request asks for, with what it leaves out taken from the request before."""
        asked = arguments(request)
        name = interface_name(request)
        namespace = _namespace(request, known)
        if not self._config.subnets:
            raise NetworkFailed(
                f"container {request.container_id}: this host has no subnets for containers yet; the controller tells"
                " them when the host's agent is connected"
            )
        wanted = Record(
            container_id=request.container_id,
            pid=request.pid,
            netns=namespace.path,
            identity=namespace.identity,
            interface=name,
            arguments=asked,
            chain=(),
        )
        if known is None:
            return wanted
        return replace(
            wanted,
            pid=request.pid or known.pid,
            interface=name if request.interface_name else known.interface,
            arguments=asked or known.arguments,
            addresses=_within(known.addresses, self._config.subnets),
        )

    def _ensure(self, wanted: Record, known: Record | None) -> pb.ContainerNetworkStatusResponse:
        namespace = Namespace(wanted.netns, wanted.identity)
        if known is not None and self._stands(known, wanted, namespace):
            kept = replace(known, pid=wanted.pid, netns=wanted.netns)
            if kept != known:
                self._records.store(kept)
            return status(kept, namespace)
        _refuse_ports_of_the_host(wanted)
        if known is not None:
            self._maker.take_down(known)
        try:
            made = self._make(wanted)
        except LeftBehind:
            raise
        except NetworkFailed:
            self._put_back(wanted, known)
            raise
        return status(made, namespace)

    def _stands(self, known: Record, wanted: Record, namespace: Namespace) -> bool:
        """Whether the container has what is wanted already."""
        same = (known.identity, known.interface, known.arguments) == (
            wanted.identity,
            wanted.interface,
            wanted.arguments,
        )
        if not same or known.result is None:
            return False
        try:
            self._maker.check(replace(known, netns=wanted.netns), namespace)
        except NetworkFailed as error:
            self._log.info("the container's network is made anew", container=known.container_id, why=str(error))
            return False
        return True

    def _put_back(self, wanted: Record, known: Record | None) -> None:
        """After a failure: the network that the container had, where it can be made, else only its record."""
        if known is None:
            self._maker.forget(wanted)
            return
        self._records.store(replace(known, result=None))
        changed = (known.interface, known.arguments) != (wanted.interface, wanted.arguments)
        if changed and known.result is not None and living_namespace(known) is not None:
            try:
                self._make(known)
            except NetworkFailed as error:
                self._log.warning("the container has lost its network", container=known.container_id, error=str(error))

    def _make(self, draft: Record) -> Record:
        conflist = self._conflist(self._config)
        return self._maker.make(replace(draft, disable_check=conflist.disable_check), conflist, self._config.dns)

    def _move(self, before: NetworkConfig, config: NetworkConfig) -> None:
        """Make the containers anew whose addresses have left the host's subnets."""
        moved = []
        for record in self._records.all():
            gone = set(_within(record.addresses, before.subnets)) - set(_within(record.addresses, config.subnets))
            if gone and record.result is not None and living_namespace(record) is not None:
                moved.append(record)
        down = []
        for record in moved:
            try:
                self._maker.take_down(record)
                down.append(record)
            except NetworkFailed as error:
                self._log.warning("the container keeps its address", container=record.container_id, error=str(error))
        self._drop_gateways(config)
        for record in down:
            kept = replace(record, addresses=_within(record.addresses, config.subnets))
            try:
                self._make(kept)
            except NetworkFailed as error:
                self._log.warning("the container has lost its network", container=record.container_id, error=str(error))

    def _drop_gateways(self, config: NetworkConfig) -> None:
        for link in links(name=self._settings.bridge):
            for address in set(link.addresses) - set(_within(link.addresses, config.subnets)):
                try:
                    remove_address(link.name, address)
                except NetworkFailed as error:
                    self._log.warning("the bridge keeps an address", error=str(error))

    def _status(self, record: Record) -> pb.ContainerNetworkStatusResponse:
        return status(record, living_namespace(record))

    def _masquerade(self, config: NetworkConfig) -> None:
        """Also before each container: somebody may have flushed the host's rules."""
        direct = (self._settings.bridge, *self._settings.mesh_interfaces)
        masquerade.apply(config.subnets if self._settings.masquerade else (), direct)

    def _conflist(self, config: NetworkConfig) -> Conflist:
        try:
            return render(self._template, config if config.subnets else _SAMPLE, self._settings)
        except InvalidResource as error:
            raise NetworkFailed(f"with the subnets {', '.join(config.subnets)}, {error}") from error

    def _refuse_taken_ports(self, wanted: Record) -> None:
        """portmap itself takes a port that is taken, and the newer container would get nothing."""
        mappings = wanted.arguments.runtime.get("portMappings", ())
        if not mappings:
            return
        for other in self._records.all():
            if other.container_id == wanted.container_id or living_namespace(other) is None:
                continue
            for mapping in mappings:
                if any(same_host_port(mapping, taken) for taken in other.arguments.runtime.get("portMappings", ())):
                    raise NetworkFailed(
                        f"container {wanted.container_id}: host port {mapping['hostPort']}/{mapping['protocol']} is"
                        f" taken by container {other.container_id}"
                    )


def open_container_network(settings: ContainerSettings, log: Log) -> ContainerNetwork:
    """The container network with what is left of it on disk; SettingsError when the template is wrong.

    Plugins are looked for when they are needed: a host without containers needs none.
    """
    _check(settings)
    template = BUILT_IN if settings.template is None else _read(settings.template)
    try:
        render(template, _SAMPLE, settings)
    except InvalidResource as error:
        raise SettingsError([f"{error} (file {settings.template})"]) from error
    network = ContainerNetwork(settings, template, log)
    network.start()
    return network


def _namespace(request: pb.ContainerNetworkEnsureRequest, known: Record | None) -> Namespace:
    """The namespace that a request is about; without one, that of the request before."""
    where = f"container {request.container_id}"
    path = namespace_path(request)
    if not path and known is None:
        raise InvalidMessage(f"{where}: its network namespace is missing: give pid or netns")
    namespace = find(path) if path or known is None else living_namespace(known)
    if namespace is None:
        what = f"there is no network namespace at {path}" if path else "its network namespace has gone"
        raise NetworkFailed(f"{where}: {what}: name the one that it has by pid or netns")
    if is_own(namespace):
        raise NetworkFailed(f"{where}: {path} is the host's own network namespace")
    return namespace


def _refuse_ports_of_the_host(wanted: Record) -> None:
    for mapping in wanted.arguments.runtime.get("portMappings", ()):
        if listened_on(mapping):
            raise NetworkFailed(
                f"container {wanted.container_id}: a program of the host listens on port"
                f" {mapping['hostPort']}/{mapping['protocol']}: end it, or choose another port"
            )


def _check(settings: ContainerSettings) -> None:
    """SettingsError for names of interfaces that neither the kernel nor nft would take."""
    names = {"container.bridge": (settings.bridge,), "container.meshInterfaces": settings.mesh_interfaces}
    problems = [
        f"{setting}: {name!r} must be 1 to 15 letters, digits, `_`, `.` or `-`"
        for setting, given in names.items()
        for name in given
        if not _INTERFACE.fullmatch(name if setting == "container.bridge" else name.removesuffix("*"))
    ]
    if problems:
        raise SettingsError(problems)


def _read(template: Path) -> str:
    try:
        return template.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"container.template: {template} cannot be read: {error}"]) from error


def _within(addresses: Sequence[str], subnets: Sequence[str]) -> tuple[str, ...]:
    """The addresses that lie in one of the subnets."""
    networks = [ipaddress.ip_network(subnet) for subnet in subnets]
    return tuple(
        address for address in addresses if any(ipaddress.ip_interface(address).ip in network for network in networks)
    )
