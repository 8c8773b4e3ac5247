"""Keeps the NATS that the reconciler runs: its objects, and that its servers have loaded what they shall."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from cryptography import x509

from edgefarm import names
from edgefarm.errors import NatsRefused, NatsUnavailable, RestartNeeded, VaultRefused, VaultUnavailable
from edgefarm.nats.serverconfig import HubIdentity
from reconciler.configuration import Configuration
from reconciler.context import Context, Key, Registration, Result, Watch
from reconciler.controllers.configuration import REASON_REFUSED
from reconciler.controllers.servers.objects import Certificate, ServerObjects
from reconciler.desired.servers import nats, nats_reload, workload
from reconciler.desired.servers.nats_reload import Pods, Wanted
from reconciler.desired.servers.workload import ServerSpec
from reconciler.hub_access import HubAccess
from reconciler.ports import (
    CONFIGMAP,
    POD,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    STATEFUL_SET,
    HubServerState,
    NatsServers,
    Object,
)
from reconciler.server_configuration import ServerDeployment

REASON_RELOADED: Final = "ConfigurationReloaded"
REASON_RESTART: Final = "RestartNeeded"
REASON_NOT_LOADED: Final = "ConfigurationNotLoaded"
#: How soon what is not as it shall be is looked at again. A kubelet takes up to a minute to mount what has changed.
_SOON: Final = timedelta(seconds=5)
#: The same where only something inside of the cluster is waited for, such as our own look at Vault.
_AT_ONCE: Final = timedelta(seconds=1)


class Hub(Protocol):
    """Vault and NATS as the accepted configuration names them. Raises what `Vault` and `NatsServers` raise."""

    def follow(self, configuration: Configuration) -> None:
        """Use these servers from now on."""
        ...

    async def operator(self) -> Mapping[str, Any] | None:
        """The document of the operator; None while nobody has set Vault up."""
        ...

    @property
    def servers(self) -> NatsServers:
        """The hub's servers."""
        ...


class _NotYet(Exception):
    """What NATS waits for."""


