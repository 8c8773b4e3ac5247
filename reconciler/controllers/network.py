"""The controller of Networks: account, grants, what leafs need, copies of the default policy, status of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from edgefarm.api.network import Network
from edgefarm.errors import Conflict, EdgefarmError, KubernetesUnavailable
from reconciler.concurrency import all_of
from reconciler.configuration import Configuration
from reconciler.context import Context, Key, Registration, Result
from reconciler.controllers.cluster_objects import ClusterObjects, MemberPolicy
from reconciler.controllers.convergence import Convergence
from reconciler.controllers.directory import Directory
from reconciler.controllers.finalizers import add_finalizer, has_finalizer, remove_finalizer
from reconciler.controllers.leaf_objects import FoundEntry, LeafObjects
from reconciler.controllers.network_triggers import NetworkTriggers
from reconciler.controllers.returning_leafs import ReturningLeafs
from reconciler.desired import conditions
from reconciler.desired.blueprint import Blueprint, Plan, plan_network
from reconciler.desired.conditions import Converged
from reconciler.desired.membership import Claims
from reconciler.desired.resources import FoundNetwork
from reconciler.desired.rights import Rights
from reconciler.ports import NETWORK, POLICY, Object
from reconciler.status import Condition, find_condition, write_status

_DRIFT: Final = "DriftMended"
#: Clocks that disagree must not make us look at a key again and again.
_SHORTEST_WAIT: Final = timedelta(seconds=1)
#: How long a network waits for storage that the hub did not have; others may have given some back.
_RESERVE_AGAIN: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class _Settled:
    """What NATS and Vault were found to hold; good until `until` as long as the blueprint stays the same."""

    blueprint: Blueprint
    converged: Converged
    until: datetime


class NetworkController:
    """One pass: gather, plan, NATS and Vault, Kubernetes objects, status."""

    name = "network"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._directory = Directory(context)
        self._cluster = ClusterObjects(context, self._directory)
        self._leafs = LeafObjects(context)
        self._convergence = Convergence(context)
        self._returning = ReturningLeafs(context)
        self._settled: dict[str, _Settled] = {}

    def registration(self) -> Registration:
        """The controller and what wakes it."""
        triggers = NetworkTriggers(self.name, self._context, self._directory)
        return Registration(self, triggers.watches(), leafs=triggers.map_leafs)

    async def reconcile(self, key: Key) -> Result:
        """One pass over one Network.

        One that is absent is left alone: with our finalizer it cannot go before everything else has gone, and without
        it nothing was made.
        """
        obj = self._directory.network(key.name)
        configuration = self._context.configuration()
        if obj is None:
            self._settled.pop(key.name, None)
            return Result()
        if configuration is None:
            await self._write_network(obj, conditions.network_waiting())
            return Result()
        found = FoundNetwork.read(obj)
        if found.deleting:
            await self._delete(obj)
            return Result()
        if found.network is None:
            await self._write_network(obj, conditions.network_invalid(found.problem))
            return Result()
        members = self._cluster.members(found.network)
        try:
            return await self._apply(obj, found.network, members, configuration)
        except EdgefarmError as error:
            self._settled.pop(key.name, None)
            await self._report_failure(error, obj, members)
            raise

    async def _apply(
        self, obj: Object, network: Network, members: list[MemberPolicy], configuration: Configuration
    ) -> Result:
        obj = await add_finalizer(self._context.kube, NETWORK, obj)
        has_leafs = bool(configuration.nats.leaf_urls and self._directory.has_edges(network.name))
        entry = await self._leafs.ensure(obj) if has_leafs else FoundEntry()
        around = self._cluster.around(network, members, entry.entry)
        plan = plan_network(network, around, configuration, self._context.clock())
        settled = await self._settle(obj, plan, members, configuration)
        if not has_leafs:
            # Only now that no access document leads there any more.
            await self._leafs.remove(network.name)
        await self._cluster.apply(plan)
        await self._write_all(obj, plan, members, settled.converged, entry.problem)
        until = min(settled.until, entry.look_again or settled.until)
        return Result(max(until - self._context.clock(), _SHORTEST_WAIT))

    async def _settle(
        self, obj: Object, plan: Plan, members: list[MemberPolicy], configuration: Configuration
    ) -> _Settled:
        """What NATS and Vault hold once they hold what the plan says; nobody is asked if that is known already."""
        settled = self._settled.get(plan.blueprint.name)
        now = self._context.clock()
        if settled is None or settled.blueprint != plan.blueprint or settled.until <= now:
            converged = await self._convergence.converge(
                plan.blueprint, (obj.get("status") or {}).get("account"), reserve_again=_lacks_storage(obj)
            )
            until = min(now + configuration.resync, converged.look_again or now + configuration.resync)
            if converged.reservation is not None and not converged.reservation.made:
                until = min(until, now + _RESERVE_AGAIN)
            settled = self._settled[plan.blueprint.name] = _Settled(plan.blueprint, converged, until)
            if _was_in_order(obj, members):
                for what in converged.mended:
                    self._context.events.warning(obj, _DRIFT, f"{what}: put back")
        account = settled.converged.account
        returned = self._returning.since_last_push(plan.blueprint.name, account)
        if returned:
            await self._convergence.push_again(account)
            self._returning.pushed(account, returned)
        return settled

    async def _delete(self, obj: Object) -> None:
        name = obj["metadata"]["name"]
        if not has_finalizer(obj):
            return
        self._settled.pop(name, None)
        try:
            account = (obj.get("status") or {}).get("account")
            await self._convergence.remove(name, account, reserved=not _lacks_storage(obj))
            await self._cluster.delete_copies(name)
        except EdgefarmError as error:
            if not isinstance(error, KubernetesUnavailable):
                await self._write_network(obj, conditions.network_deleting(error))
            raise
        await remove_finalizer(self._context.kube, NETWORK, obj)

    # -- status ------------------------------------------------------------------------------------------------------

    async def _write_all(
        self, obj: Object, plan: Plan, members: list[MemberPolicy], converged: Converged, entry_problem: str
    ) -> None:
        facts = {
            "account": converged.account,
            "grants": converged.grants,
            "policies": len(converged.keys),
            "edgeNodes": len(self._directory.edge_nodes_of(plan.blueprint.name)),
            "streams": plan.streams,
        }
        await self._write_network(obj, conditions.network_conditions(plan, converged, entry_problem), facts)
        rights = {(member.namespace, member.policy): member.rights for member in plan.blueprint.members}
        await all_of([self._write_member(plan, member, converged, rights) for member in members])

    async def _write_member(
        self, plan: Plan, member: MemberPolicy, converged: Converged, rights: Mapping[tuple[str, str], Rights]
    ) -> None:
        identity = member.found.namespace, member.found.name
        if identity not in rights:  # a copy that this pass has deleted
            return
        claims = plan.claims.get(identity, Claims())
        wanted = [
            *conditions.policy_conditions(member.verdict, conditions.policy_ready()),
            *conditions.policy_problems(claims, member.found.annotation_problem, rights[identity]),
        ]
        facts = conditions.policy_facts(plan.blueprint.name, converged.keys[identity], claims)
        status = conditions.status_with(member.obj, wanted, self._context.clock(), facts)
        await write_status(self._context.kube, POLICY, member.obj, status)

    async def _write_network(self, obj: Object, wanted: list[Condition], facts: dict[str, Any] | None = None) -> None:
        status = conditions.status_with(obj, wanted, self._context.clock(), facts)
        await write_status(self._context.kube, NETWORK, obj, status)

    async def _report_failure(self, error: EdgefarmError, obj: Object, members: list[MemberPolicy]) -> None:
        """Say on the Network what the pass waits for, and on those Policies that are new or changed.

        A Policy that was in effect stays in effect, whatever is unreachable now.
        """
        if isinstance(error, Conflict | KubernetesUnavailable):
            return
        try:
            await self._write_network(obj, conditions.network_failure(error))
            for member in members:
                if not _is_current(member.obj):
                    wanted = conditions.policy_conditions(member.verdict, conditions.policy_failure(error))
                    status = conditions.status_with(member.obj, wanted, self._context.clock())
                    await write_status(self._context.kube, POLICY, member.obj, status)
        except EdgefarmError as second:
            # The first error is the one that matters; it is raised and retried.
            self._context.log.warning("a failure could not be reported in the status", reason=str(second))


def _lacks_storage(obj: Object) -> bool:
    """Whether the hub was seen not to have the storage that the network may use."""
    reserved = find_condition(obj, conditions.RESERVED)
    return reserved is not None and reserved.get("status") == "False"


def _is_current(obj: Object) -> bool:
    """Whether the object is Ready, as it is now."""
    ready = find_condition(obj, conditions.READY)
    return (
        ready is not None
        and ready.get("status") == "True"
        and ready.get("observedGeneration") == obj["metadata"].get("generation")
    )


def _was_in_order(obj: Object, members: list[MemberPolicy]) -> bool:
    """Whether everything had been in place, so that what was missing had been taken away by somebody else."""
    return _is_current(obj) and all(_is_current(member.obj) for member in members)


def build(context: Context) -> Registration:
    """The controller and its watches."""
    return NetworkController(context).registration()
