"""What the controllers need from the outside world; adapters implement it, tests may too. No I/O here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from edgefarm.errors import AgentUnavailable

#: A Kubernetes object as raw JSON.
Object = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One resource of the Kubernetes API."""

    group: str  # "" is the core group
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    #: Members that nobody here reads: informers do not keep them.
    unread: tuple[str, ...] = ()
    #: A cluster may do without it.
    optional: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection (all namespaces without `namespace`) or of one object."""
        parts = ["/api" if not self.group else f"/apis/{self.group}", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [self.plural, *([name] if name else []), *([subresource] if subresource else [])]
        return "/".join(parts)


NETWORK = Kind("network.edgefarm.io", "v1alpha1", "networks", "Network")
POLICY = Kind("network.edgefarm.io", "v1alpha1", "policies", "Policy")
EDGE_NETWORK = Kind("network.edgefarm.io", "v1alpha1", "edgenetworks", "EdgeNetwork")
STREAM = Kind("network.edgefarm.io", "v1alpha1", "streams", "Stream")
EDGE_DEVICE = Kind("network.edgefarm.io", "v1alpha1", "edgedevices", "EdgeDevice")
NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
POD = Kind("", "v1", "pods", "Pod")
SECRET = Kind("", "v1", "secrets", "Secret")
#: Secrets as informers know those that nobody reads: that they are there, not what they hold.
SECRET_PRESENCE = Kind("", "v1", "secrets", "Secret", unread=("data",))
CONFIGMAP = Kind("", "v1", "configmaps", "ConfigMap")
SERVICE = Kind("", "v1", "services", "Service")
#: Most of a node is its status, with every image on its disk.
NODE = Kind("", "v1", "nodes", "Node", namespaced=False, unread=("status",))
DAEMON_SET = Kind("apps", "v1", "daemonsets", "DaemonSet")
STATEFUL_SET = Kind("apps", "v1", "statefulsets", "StatefulSet")
POD_DISRUPTION_BUDGET = Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
TOKEN_REVIEW = Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
EVENT = Kind("events.k8s.io", "v1", "events", "Event")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
MUTATING_WEBHOOK = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
#: Which addresses a cluster gives to Services; clusters before 1.33 do not tell.
SERVICE_CIDR = Kind("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", namespaced=False, optional=True)
#: What NACK, the JetStream controller of NATS, makes streams of: https://github.com/nats-io/nack
NACK_STREAM = Kind("jetstream.nats.io", "v1beta2", "streams", "Stream", optional=True)
NACK_ACCOUNT = Kind("jetstream.nats.io", "v1beta2", "accounts", "Account", optional=True)


@dataclass(frozen=True)
class WatchEvent:
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK. A gone resourceVersion raises KubernetesRefused(410)."""

    type: str
    object: Object


class Kube(Protocol):
    """The Kubernetes API in raw JSON.

    Raises KubernetesUnavailable (unreachable, 429, 5xx), Conflict (409 on a write with a stale resourceVersion or
    an object that exists already), KubernetesRefused (other 4xx). Every call has a timeout.
    """

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None: ...

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        """All objects (paged underneath) and the list's resourceVersion."""
        ...

    def watch(
        self, kind: Kind, namespace: str | None, resource_version: str, *, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[WatchEvent, None]: ...

    async def create(self, kind: Kind, obj: Mapping[str, Any]) -> Object: ...

    async def replace(self, kind: Kind, obj: Mapping[str, Any], *, subresource: str | None = None) -> Object: ...

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        subresource: str | None = None,
    ) -> Object:
        """JSON merge patch for a mapping, JSON patch for a sequence."""
        ...

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None) -> bool:
        """False when it did not exist."""
        ...


@dataclass(frozen=True)
class AccountOnServer:
    """What one server knows of an account: its JWT as stored (None: unknown account)."""

    server: str
    jwt: str | None


@dataclass(frozen=True)
class LeafOnHub:
    """A leaf connection as a server of the hub sees it; a leaf has one in its network, and one in the system account.

    `name` is the leaf's server name (its JetStream domain), `account` the account that it is bound to, `rtt` the round
    trip in seconds (0: not measured yet). `connection` names this connection among all of the hub: a leaf that has
    reconnected has another one. `listening`: whether subscriptions of the leaf have arrived, so that it hears us.
    """

    account: str
    name: str
    rtt: float
    connection: str
    listening: bool


@dataclass(frozen=True)
class LeafView:
    """The leaf connections as the hub last told.

    Before it was `asked` for the first time nothing is known, not even a `problem`, which says why the last question
    was not answered; the connections are then older.
    """

    leafs: tuple[LeafOnHub, ...] = ()
    problem: str = ""
    asked: bool = False

    @property
    def known(self) -> bool:
        """Whether `leafs` are those of now."""
        return self.asked and not self.problem


