"""Asks the hub what JetStream has for a network's account, and deletes what it holds before the account goes."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from edgefarm import names
from edgefarm.api.network import Limits
from edgefarm.errors import DomainUnreachable, EdgefarmError, JetStreamSilent, NatsUnavailable
from reconciler.concurrency import all_of
from reconciler.context import Context
from reconciler.controllers.stream_domains import StreamDomains
from reconciler.desired.reservation import Reservation, read_reservation


class AccountStorage:
    """JetStream of all networks' accounts, as far as it belongs to no Stream."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._log: structlog.stdlib.BoundLogger = context.log

    async def reservation(self, network: str, limits: Limits) -> Reservation | None:
        """Whether the hub has set aside what the network may store; None when that is nothing.

        NATS takes every account, and says in its log only that it cannot store so much.
        """
        if limits == Limits():
            return None
        try:
            answer = await self._context.jetstream(network).request(names.MAIN_DOMAIN, "INFO")
        except JetStreamSilent:
            return read_reservation(None, limits)
        except NatsUnavailable as error:
            return Reservation(None, str(error))
        return read_reservation(answer, limits)

    async def delete(self, network: str, account: str, *, reserved: bool) -> None:
        """Delete all streams of the account: NATS would keep their data on disk for ever.

        The hub must do it, unless the account's storage was not `reserved` there; leafs that are away cannot. Raises
        NatsUnavailable and NatsRefused.
        """
        leafs = {leaf.name for leaf in self._context.leafs().leafs if leaf.account == account}
        domains = StreamDomains(self._context.jetstream(network), self._context.clock)
        # Edge streams first: as long as they are there, a stream of the hub that collects them could get more.
        await all_of([self._delete_on_node(domains, network, domain) for domain in sorted(leafs)])
        try:
            await self._delete_all(domains, names.MAIN_DOMAIN)
        except JetStreamSilent:
            if reserved:
                raise

    async def _delete_on_node(self, domains: StreamDomains, network: str, domain: str) -> None:
        try:
            await self._delete_all(domains, domain)
        except DomainUnreachable:
            return  # what it holds stays on the node's disk, as on that of every node that is away
        except EdgefarmError as error:
            self._log.warning("a leaf keeps its streams", network=network, domain=domain, reason=str(error))

    async def _delete_all(self, domains: StreamDomains, domain: str) -> None:
        found: Iterable[str] = [stream.config["name"] for stream in await domains.listing(domain)]
        await all_of([domains.delete(domain, name) for name in found])
