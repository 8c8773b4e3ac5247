"""The controller of Networks: account, grants, copies of the default policy, and the status of Network and members."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from edgefarm import names
from edgefarm.errors import Conflict, EdgefarmError, KubernetesUnavailable
from edgefarm.nats.templates import unenforceable_subscriptions
from reconciler.concurrency import all_of
from reconciler.configuration import Configuration
from reconciler.context import Context, Key, Registration, Result, Watch
from reconciler.controllers.changes import reaches_others, worth_a_look
from reconciler.controllers.cluster_objects import ClusterObjects, MemberPolicy
from reconciler.controllers.convergence import Convergence
from reconciler.controllers.directory import Directory
from reconciler.desired import conditions
from reconciler.desired.blueprint import Blueprint, Plan, plan_network
from reconciler.desired.conditions import Converged
from reconciler.desired.membership import Claims
from reconciler.desired.resources import FoundNetwork
from reconciler.ports import NAMESPACE, NETWORK, POLICY, SERVICE_ACCOUNT, Object
from reconciler.status import Condition, find_condition, write_status

_DRIFT: Final = "DriftMended"
#: Clocks that disagree must not make us look at a key again and again.
_SHORTEST_WAIT: Final = timedelta(seconds=1)


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
        self._convergence = Convergence(context)
        self._settled: dict[str, _Settled] = {}

    def watches(self) -> list[Watch]:
        """What wakes this controller."""
        return [
            self._directory.watch_networks(self._map_network),
            self._directory.watch_policies(self._map_policy),
            Watch(NAMESPACE, self._map_namespace),
            Watch(SERVICE_ACCOUNT, self._map_service_account),
        ]

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
        now = self._context.clock()
        members = self._cluster.members(found.network)
        plan = plan_network(found.network, self._cluster.around(found.network, members), configuration, now)
        try:
            return await self._apply(obj, plan, members, configuration)
        except EdgefarmError as error:
            self._settled.pop(key.name, None)
            await self._report_failure(error, obj, members)
            raise

    async def _apply(
        self, obj: Object, plan: Plan, members: list[MemberPolicy], configuration: Configuration
    ) -> Result:
        obj = await self._add_finalizer(obj)
        settled = self._settled.get(plan.blueprint.name)
        now = self._context.clock()
        if settled is None or settled.blueprint != plan.blueprint or settled.until <= now:
            converged = await self._convergence.converge(plan.blueprint, (obj.get("status") or {}).get("account"))
            until = min(now + configuration.resync, converged.look_again or now + configuration.resync)
            settled = self._settled[plan.blueprint.name] = _Settled(plan.blueprint, converged, until)
            if _was_in_order(obj, members):
                for what in converged.mended:
                    self._context.events.warning(obj, _DRIFT, f"{what}: put back")
        await self._cluster.apply(plan)
        await self._write_all(obj, plan, members, settled.converged)
        return Result(max(settled.until - self._context.clock(), _SHORTEST_WAIT))

    async def _add_finalizer(self, obj: Object) -> Object:
        """Make sure, before anything is made outside, that the Network cannot go without it being removed."""
        finalizers = obj["metadata"].get("finalizers") or []
        if names.FINALIZER in finalizers:
            return obj
        return await self._patch_finalizers(obj, [*finalizers, names.FINALIZER])

    async def _delete(self, obj: Object) -> None:
        finalizers = obj["metadata"].get("finalizers") or []
        name = obj["metadata"]["name"]
        if names.FINALIZER not in finalizers:
            return
        self._settled.pop(name, None)
        try:
            await self._convergence.remove(name, (obj.get("status") or {}).get("account"))
            await self._cluster.delete_copies(name)
        except EdgefarmError as error:
            if not isinstance(error, KubernetesUnavailable):
                await self._write_network(obj, conditions.network_deleting(error))
            raise
        await self._patch_finalizers(obj, [each for each in finalizers if each != names.FINALIZER])

    async def _patch_finalizers(self, obj: Object, finalizers: list[str]) -> Object:
        metadata = obj["metadata"]
        patch = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
        return await self._context.kube.patch(NETWORK, metadata["namespace"], metadata["name"], patch)

    # -- status ------------------------------------------------------------------------------------------------------

    async def _write_all(self, obj: Object, plan: Plan, members: list[MemberPolicy], converged: Converged) -> None:
        facts = {"account": converged.account, "grants": converged.grants, "policies": len(converged.keys)}
        await self._write_network(obj, conditions.network_conditions(plan, converged), facts)
        await all_of([self._write_member(plan, member, converged) for member in members])

    async def _write_member(self, plan: Plan, member: MemberPolicy, converged: Converged) -> None:
        identity = member.found.namespace, member.found.name
        key = converged.keys.get(identity)
        if key is None:  # a copy that this pass has deleted
            return
        claims = plan.claims.get(identity, Claims())
        wanted = [
            *conditions.policy_conditions(member.verdict, conditions.policy_ready()),
            *conditions.policy_problems(claims, member.found.annotation_problem, _withheld(member)),
        ]
        facts = conditions.policy_facts(plan.blueprint.name, key, claims)
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

    # -- what wakes it -----------------------------------------------------------------------------------------------

    def _map_network(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if not worth_a_look(old, new):
            return
        for obj in (old, new):
            if obj is not None:
                yield self._key(obj["metadata"]["name"])
                if reaches_others(old, new):
                    yield from self._rivals(obj)

    def _map_policy(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if worth_a_look(old, new):
            around = set().union(*(self._directory.networks_around(obj) for obj in (old, new) if obj is not None))
            yield from map(self._key, sorted(around))

    def _map_namespace(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if old is not None and new is not None and _is_ending(old) == _is_ending(new):
            return
        obj = new or old
        if obj is not None:
            for network in self._directory.networks_listing(obj["metadata"]["name"]):
                yield self._key(network["metadata"]["name"])

    def _map_service_account(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        """Only a deletion matters: the account of a Policy is made again."""
        if old is not None and new is None:
            metadata = old["metadata"]
            policy = self._directory.policy(metadata["namespace"], metadata["name"])
            if policy is not None:
                yield from map(self._key, sorted(self._directory.networks_around(policy)))

    def _rivals(self, network: Object) -> Iterable[Key]:
        """Networks that share a namespace with this one: whether a Policy there is ambiguous depends on both."""
        for namespace in FoundNetwork.listed_namespaces(network):
            for rival in self._directory.networks_listing(namespace):
                yield self._key(rival["metadata"]["name"])

    def _key(self, network: str) -> Key:
        return Key(self.name, self._directory.namespace, network)


def _withheld(member: MemberPolicy) -> tuple[str, ...]:
    if member.found.policy is None:
        return ()
    permissions = member.found.policy.permissions
    return unenforceable_subscriptions(
        permissions.allow_publish, permissions.allow_subscribe, permissions.deny_subscribe
    )


def _is_ending(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


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
    controller = NetworkController(context)
    return Registration(controller, controller.watches())
