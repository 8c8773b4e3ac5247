"""Keeps the configuration in force: the last one that was good, accepted, and whose servers can be talked to."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from edgefarm import names
from edgefarm.errors import InvalidResource
from reconciler.configuration import DATA_KEY, Configuration, parse_configuration
from reconciler.desired.servers.admission import Verdict
from reconciler.metrics import Metrics
from reconciler.ports import CONFIGMAP, Object
from reconciler.watch import Source

#: From the configuration that is wanted and the accepted one to what is accepted now.
Judge = Callable[[Configuration, Configuration | None], Verdict]


def configuration_source(namespace: str) -> Source:
    """The one ConfigMap that is the configuration; its own informer needs no right to read any other."""
    return Source(CONFIGMAP, namespace, fields=f"metadata.name={names.CONFIGMAP}")


class ConfigurationSource:
    """A handler of changes of the ConfigMap; `on_applied` is told every new configuration in force.

    A configuration is read, then accepted (`judge` may refuse it), and in force as soon as the servers in it that the
    reconciler runs itself are ready. Implements `context.Servers`.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        log: structlog.stdlib.BoundLogger,
        namespace: str = names.CONTROLLER_NAMESPACE,
        judge: Judge = lambda wanted, _: Verdict(wanted),
    ) -> None:
        #: In force for all controllers but those of the servers.
        self.current: Configuration | None = None
        #: What the servers shall be like; the authorities of those are not in it.
        self.accepted: Configuration | None = None
        #: The text that `accepted` was read from; empty when another process has read it.
        self.accepted_text = ""
        #: Why the ConfigMap's configuration is not accepted; empty when it is.
        self.refusal = ""
        self._wanted: Configuration | None = None
        self._wanted_text = ""
        self._problem: str | None = None
        self._judge = judge
        self._held = False
        self._authorities = ""
        self._server_problems: dict[str, str] = {}
        self._were_ready: frozenset[str] = frozenset()
        self._listeners: list[Callable[[Configuration], None]] = []
        self._acceptance_listeners: list[Callable[[], None]] = []
        self._metrics = metrics
        self._namespace = namespace
        self._log = log
        metrics.set_configuration("waiting")

    @property
    def summary(self) -> str:
        """One line for /readyz."""
        problem = self._problem or self.refusal
        if problem:
            kept = "the last good one stays in force" if self.current else "waiting for a valid one"
            return f"the configuration is {'invalid' if self._problem else 'refused'}, {kept}: {problem}"
        if self._wanted is None:
            return f"waiting for ConfigMap {names.CONFIGMAP}"
        if self.accepted is None:
            return "the configuration is valid, and waits for the cluster to tell which one was in force"
        waiting = [f"waiting for {server}: {problem}" for server, problem in self.server_problems().items() if problem]
        return "; ".join(waiting) or "configured"

    def on_applied(self, listener: Callable[[Configuration], None]) -> None:
        """Call `listener` with every configuration that comes into force from now on."""
        self._listeners.append(listener)

    def on_accepted(self, listener: Callable[[], None]) -> None:
        """Call `listener` when another configuration is accepted, in force or not yet."""
        self._acceptance_listeners.append(listener)

    def hold(self) -> None:
        """Accept nothing before `look_again`: what `judge` asks is not known yet."""
        self._held = True

    def look_again(self) -> None:
        """Judge once more: what the decision depends on is known, or has changed."""
        self._held = False
        self._accept()

    def take_over(self) -> None:
        """Judge as a process that has just begun: until now another one decided, and found servers ready at which this
        one has never looked."""
        self.current = self.accepted = None
        self.accepted_text, self._were_ready = "", frozenset()
        self.look_again()

    def changed(self, _old: Object | None, new: Object | None) -> None:
        """The ConfigMap was written, or deleted (`new` is None)."""
        if new is None:
            self._log.warning("the configuration was deleted; the last good one stays in force")
            return
        data = new.get("data") or {}
        try:
            self._wanted = parse_configuration(data, self._namespace)
        except InvalidResource as error:
            self._problem = str(error)
            self._metrics.set_configuration("invalid")
            self._log.warning("the configuration is invalid", reason=str(error), in_force=self.current is not None)
            return
        self._problem, self._wanted_text = None, str(data[DATA_KEY])
        self._accept()

    def server_problems(self) -> dict[str, str]:
        """The servers that the reconciler runs, and why each cannot be talked to (empty: it can)."""
        servers = sorted(self.accepted.deployed) if self.accepted else ()
        return {server: self._server_problems.get(server, "it has not been looked at yet") for server in servers}

    def report(self, server: str, *, authorities: str, problem: str) -> None:
        """What is observed of a server: the authorities of its certificate (PEM, empty when unknown), and why
        it cannot be talked to.

        A server that was ready once takes no configuration away when it fails: whoever calls it is told.
        """
        if self._server_problems.get(server) != problem:
            self._log.info("server", server=server, problem=problem or "none: it is ready")
        self._server_problems[server] = problem
        self._authorities = authorities or self._authorities
        if not problem:
            self._were_ready |= {server}
        self._apply()

    def _accept(self) -> None:
        if self._held or self._wanted is None:
            return
        verdict = self._judge(self._wanted, self.accepted)
        if verdict.refusal and verdict.refusal != self.refusal:
            self._log.warning("the configuration is refused", reason=verdict.refusal)
        self.refusal = verdict.refusal
        if self._problem is None:
            self._metrics.set_configuration("refused" if verdict.refusal else "valid")
        if not verdict.refusal:
            self.accepted_text = self._wanted_text
        before, self.accepted = self.accepted, verdict.accepted
        if before is None:
            # What was in force stays so, as if this process had seen the servers ready.
            self._were_ready |= verdict.ready
            self._authorities = verdict.authorities or self._authorities
        if before is not None and self.accepted is not None and before.deployed != self.accepted.deployed:
            # Nothing may begin on servers that are about to be left.
            self.current = None
            self._were_ready &= self.accepted.deployed
        self._apply()
        if before != self.accepted:
            for listener in self._acceptance_listeners:
                listener()

    def _apply(self) -> None:
        accepted = self.accepted
        if accepted is None or not accepted.deployed <= self._were_ready:
            return
        configuration = accepted.trusting(self._authorities)
        if configuration == self.current:
            return
        self._log.info("the configuration came into force" if self.current is None else "the configuration changed")
        self.current = configuration
        for listener in self._listeners:
            listener(configuration)
