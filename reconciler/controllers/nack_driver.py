"""The driver `nack`: has NACK make, change and delete streams, by Stream objects in the controller namespace."""

from __future__ import annotations

from collections.abc import Collection

from edgefarm.errors import NackUnavailable
from reconciler.configuration import Configuration
from reconciler.context import Context
from reconciler.controllers.nack_accounts import NackAccounts
from reconciler.controllers.nack_streams import NackStreams
from reconciler.controllers.stream_domains import Order, StreamDomains
from reconciler.desired import nack
from reconciler.desired.streams import Refusal
from reconciler.desired.streams_config import Owner
from reconciler.desired.streams_status import Found
from reconciler.ports import Object


class NackDriver:
    """NACK in one network; implements `StreamDriver`.

    What is decided, and what is observed, is the same as without NACK: it is told nothing that would remove data or
    take over a foreign stream, and a stream is present when JetStream says so.
    """

    def __init__(self, context: Context, network: Object, configuration: Configuration, accounts: NackAccounts) -> None:
        self._native = StreamDomains(context.jetstream(network["metadata"]["name"]), context.clock)
        self._network = network
        self._name: str = network["metadata"]["name"]
        self._namespace = context.settings.namespace
        self._configuration = configuration
        self._accounts = accounts
        self._streams = NackStreams(context)

    async def carry_out(self, order: Order) -> Found:
        """Tell NACK, and see what has become of that."""
        refusal = await self._refusal(order)
        if refusal is not None:
            return Found(order.place, "Refused", order.own, refusal.reason, refusal.message)
        pending = await self._tell(order)
        if order.step.kind == "equal":
            return Found(order.place, "Present", order.observed)
        return pending

    async def take_away(self, owner: Owner, domain: str, name: str) -> None:
        """Delete NACK's object for the stream; NACK does the rest. Of a stream that it was never told of it does not
        know."""
        found = self._streams.find(owner, domain)
        if found is None:
            await self._native.delete(domain, name)
        else:
            await self._streams.delete(found)

    async def let_go(self, owner: Owner, domain: str, *, away: bool) -> None:
        """An object for a stream that is gone ends without a stream being deleted; in a domain that is away NACK waits
        for its return."""
        found = self._streams.find(owner, domain)
        if found is not None:
            await (self._streams.delete(found) if away else self._streams.release(found))

    async def see_off(self, owner: Owner, away: Collection[str]) -> None:
        """NackUnavailable while NACK has not deleted what it can reach."""
        left = sorted({nack.domain_of(obj) for obj in self._streams.of_owner(owner)} - set(away))
        if left:
            raise NackUnavailable(
                f"NACK has not yet deleted the stream in {', '.join(left)}: see that it runs with --control-loop"
            )

    async def _refusal(self, order: Order) -> Refusal | None:
        if self._streams.problem:
            return Refusal(
                "NackMissing",
                "this cluster has no NACK: install it with its CRDs (https://github.com/nats-io/nack) and grant the "
                f"reconciler jetstream.nats.io, or set streams.driver to native ({self._streams.problem.rstrip('. ')})",
            )
        field = nack.not_carried(order.wanted, order.observed.config) if order.step.kind == "update" else ""
        if field:
            return Refusal(
                "CannotChange",
                f"{field} cannot be changed with NACK: delete the Stream and create it anew if its data may go",
            )
        return await self._accounts.ensure(self._network, self._configuration)

    async def _tell(self, order: Order) -> Found:
        """Bring NACK's object to what is wanted; what is known of a stream that is not yet as it shall be."""
        owner = Owner.of(order.stream.meta)
        wanted = nack.stream_object(owner, self._name, order.place, order.wanted, self._namespace)
        name = wanted["metadata"]["name"]
        found = self._streams.get(name)
        if found is None:
            if not await self._streams.create(wanted, self._name):
                message = f"there is another Stream {name!r} of NACK in the namespace {self._namespace}: delete it"
                return Found(order.place, "Refused", order.own, "NameTaken", message)
            return _pending(order, "NACK has just been told")
        if "deletionTimestamp" in found["metadata"] or nack.owner_of(found) != owner:
            return _pending(order, "NACK still has to delete an earlier stream of this name")
        if await self._streams.mend(found, wanted):
            return _pending(order, "NACK has just been told")
        word = nack.word_about(found)
        if word.ready is False:
            return Found(order.place, "Refused", order.own, "NackErrored", f"NACK says: {word.message}")
        if word.ready:
            return _pending(order, "NACK has not noticed yet that somebody changed it")
        return _pending(order, "NACK has not answered yet: see that it runs with --control-loop")


def _pending(order: Order, message: str) -> Found:
    return Found(order.place, "Pending", order.own, "WaitingForNack", message)
