"""Tells the author of the ConfigMap `network` with Events whether it was understood. It changes nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from edgefarm import names
from edgefarm.errors import InvalidResource
from reconciler.configuration import parse_configuration
from reconciler.context import Context, Key, Registration, Result, Watch
from reconciler.ports import CONFIGMAP, Object

REASON_INVALID = "InvalidConfiguration"
REASON_REFUSED = "ConfigurationRefused"
REASON_ACCEPTED = "ConfigurationAccepted"


class ConfigurationController:
    """Judges the ConfigMap as the process does, but only the leader speaks."""

    name = "configuration"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._fields = f"metadata.name={names.CONFIGMAP}"
        self._complained = False

    def watch(self) -> Watch:
        """What wakes this controller."""
        return Watch(CONFIGMAP, self._map, namespace=self._context.settings.namespace, fields=self._fields)

    async def reconcile(self, key: Key) -> Result:
        """Write a Warning about a bad or refused configuration, and say so when it is good again."""
        configmap = self._context.store(CONFIGMAP, fields=self._fields).get(key.namespace, key.name)
        if configmap is None:
            return Result()
        try:
            parse_configuration(configmap.get("data") or {}, key.namespace)
        except InvalidResource as error:
            self._complain(configmap, REASON_INVALID, str(error))
            return Result()
        if self._context.servers.refusal:
            self._complain(configmap, REASON_REFUSED, self._context.servers.refusal)
            return Result()
        if self._complained:
            self._context.events.normal(configmap, REASON_ACCEPTED, "The configuration is valid and in force.")
            self._complained = False
        return Result()

    def _complain(self, configmap: Object, reason: str, problem: str) -> None:
        in_force = "The last good one stays in force." if self._context.configuration() else "Nothing is done yet."
        self._context.events.warning(configmap, reason, f"{problem}. {in_force}")
        self._complained = True

    def _map(self, _old: Object | None, new: Object | None) -> Iterable[Key]:
        if new is not None:
            yield Key(self.name, new["metadata"]["namespace"], new["metadata"]["name"])


def build(context: Context) -> Registration:
    """The controller and its watch."""
    controller = ConfigurationController(context)
    return Registration(controller, (controller.watch(),))