class NatsServerController:
    """One NATS for the installation, where `nats.deploy` is true."""

    name = "nats-server"

    def __init__(self, context: Context, hub: Hub) -> None:
        self._context = context
        self._hub = hub
        self._objects = ServerObjects(context, names.NATS_SERVER)
        self._namespace = context.settings.namespace
        #: The only root there is.
        self.key = Key(self.name, self._namespace, names.NATS_SERVER)
        self._fields = f"metadata.name={names.CONFIGMAP}"

    def watches(self) -> list[Watch]:
        """The server's objects, and the configuration, about which the administrator is told."""
        configuration = Watch(CONFIGMAP, lambda _old, _new: (self.key,), namespace=self._namespace, fields=self._fields)
        return [*self._objects.watches(self.key), configuration]

    async def reconcile(self, key: Key) -> Result:
        """One pass; what is still on its way is looked at again soon."""
        accepted = self._context.servers.accepted
        if accepted is None:
            return Result()
        if accepted.nats.deployment is None:
            await self._objects.remove()
            return Result()
        asked = ServerSpec(
            names.NATS_SERVER, self._namespace, accepted.nats.deployment, nats.PORTS, self._objects.owners()
        )
        await self._objects.ensure(SERVICE, workload.peers(asked))
        service = await self._objects.ensure(SERVICE, workload.service(asked))
        certificate = await self._objects.ensure_certificate(asked, service)
        self._hub.follow(accepted.trusting(certificate.authorities))
        try:
            settled = await self._keep(asked, certificate)
        except (_NotYet, NatsUnavailable, VaultUnavailable, VaultRefused) as error:
            self._report(certificate, str(error).rstrip("."))
            return Result(_AT_ONCE if isinstance(error, _NotYet) else _SOON)
        self._report(certificate, "")
        return Result(certificate.look_again - self._context.clock() if settled else _SOON)

    def _report(self, certificate: Certificate, problem: str) -> None:
        self._context.servers.report(names.NATS_SERVER, authorities=certificate.authorities, problem=problem)

    async def _keep(self, asked: ServerSpec, certificate: Certificate) -> bool:
        """Have the servers as they shall be. Whether they are; _NotYet while nobody can talk to them."""
        found = self._objects.found(STATEFUL_SET) or await self._context.kube.get(
            STATEFUL_SET, self._namespace, names.NATS_SERVER
        )
        identity = await self._identity()
        can_ask = nats_reload.may_look_after_servers(identity.system_account_jwt)
        spec = replace(asked, deployment=await self._possible(asked.deployment, found, can_ask))
        config = nats.configuration(spec, identity, certificate.authorities)
        wanted = Wanted(config.digest, _not_after(certificate))
        mark = nats.mark_of(found) or wanted.restart_mark
        if not can_ask:
            mark = nats_reload.mark_for(mark, wanted)
        await self._objects.ensure(CONFIGMAP, nats.config_map(spec, config, certificate.authorities))
        stateful_set = await self._objects.ensure(STATEFUL_SET, nats.stateful_set(spec, mark))
        await self._objects.ensure(POD_DISRUPTION_BUDGET, workload.budget(spec))
        pods = self._pods(spec, stateful_set)
        if not pods.ready:
            raise _NotYet(f"none of its {spec.deployment.replicas} pods is ready")
        if can_ask and pods.settled:
            return await self._follow(spec, wanted, stateful_set)
        if can_ask and len(pods.ready) == 1 < spec.deployment.replicas:
            await self._let_join(pods.ready[0], stateful_set)
        return pods.settled

    async def _identity(self) -> HubIdentity:
        problem = self._context.servers.server_problems().get(names.VAULT_SERVER)
        if problem:
            raise _NotYet(f"it needs Vault, which is not ready: {problem}")
        document = await self._hub.operator()
        if document is None:
            raise _NotYet("Vault holds no operator yet: an administrator has to run `edgefarm vault bootstrap` once")
        return HubIdentity(document["operatorJwt"], document["systemAccount"], document["systemAccountJwt"])

    async def _possible(self, asked: ServerDeployment, found: Object | None, can_ask: bool) -> ServerDeployment:
        """The deployment without what cannot be followed, of which the administrator is told."""
        streams = None
        if can_ask and nats.wants_to_grow(asked, found):
            with contextlib.suppress(NatsUnavailable):
                streams = await self._hub.servers.stored_streams()
        plan = nats.plan(asked, found, streams)
        configmap = self._context.store(CONFIGMAP, namespace=self._namespace, fields=self._fields).get(
            self._namespace, names.CONFIGMAP
        )
        if plan.refusals and configmap is not None:
            self._context.events.warning(configmap, REASON_REFUSED, f"{'; '.join(plan.refusals)}.")
        return plan.deployment

    def _pods(self, spec: ServerSpec, stateful_set: Object) -> Pods:
        return nats_reload.observe(
            self._objects.pods(), spec.replicas(), template=workload.template_digest(stateful_set)
        )

    async def _let_join(self, name: str, stateful_set: Object) -> None:
        """Start a server again that was alone and shall be one of several: only a start makes it one, and before that
        the others have no majority, so that the StatefulSet, which waits for them, never would."""
        states = {state.name: state for state in await self._hub.servers.states()}
        if name not in states or states[name].clustered:
            return
        streams = await self._hub.servers.stored_streams()
        if streams:
            self._context.events.warning(stateful_set, REASON_NOT_LOADED, nats.cannot_join(name, streams))
            return
        for pod in self._objects.pods():
            if pod["metadata"]["name"] == name:
                await self._context.kube.delete(POD, self._namespace, name, uid=pod["metadata"]["uid"])
                self._context.events.normal(stateful_set, REASON_RESTART, f"{name} joins the other servers.")

    async def _follow(self, spec: ServerSpec, wanted: Wanted, stateful_set: Object) -> bool:
        """Have servers reload what they have not loaded; those that cannot are started again by the StatefulSet."""
        before = nats_reload.compare(wanted, await self._hub.servers.states(), spec.replicas())
        if before.settled:
            return True
        reasons = [await self._reload(server, stateful_set) for server in before.behind]
        if any(reasons):
            await self._objects.ensure(
                STATEFUL_SET, nats.stateful_set(spec, nats_reload.next_mark(nats.mark_of(stateful_set), wanted))
            )
            self._context.events.normal(stateful_set, REASON_RESTART, " ".join(filter(None, reasons)))
            return False
        after = nats_reload.compare(wanted, await self._hub.servers.states(), spec.replicas())
        if before.behind and after.settled:
            self._context.events.normal(stateful_set, REASON_RELOADED, "All servers have loaded what was changed.")
        return after.settled

    async def _reload(self, server: HubServerState, stateful_set: Object) -> str:
        """Why the server has to be started again; empty when it need not."""
        try:
            await self._hub.servers.reload(server.id)
        except RestartNeeded as error:
            return f"{error}."
        except NatsRefused as error:
            self._context.events.warning(stateful_set, REASON_NOT_LOADED, f"{error}.")
        return ""


def build(context: Context) -> Registration:
    """The controller and its watches."""
    hub = HubAccess(context.settings.vault_token_file, clock=context.clock, log=context.log)
    controller = NatsServerController(context, hub)
    return Registration(controller, controller.watches(), always=(controller.key,))


def _not_after(certificate: Certificate) -> datetime:
    return x509.load_pem_x509_certificate(certificate.certificate.encode()).not_valid_after_utc
