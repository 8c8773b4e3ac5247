"""Keeps the configuration in force: the last good ConfigMap `network` that was seen, whatever came after it."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from edgefarm import names
from edgefarm.errors import InvalidResource
from reconciler.configuration import Configuration, parse_configuration
from reconciler.metrics import Metrics
from reconciler.ports import CONFIGMAP, Object
from reconciler.watch import Source


def configuration_source(namespace: str) -> Source:
    """The one ConfigMap that is the configuration; its own informer needs no right to read any other."""
    return Source(CONFIGMAP, namespace, fields=f"metadata.name={names.CONFIGMAP}")


class ConfigurationSource:
    """A handler of changes of the ConfigMap; `on_applied` is told every new configuration in force."""

    def __init__(self, metrics: Metrics, *, log: structlog.stdlib.BoundLogger) -> None:
        self.current: Configuration | None = None
        self._problem: str | None = None
        self._listeners: list[Callable[[Configuration], None]] = []
        self._metrics = metrics
        self._log = log
        metrics.set_configuration("waiting")

    @property
    def summary(self) -> str:
        """One line for /readyz."""
        if self._problem is not None:
            kept = "the last good one stays in force" if self.current else "waiting for a valid one"
            return f"the configuration is invalid, {kept}: {self._problem}"
        if self.current is None:
            return f"waiting for ConfigMap {names.CONFIGMAP}"
        return "configured"

    def on_applied(self, listener: Callable[[Configuration], None]) -> None:
        """Call `listener` with every configuration that comes into force from now on."""
        self._listeners.append(listener)

    def changed(self, _old: Object | None, new: Object | None) -> None:
        """The ConfigMap was written, or deleted (`new` is None)."""
        if new is None:
            self._log.warning("the configuration was deleted; the last good one stays in force")
            return
        try:
            configuration = parse_configuration(new.get("data") or {})
        except InvalidResource as error:
            self._problem = str(error)
            self._metrics.set_configuration("invalid")
            self._log.warning("the configuration is invalid", reason=str(error), in_force=self.current is not None)
            return
        self._problem = None
        self._metrics.set_configuration("valid")
        if configuration == self.current:
            return
        self._log.info("the configuration came into force" if self.current is None else "the configuration changed")
        self.current = configuration
        for listener in self._listeners:
            listener(configuration)
