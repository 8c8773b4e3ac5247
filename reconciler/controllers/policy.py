"""The controller of Policies without a network: tells them why. Those with one get their status from the network."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.context import Context, Key, Registration, Result, Watch
from reconciler.controllers.changes import reaches_others, worth_a_look
from reconciler.controllers.directory import Directory
from reconciler.desired import conditions
from reconciler.desired.resources import FoundPolicy
from reconciler.ports import POLICY, Object
from reconciler.status import write_status


class PolicyController:
    """Writes the status of one Policy when no network accepts it, and nothing else."""

    name = "policy"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._directory = Directory(context)

    def watches(self) -> list[Watch]:
        """What wakes this controller."""
        return [
            self._directory.watch_policies(self._map_policy),
            self._directory.watch_networks(self._map_network),
        ]

    async def reconcile(self, key: Key) -> Result:
        """One pass over one Policy."""
        obj = self._directory.policy(key.namespace, key.name)
        if obj is None:
            return Result()
        verdict = self._directory.verdict(FoundPolicy.read(obj))
        if verdict.network is None:
            wanted = conditions.policy_conditions(verdict, conditions.policy_outside(verdict))
            status = conditions.status_with(obj, wanted, self._context.clock(), facts={})
            await write_status(self._context.kube, POLICY, obj, status)
        return Result()

    def _map_policy(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if new is not None and worth_a_look(old, new):
            yield self._key(new)

    def _map_network(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if reaches_others(old, new):
            for network in (old, new):
                if network is not None:
                    yield from map(self._key, self._directory.policies_around(network))

    def _key(self, policy: Object) -> Key:
        return Key(self.name, policy["metadata"]["namespace"], policy["metadata"]["name"])


def build(context: Context) -> Registration:
    """The controller and its watches."""
    controller = PolicyController(context)
    return Registration(controller, controller.watches())