#: Called when a leaf has perhaps come or gone, or when its coming and going could have been missed.
LeafListener = Callable[[], None]


class NatsSystem(Protocol):
    """The hub's system account. Raises NatsUnavailable, NatsRefused."""

    async def push(self, account_jwt: str) -> None:
        """Send an account JWT to every server; raises when a server reports an error (a 200 proves nothing)."""
        ...

    async def lookup(self, account: str) -> Sequence[AccountOnServer]:
        """Read the account back from every full-resolver server of the hub."""
        ...

    async def delete(self, delete_claims_jwt: str) -> None:
        """Delete accounts on every server; an absent account is not an error."""
        ...

    async def leafs(self) -> Sequence[LeafOnHub]:
        """All leaf connections of all servers of the hub."""
        ...


@dataclass(frozen=True)
class HubServerState:
    """What a server of the hub says about itself.

    `config` is the digest that its configuration carries as metadata (empty: none), `certificates_until` are the ends
    of the certificates that its listeners show. `clustered`: it is set up as one of several, met them or not.
    """

    id: str
    name: str
    config: str
    certificates_until: frozenset[datetime]
    clustered: bool = False


class NatsServers(Protocol):
    """The hub's servers, through its system account. Raises NatsUnavailable, NatsRefused."""

    async def states(self) -> Sequence[HubServerState]:
        """Of every server that answers, sorted by name."""
        ...

    async def stored_streams(self) -> int:
        """How many streams JetStream has on these servers, in all accounts, each replica counted."""
        ...

    async def reload(self, server: str) -> None:
        """Have the server with this id read its configuration again.

        Raises RestartNeeded when it says that it cannot take a change while it runs, NatsRefused with its words when
        the configuration is wrong; it goes on with the one before. Success does not tell which version it has read.
        """
        ...


@dataclass(frozen=True)
class JetStreamAnswer:
    """The answer to a request of the JetStream API; `error_code` is NATS' own (`err_code`), 0 without an error."""

    body: Mapping[str, Any]
    error_code: int = 0
    error: str = ""


class JetStream(Protocol):
    """The JetStream API of one network's account, through the hub, in raw JSON.

    Raises NatsUnavailable; a domain that nobody answers for (its leaf is away) raises DomainUnreachable.
    """

    async def request(self, domain: str, api: str, body: Mapping[str, Any] | None = None) -> JetStreamAnswer:
        """`api` is what follows `$JS.<domain>.API.`, for example `STREAM.INFO.READINGS`."""
        ...


class TokenReviews(Protocol):
    """Judges service account tokens. Raises KubernetesUnavailable and KubernetesRefused (we may not ask)."""

    async def review_token(self, token: str, audiences: Sequence[str]) -> Object:
        """The status of a TokenReview: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/"""
        ...


@dataclass(frozen=True)
class ConnectedAgent:
    """The agent of an edge host or gateway, as it registered last.

    `device` is the name of its EdgeDevice, `role` one of `names.AGENT_SERVICE_ACCOUNTS`, `node` what the API server
    says about its token, `session` the public nkey that it speaks with: another one after each login. `network` and
    `containers` are what it offers; `new`: this was the first registration since the process started. `hostname` is its
    own word.
    """

    device: str
    role: str
    node: str
    session: str
    network: bool
    containers: bool
    new: bool
    hostname: str
    registered_at: datetime


class Agents(Protocol):
    """The agents that are connected now, by the names of their devices."""

    def get(self, device: str) -> ConnectedAgent | None: ...

    def all(self) -> Sequence[ConnectedAgent]:
        """Sorted by device."""
        ...

    async def request(
        self,
        device: str,
        data: bytes,
        *,
        timeout: float = 30,  # noqa: ASYNC109 (the host is told, too)
        container: bool = False,
    ) -> bytes:
        """Have the device's command answer a request, which it may take `timeout` seconds for; `container` requests
        concern the network of containers.

        Raises AgentUnavailable (not connected, no answer in time, too busy), AgentUnsupported (the host does not offer
        that), AgentRefused (the command failed; its own words), InvalidMessage (`data` is larger than 64 MiB).
        """
        ...


class NoAgents:
    """The agents where there is no mesh."""

    def get(self, device: str) -> ConnectedAgent | None:
        """None."""
        return None

    def all(self) -> Sequence[ConnectedAgent]:
        """Nothing."""
        return ()

    async def request(
        self,
        device: str,
        data: bytes,
        *,
        timeout: float = 30,  # noqa: ASYNC109 (as in the port)
        container: bool = False,
    ) -> bytes:
        """Always AgentUnavailable."""
        raise AgentUnavailable(f"The agent of {device} is not connected: there is no mesh.")
