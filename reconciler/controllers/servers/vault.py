"""Keeps the OpenBao that the reconciler runs: its objects, initialisation and updates, and tells when it is ready."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import Final

from edgefarm import names
from edgefarm.errors import Conflict, EdgefarmError
from edgefarm.vault import VaultSettings
from reconciler.configuration import Configuration
from reconciler.context import Context, Key, Registration, Result, Watch
from reconciler.controllers.servers.objects import Certificate, ServerObjects, waking
from reconciler.controllers.servers.vault_setup import VaultSetup
from reconciler.desired.servers import vault as desired
from reconciler.desired.servers import workload
from reconciler.desired.servers.authority import secret
from reconciler.desired.servers.vault_config import SelfInit
from reconciler.desired.servers.workload import ServerSpec
from reconciler.ports import (
    CONFIGMAP,
    POD,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SECRET_PRESENCE,
    SERVICE,
    STATEFUL_SET,
    Object,
)
from reconciler.settings import KubernetesSettings

REASON_REFUSED: Final = "ConfigurationRefused"
REASON_NO_RECOVERY: Final = "RecoveryKeyLost"
REASON_NO_SEAL_KEY: Final = "SealKeyLost"
_SEAL_KEY_BYTES: Final = 32
#: Rights and keys in OpenBao are looked at again so often.
_SET_UP_EVERY: Final = timedelta(hours=1)
_SOONEST: Final = timedelta(seconds=1)
_WAIT: Final = timedelta(seconds=5)


class _Waiting(Exception):
    """What OpenBao still lacks, as a sentence; whatever changes that wakes the controller."""


@dataclass(frozen=True)
class _SetUp:
    """For which settings OpenBao was set up, and when. `problem`: it has a recovery key, but nobody else."""

    settings: VaultSettings
    audience: str
    at: datetime
    problem: str


class VaultServerController:
    """One OpenBao. Each pass goes through all steps, and each step finds out itself what is done already."""

    name = "vault-server"

    def __init__(self, context: Context, setup: VaultSetup | None = None) -> None:
        self._context = context
        self._namespace = context.settings.namespace
        self._objects = ServerObjects(context, names.VAULT_SERVER)
        self._setup = setup or VaultSetup(context)
        self._set_up: _SetUp | None = None
        self._warned: dict[str, str] = {}
        #: The only root there is.
        self.key = Key(self.name, self._namespace, names.VAULT_SERVER)

    def registration(self) -> Registration:
        """The controller and what wakes it."""
        secrets = [
            Watch(SECRET_PRESENCE, waking(self.key), namespace=self._namespace, fields=f"metadata.name={name}")
            for name in (names.VAULT_UNSEAL_SECRET, names.VAULT_RECOVERY_SECRET)
        ]
        return Registration(self, [*self._objects.watches(self.key), *secrets], always=(self.key,))

    async def reconcile(self, key: Key) -> Result:
        """One pass. What is observed is reported, also when the pass fails."""
        configuration = self._context.servers.accepted
        if configuration is None:
            return Result()
        spec = desired.server_spec(configuration, self._namespace, self._objects.owners())
        if spec is None:
            self._set_up = None
            await self._objects.remove()
            return Result()
        certificate: Certificate | None = None
        try:
            spec, refusal = desired.within_what_can_change(spec, self._objects.found(STATEFUL_SET))
            if refusal:
                self._warn(REASON_REFUSED, refusal)
            recoverable = await self._exists(names.VAULT_RECOVERY_SECRET)
            certificate, digest = await self._ensure_objects(configuration, spec, recoverable)
            settings = configuration.trusting(certificate.authorities).vault.server
            await self._await_replica(digest)
            again = await self._ensure_set_up(configuration, settings, spec, recoverable)
            await self._update(spec, digest, settings)
        except Conflict:
            raise  # says nothing about OpenBao
        except (_Waiting, EdgefarmError) as error:
            self._report(certificate, str(error))
            if isinstance(error, EdgefarmError):
                raise
            return Result(_WAIT)
        self._report(certificate, "")
        return Result(max(min(again, certificate.look_again) - self._context.clock(), _SOONEST))

    # -- objects -----------------------------------------------------------------------------------------------------

    async def _ensure_objects(
        self, configuration: Configuration, spec: ServerSpec, recoverable: bool
    ) -> tuple[Certificate, str]:
        """The certificate, and the digest of the template that pods shall follow. `recoverable`: there is a recovery
        key, so OpenBao has been initialised."""
        initialised = recoverable or (self._set_up is not None and bool(self._set_up.problem))
        await self._ensure_seal_key(spec, initialised)
        service = await self._objects.ensure(SERVICE, workload.service(spec))
        await self._objects.ensure(SERVICE, workload.peers(spec))
        certificate = await self._objects.ensure_certificate(spec, service)
        self_init = None if initialised else self._self_init(configuration)
        await self._objects.ensure(CONFIGMAP, desired.config_map(spec, self_init))
        await self._objects.ensure(POD_DISRUPTION_BUDGET, workload.budget(spec))
        stateful_set = await self._objects.ensure(STATEFUL_SET, desired.stateful_set(spec))
        return certificate, workload.template_digest(stateful_set)

    async def _ensure_seal_key(self, spec: ServerSpec, initialised: bool) -> None:
        """Made once and never changed: all that OpenBao stores is encrypted with it."""
        if await self._exists(names.VAULT_UNSEAL_SECRET):
            return
        if initialised or self._objects.found(STATEFUL_SET) is not None:
            lost = desired.seal_key_lost(self._objects.pods())
            self._warn(REASON_NO_SEAL_KEY, lost)
            raise _Waiting(lost)
        key = base64.b64encode(os.urandom(_SEAL_KEY_BYTES)).decode()
        owners = () if spec.deployment.keep_data else spec.owners
        await self._context.kube.create(
            SECRET, secret(names.VAULT_UNSEAL_SECRET, self._namespace, {desired.UNSEAL_KEY: key}, owners)
        )

    async def _exists(self, secret_name: str) -> bool:
        return await self._context.kube.get(SECRET, self._namespace, secret_name) is not None

    def _self_init(self, configuration: Configuration) -> SelfInit:
        return SelfInit(
            settings=configuration.vault.server,
            kubernetes_host=_kubernetes_host(self._context.settings.kubernetes),
            namespace=self._namespace,
            audience=configuration.vault.audience,
        )

    # -- pods --------------------------------------------------------------------------------------------------------

    async def _await_replica(self, digest: str) -> None:
        """Return when a replica serves. One that does not is replaced at once if it does not follow the template."""
        pods = self._objects.pods()
        broken = [pod for pod in desired.outdated(pods, digest) if not desired.is_ready(pod)]
        if broken:
            await self._replace(broken[0])
        if not any(map(desired.is_ready, pods)):
            self._set_up = None  # what serves next may be a new one, on an empty volume
            raise _Waiting("none of its pods is ready")

    async def _update(self, spec: ServerSpec, digest: str, settings: VaultSettings) -> None:
        """Replace at most one pod that does not follow the template; another pass follows when it is back."""
        pods = self._objects.pods()
        if not desired.outdated(pods, digest):
            return
        pod = desired.next_restart(pods, digest, spec.deployment.replicas, await self._setup.raft(settings))
        if pod is None:
            raise _Waiting("its pods are updated one by one, as soon as all of them are well")
        await self._replace(pod)

    async def _replace(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        self._context.log.info("replacing a pod of OpenBao", pod=name)
        await self._context.kube.delete(POD, self._namespace, name, uid=pod["metadata"]["uid"])
        raise _Waiting(f"the pod {name} is being replaced")

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _ensure_set_up(
        self, configuration: Configuration, settings: VaultSettings, spec: ServerSpec, recoverable: bool
    ) -> datetime:
        """Set OpenBao up unless that was done a while ago; when to do it again."""
        now, audience, done = self._context.clock(), configuration.vault.audience, self._set_up
        if (
            done is None
            or (done.settings, done.audience) != (settings, audience)
            or now - done.at >= _SET_UP_EVERY
            or not (recoverable or done.problem)
        ):
            host = _kubernetes_host(self._context.settings.kubernetes)
            problem = await self._setup.run(settings, audience, host, spec)
            if problem:
                self._warn(REASON_NO_RECOVERY, problem)
            self._set_up = done = _SetUp(settings, audience, now, problem)
            # It has a recovery key now: the first replica must not initialise anything any more.
            await self._objects.ensure(CONFIGMAP, desired.config_map(spec, None))
        return done.at + _SET_UP_EVERY

    def _report(self, certificate: Certificate | None, problem: str) -> None:
        authorities = certificate.authorities if certificate else ""
        self._context.servers.report(names.VAULT_SERVER, authorities=authorities, problem=problem)

    def _warn(self, reason: str, message: str) -> None:
        stateful_set = self._objects.found(STATEFUL_SET)
        if stateful_set is not None:
            self._context.events.warning(stateful_set, reason, message)
        if self._warned.get(reason) != message:
            self._context.log.warning("OpenBao", reason=reason, problem=message)
        self._warned[reason] = message


def _kubernetes_host(settings: KubernetesSettings) -> str:
    """URL of the API server as pods see it."""
    if not settings.host:
        return "https://kubernetes.default.svc"
    try:
        host = f"[{settings.host}]" if isinstance(ip_address(settings.host), IPv6Address) else settings.host
    except ValueError:
        host = settings.host
    return f"https://{host}:{settings.port}"


def build(context: Context) -> Registration:
    """The controller and its watches."""
    return VaultServerController(context).registration()
