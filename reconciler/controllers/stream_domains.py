"""Brings a network's streams in their JetStream domains to what they are to be; all requests to JetStream are here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol

from edgefarm import names
from edgefarm.api.stream import Stream
from edgefarm.errors import DomainUnreachable, NatsRefused
from reconciler.concurrency import all_of
from reconciler.desired.streams import Place, StreamPlan
from reconciler.desired.streams_config import (
    Kind,
    Observed,
    Owner,
    Step,
    decide,
    needs_fullest_subject,
    wanted_config,
)
from reconciler.desired.streams_status import Found
from reconciler.ports import JetStream

#: JetStream's codes (err_code) for "there is no such stream" and "the account has no JetStream".
_NOT_FOUND: Final = 10059
_NO_JETSTREAM: Final = 10039
_REASONS: Final[Mapping[Kind, str]] = {"foreign": "StreamExists", "cannot": "CannotChange", "loss": "DataLoss"}


@dataclass(frozen=True)
class Order:
    """What was decided about a stream in a domain that has just answered: to create it, to update it, or that it is as
    it is `wanted` already (step `equal`)."""

    stream: Stream
    place: Place
    wanted: Mapping[str, Any]
    observed: Observed
    step: Step

    @property
    def own(self) -> Observed | None:
        """The stream that was observed, where it is ours."""
        return _own(self.observed, self.stream)


class StreamDriver(Protocol):
    """Does in JetStream, or has somebody do, what was decided."""

    async def carry_out(self, order: Order) -> Found:
        """Have the stream made or changed. Raises NatsRefused and DomainUnreachable."""
        ...

    async def take_away(self, owner: Owner, domain: str, name: str) -> None:
        """Have the owner's stream deleted, which was just seen there."""
        ...

    async def let_go(self, owner: Owner, domain: str, *, away: bool) -> None:
        """The owner has no stream there (any more), or nobody can tell because the domain is `away`."""
        ...

    async def see_off(self, owner: Owner, away: Collection[str]) -> None:
        """Raise Unavailable while the owner has anything left in other domains than those that are away."""
        ...


