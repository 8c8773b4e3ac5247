"""What a person with administrator's rights would look at: servers, connections, documents, pods. Changes nothing."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from edgefarm import names
from edgefarm.errors import EdgefarmError
from edgefarm.nats import claims, jwt, nkeys
from localcluster.chart import selector
from localcluster.client import (
    DAEMON_SETS,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from localcluster.demo.installation import Installation
from localcluster.demo.report import CheckFailed
from reconciler.adapters.nats import SystemClient

T = TypeVar("T")
P = TypeVar("P", bound=Installation)
P_co = TypeVar("P_co", bound=Installation, covariant=True)
Json = dict[str, Any]

NETWORKS = Resource(names.API_VERSION, "networks")
POLICIES = Resource(names.API_VERSION, "policies")
EDGE_NETWORKS = Resource(names.API_VERSION, "edgenetworks")
STREAMS = Resource(names.API_VERSION, "streams")
WEBHOOKS = Resource("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations")
#: Everything that the reconciler writes to Kubernetes, but its Lease and Events.
_WRITTEN = (NETWORKS, POLICIES, EDGE_NETWORKS, STREAMS, SERVICE_ACCOUNTS, SERVICES, DAEMON_SETS, SECRETS, WEBHOOKS)

#: Seconds between two looks, at first and in the end.
_OFTEN, _SELDOM = 0.05, 0.5


async def eventually(what: str, look: Callable[[], Awaitable[T | None]], *, within: float = 20.0) -> T:
    """Look until the answer is neither None nor False; CheckFailed says what did not happen in time, and why not.

    It is seen at most a twentieth later than it happens: what takes long is looked at less often.
    """
    began = time.monotonic()
    while True:
        seen: T | None = None
        obstacle: Exception | None = None
        try:
            seen = await look()
        except (CheckFailed, OSError, EdgefarmError, ValueError, KeyError) as error:
            obstacle = error
        if seen is not None and seen is not False:
            return seen
        waited = time.monotonic() - began
        if waited > within:
            raise CheckFailed(f"after {within:g} s still not so: {what}" + (f" ({obstacle})" if obstacle else ""))
        await asyncio.sleep(min(max(_OFTEN, waited / 20), _SELDOM))


@dataclass(frozen=True)
class Observer(Generic[P_co]):
    """Looks at one running platform."""

    platform: P_co
    system: SystemClient

    @classmethod
    def of(cls, platform: P) -> Observer[P]:
        """An observer with a user of the system account, signed with the administrator's rights."""

        async def credentials() -> tuple[str, str]:
            return await asyncio.to_thread(_system_credentials, platform)

        system = SystemClient([platform.nats_url], credentials, ca_bundle=platform.ca_bundle)
        return Observer(platform, system)

    async def network(self, name: str) -> Json:
        return await self.platform.kube.get(NETWORKS, name, names.CONTROLLER_NAMESPACE)

    async def policy(self, namespace: str, name: str) -> Json:
        return await self.platform.kube.get(POLICIES, name, namespace)

    async def stored_account(self, account: str) -> Json:
        """The account's claims as every server with a full resolver has stored them, signature verified."""
        answers = await self.system.lookup(account)
        stored = {answer.jwt for answer in answers}
        if len(stored) != 1 or None in stored:
            raise CheckFailed(f"the servers disagree about account {account}, or lack it")
        return jwt.decode(str(stored.pop()))

    async def connections(self, signing_key: str) -> list[Json]:
        """Live NATS connections whose user was signed by this scoped key."""
        page = await _get_json(f"{self.platform.nats_monitor}/connz?auth=1&limit=1000")
        return [found for found in page["connections"] if found.get("issuer_key") == signing_key]

    async def pod(self, namespace: str, app: str) -> Json:
        """The running pod of a Deployment of the example."""
        return await self._running(namespace, f"app={app}")

    async def controller(self) -> Json:
        """The running pod of the reconciler."""
        return await self._running(names.CONTROLLER_NAMESPACE, selector("controller"))

    async def _running(self, namespace: str, labels: str) -> Json:
        pods, _ = await self.platform.kube.list(PODS, namespace, labels=labels)
        running = [pod for pod in pods if _is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]
        if not running:
            raise CheckFailed(f"no pod with {labels} in {namespace} is ready")
        return running[0]

    async def ask(self, namespace: str, app: str, path: str = "/") -> Json:
        """What the application in a pod answers on port 8080."""
        pod = await self.pod(namespace, app)
        answer: Json = await _get_json(f"http://{pod['status']['podIP']}:8080{path}")
        return answer

    async def metrics_of(self, pod: Json) -> str:
        """Metrics of one of our own pods."""
        return await asyncio.to_thread(get_text, f"http://{pod['status']['podIP']}:8080/metrics")

    async def sidecar(self, pod: Json, path: str) -> str:
        """What a pod's sidecar answers on its health port, whatever the HTTP status."""
        return await asyncio.to_thread(get_text, f"http://{pod['status']['podIP']}:3580{path}")

    async def snapshot(self) -> dict[str, str]:
        """A fingerprint of everything that the reconciler writes: to Kubernetes, to Vault, to NATS."""
        seen: dict[str, str] = {}
        for resource in _WRITTEN:
            for obj in (await self.platform.kube.list(resource))[0]:
                meta = obj["metadata"]
                identity = f"{resource.plural} {meta.get('namespace', '')}/{meta['name']}"
                seen[identity] = _without_counts(obj) if resource == STREAMS else meta["resourceVersion"]
        for network in (await self.platform.kube.list(NETWORKS))[0]:
            account = network["status"]["account"]
            seen[f"account {account}"] = (await self.stored_account(account))["jti"]
        return seen | await asyncio.to_thread(self._vault_snapshot)

    def _vault_snapshot(self) -> dict[str, str]:
        vault = self.platform.vault
        policies = [name for name in vault.policies() if name.startswith(names.vault_policy(""))]
        seen = {f"key {name}": str(vault.key(name)) for name in vault.keys()}  # noqa: SIM118 (not a mapping)
        # Those of the reconciler itself it does not write, and may not even read.
        roles = [name for name in vault.roles() if names.vault_policy(name) in policies]
        seen |= {f"role {name}": str(vault.role(name)) for name in roles}
        seen |= {f"policy {name}": str(vault.policy(name)) for name in policies}
        return seen | {f"document {path}": str(vault.read_document(path)) for path in vault.list_documents("access")}


def _without_counts(stream: Json) -> str:
    """A Stream without what its status counts: messages that flow are no change of the reconciler's."""
    return json.dumps([stream["metadata"]["generation"], stream["spec"], stream["status"]["conditions"]])


async def _get_json(url: str) -> Any:
    return json.loads(await asyncio.to_thread(get_text, url))


def get_text(url: str) -> str:
    """What a program answers, whatever the HTTP status; OSError when it does not."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


def _is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def _system_credentials(platform: Installation) -> tuple[str, str]:
    document = platform.vault.read_document(names.OPERATOR_DOCUMENT)
    key = platform.vault.key(names.SYSTEM_CONTROLLER_KEY)
    if document is None or key is None:
        raise CheckFailed("Vault has not been bootstrapped")
    user, now = nkeys.generate_user(), int(time.time())
    body = claims.user_claims(
        name="demo",
        subject=user.public,
        issuer=nkeys.encode_public(nkeys.Prefix.ACCOUNT, key.latest.public_key),
        account=document["systemAccount"],
        jti=uuid.uuid4().hex,
        issued_at=now,
        expires_at=now + 3600,
    )
    text = jwt.signing_input(body)
    return jwt.assemble(text, platform.vault.sign(key.name, key.latest_version, text)), user.seed
