"""Makes and removes the network of one container by a chain of plugins, with a record of every step on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from abbot.container.conflist import chain, cni_args
from abbot.container.namespaces import Namespace, find, links, remove_link, start_loopback
from abbot.container.plugins import Attachment, Plugins, Result
from abbot.container.records import Log, Record, Records
from abbot.container.requests import Dns
from abbot.container.template import Conflist
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.errors import NetworkFailed


class LeftBehind(NetworkFailed):
    """A network could not be made, and what was made of it could not be removed: its record stays, to try again."""


@dataclass(frozen=True)
class Maker:
    """One host's way to make the networks of its containers."""

    plugins: Plugins
    records: Records
    bridge: str
    log: Log

    def make(self, draft: Record, conflist: Conflist, dns: Dns) -> Record:
        """Make the network that `draft` asks for, with the addresses that it had before where they are free.

        NetworkFailed when it cannot be made: its record says that there is none. LeftBehind when something stays.
        """
        plain = chain(conflist, draft.arguments, dns)
        chains = [plain]
        if draft.addresses:
            same = chain(conflist, draft.arguments, dns, draft.addresses)
            chains = [same, plain] if same != plain else [plain]
        self.plugins.refuse_missing(plain)
        for choice in chains[:-1]:
            try:
                return self._add(replace(draft, chain=choice))
            except LeftBehind:
                raise
            except NetworkFailed as error:
                self.log.info("the container gets new addresses", container=draft.container_id, why=str(error))
        return self._add(replace(draft, chain=chains[-1]))

    def take_down(self, record: Record) -> None:
        """Remove a container's network; its record stays, and says that there is none."""
        self.remove(record)
        self.records.store(replace(record, result=None))

    def remove(self, record: Record, path: str = "") -> None:
        """Remove a container's network, wherever its making or removal was interrupted; needs no room on the disk.

        `path` is another path of its namespace. NetworkFailed when a plugin cannot remove its part.
        """
        namespace = living_namespace(record, path)
        self.plugins.delete(record.chain, _attachment(record, namespace), record.result)
        if namespace is None and record.result is not None:
            _remove_host_ends(record.result)

    def forget(self, record: Record) -> None:
        """The container has no network any more: its record goes, and with the last one the bridge."""
        self.records.remove(record.container_id)
        if any(True for _ in self.records.all()):
            return
        for link in links(name=self.bridge):
            if link.kind == "bridge" and not links(master=self.bridge):
                remove_link(self.bridge)

    def check(self, record: Record, namespace: Namespace) -> None:
        """NetworkFailed when a plugin finds that the network is not as it was made."""
        assert record.result is not None
        if not record.disable_check:
            self.plugins.check(record.chain, _attachment(record, namespace), record.result)

    def _add(self, record: Record) -> Record:
        record = replace(record, result=None)
        namespace = Namespace(record.netns, record.identity)
        attachment = _attachment(record, namespace)
        start_loopback(namespace)
        # A daemon that is killed from here on finds what it has begun.
        self.records.store(record)
        try:
            result = self.plugins.add(record.chain, attachment)
            made = replace(record, result=result, addresses=tuple(ip["address"] for ip in result.get("ips", ())))
            self.records.store(made)
        except NetworkFailed as error:
            try:
                self.plugins.delete(record.chain, attachment, None)
            except NetworkFailed as leftover:
                raise LeftBehind(f"{error}; and what was made cannot be removed: {leftover}") from error
            raise
        return made


def living_namespace(record: Record, path: str = "") -> Namespace | None:
    """The namespace that the container's network was made in, at `path` or where it was then; None: it has gone.

    Its path may lead to the namespace of another container by now, since process ids come again.
    """
    for candidate in (path, record.netns):
        found = find(candidate) if candidate else None
        if found is not None and found.identity == record.identity:
            return found
    return None


def status(record: Record, namespace: Namespace | None) -> pb.ContainerNetworkStatusResponse:
    """The container's interfaces as they are in its namespace; none where there is no namespace or network."""
    answer = pb.ContainerNetworkStatusResponse(pid=record.pid)
    if namespace is None or record.result is None:
        return answer
    made = {interface["name"] for interface in record.result.get("interfaces", ()) if interface.get("sandbox")}
    for link in links(namespace):
        if link.name in made:
            answer.interfaces.add(name=link.name, mtu=link.mtu, hardware_address=link.mac, addresses=link.addresses)
    return answer


def _attachment(record: Record, namespace: Namespace | None) -> Attachment:
    return Attachment(
        container_id=record.container_id,
        netns=namespace.path if namespace else "",
        interface=record.interface,
        args=cni_args(record.arguments),
    )


def _remove_host_ends(result: Result) -> None:
    """Remove the host's ends of a network whose namespace cannot be found: without it, plugins free addresses only.

    They go by themselves with the namespace, but a process may still be in it.
    """
    interfaces: Sequence[Result] = result.get("interfaces", ())
    for interface in interfaces:
        if interface.get("sandbox"):
            continue
        for link in links(name=interface["name"]):
            if link.kind == "veth" and link.mac == interface.get("mac"):
                remove_link(link.name)