class StreamDomains:
    """The streams of one network, wherever they are. Domains that are away are no error here.

    What is decided is done by `driver`; without one this is the driver, too, and does it at once.
    """

    def __init__(self, jetstream: JetStream, clock: Callable[[], datetime], driver: StreamDriver | None = None) -> None:
        self._jetstream = jetstream
        self._clock = clock
        self._driver = driver or self

    async def converge(self, plan: StreamPlan, leaving: Sequence[Place], main_replicas: int) -> list[Found]:
        """Make or change the stream in all its places, and remove it from those that it is `leaving`."""
        staying = [self._settle(plan, place, wanted_config(plan, place, main_replicas)) for place in plan.places]
        results = await all_of([*staying, *(self._leave(plan.stream, place) for place in leaving)])
        return [found for found in results if found is not None]

    async def remove(self, owner: Owner, name: str, domains: Sequence[str]) -> None:
        """Delete the owner's stream where it can be reached."""
        reached = await all_of([self._remove(owner, name, domain) for domain in domains])
        await self._driver.see_off(owner, [domain for domain, here in zip(domains, reached, strict=True) if not here])

    async def listing(self, domain: str) -> list[Observed]:
        """All streams of a domain; none where the account has no JetStream."""
        found: list[Observed] = []
        while True:
            page = await self._call(domain, "STREAM.LIST", {"offset": len(found)}, missing=_NO_JETSTREAM)
            streams = (page or {}).get("streams") or ()
            found += map(Observed, streams)
            if not streams or len(found) >= int((page or {}).get("total", 0)):
                return found

    async def delete(self, domain: str, name: str) -> None:
        """Delete a stream with all that it holds; one that is gone already is no error."""
        await self._call(domain, f"STREAM.DELETE.{name}", None, missing=_NOT_FOUND)

    async def _settle(self, plan: StreamPlan, place: Place, wanted: Mapping[str, Any]) -> Found | None:
        observed = Observed(None)
        try:
            observed = await self._look(place.domain, plan.stream.name)
            if needs_fullest_subject(wanted, observed):
                observed = replace(observed, fullest_subject=await self._fullest(place.domain, plan.stream.name))
            step = decide(wanted, plan.stream, observed, self._clock())
            if step.kind == "equal" or step.config is not None:
                return await self._driver.carry_out(Order(plan.stream, place, wanted, observed, step))
        except DomainUnreachable:
            return Found(place, "Unreachable")
        except NatsRefused as error:
            return Found(place, "Refused", _own(observed, plan.stream), "JetStreamRefused", str(error))
        return Found(place, "Refused", _own(observed, plan.stream), _REASONS[step.kind], step.message)

    async def _leave(self, stream: Stream, place: Place) -> Found | None:
        """Remove the stream from a domain that it is no longer wanted in, unless that would lose messages."""
        try:
            observed = await self._look(place.domain, stream.name)
            if observed.owner != Owner.of(stream.meta):
                await self._driver.let_go(Owner.of(stream.meta), place.domain, away=False)
                return None
            if observed.messages and stream.meta.annotations.get(names.ANNOTATION_ALLOW_DATA_LOSS) != "true":
                message = (
                    f"is no longer wanted here, but holds {observed.messages} messages: choose the EdgeNetwork again, "
                    f"or annotate the Stream with {names.ANNOTATION_ALLOW_DATA_LOSS}=true if they may go"
                )
                return Found(place, "Refused", observed, "DataLoss", message)
            await self._driver.take_away(Owner.of(stream.meta), place.domain, stream.name)
        except DomainUnreachable:
            return Found(place, "Unreachable")
        except NatsRefused as error:
            return Found(place, "Refused", None, "JetStreamRefused", str(error))
        return None

    async def _remove(self, owner: Owner, name: str, domain: str) -> bool:
        """Whether the domain could be reached; otherwise it is swept when it returns."""
        try:
            observed = await self._look(domain, name)
            if observed.owner == owner:
                await self._driver.take_away(owner, domain, name)
            else:
                await self._driver.let_go(owner, domain, away=False)
        except DomainUnreachable:
            await self._driver.let_go(owner, domain, away=True)
            return False
        except NatsRefused as error:
            # Without JetStream nothing can be asked or deleted; what is left on disk is swept when it is back.
            if error.status != _NO_JETSTREAM:
                raise
            await self._driver.let_go(owner, domain, away=True)
            return False
        return True

    # -- what it does as a driver ------------------------------------------------------------------------------------

    async def carry_out(self, order: Order) -> Found:
        """Make or change the stream now."""
        if order.step.config is None:
            return Found(order.place, "Present", order.observed)
        verb = "CREATE" if order.step.kind == "create" else "UPDATE"
        body = await self._call(order.place.domain, f"STREAM.{verb}.{order.stream.name}", order.step.config)
        return Found(order.place, "Present", Observed(body))

    async def take_away(self, owner: Owner, domain: str, name: str) -> None:
        """Delete the stream now."""
        await self.delete(domain, name)

    async def let_go(self, owner: Owner, domain: str, *, away: bool) -> None:
        """Nothing is kept about domains."""

    async def see_off(self, owner: Owner, away: Collection[str]) -> None:
        """Nothing is left for later."""

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _look(self, domain: str, name: str) -> Observed:
        return Observed(await self._call(domain, f"STREAM.INFO.{name}", None, missing=_NOT_FOUND))

    async def _fullest(self, domain: str, name: str) -> int:
        """How many messages the subject has that has the most; a server tells of 100,000 subjects at once."""
        seen = most = 0
        while True:
            body = {"subjects_filter": ">", "offset": seen}
            page = await self._call(domain, f"STREAM.INFO.{name}", body, missing=_NOT_FOUND) or {}
            counts: list[int] = list(((page.get("state") or {}).get("subjects") or {}).values())
            seen += len(counts)
            most = max(most, *counts) if counts else most
            if not counts or seen >= int(page.get("total", 0)):
                return most

    async def _call(
        self, domain: str, api: str, body: Mapping[str, Any] | None, *, missing: int = 0
    ) -> Mapping[str, Any] | None:
        """The answer; None for the error code `missing`, and NatsRefused with JetStream's own words for others."""
        answer = await self._jetstream.request(domain, api, body)
        if not answer.error_code:
            return answer.body
        if answer.error_code == missing:
            return None
        raise NatsRefused(f"JetStream refuses it: {answer.error} ({answer.error_code})", answer.error_code)


def _own(observed: Observed, stream: Stream) -> Observed | None:
    return observed if observed.owner == Owner.of(stream.meta) else None
