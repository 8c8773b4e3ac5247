"""What a controller is given and what it gives back: the contract between the runtime and the controllers.

Every controller module offers `build(context: Context) -> Registration`. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

import structlog

from reconciler.configuration import Configuration
from reconciler.ports import Agents, JetStream, Kind, Kube, LeafOnHub, LeafView, NatsSystem, NoAgents, Object
from reconciler.settings import Settings

if TYPE_CHECKING:
    from edgefarm.vault import Vault

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Key:
    """What a controller reconciles: one root object, never an event. Cluster-scoped: `namespace` is empty."""

    controller: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.controller, self.namespace, self.name) if part)


@dataclass(frozen=True)
class Result:
    """What follows a successful pass: nothing, or another one after `requeue_after`."""

    requeue_after: timedelta | None = None


class Controller(Protocol):
    """Brings the world of one root object closer to what is desired."""

    @property
    def name(self) -> str:
        """Name in keys, logs and metrics."""
        ...

    async def reconcile(self, key: Key) -> Result:
        """One pass. An EdgefarmError is logged as one sentence, anything else with a trace; both are retried with
        exponential back-off. Cancelled at once when the Lease is lost."""
        ...


#: From the old and the new object (one of them may be None; equal ones at a resync) to the keys of their roots.
Mapper = Callable[[Object | None, Object | None], Iterable[Key]]
#: From leaf connections that have come, gone, or changed their round trip to the keys of their roots; empty: anything
#: may have changed.
LeafMapper = Callable[[Sequence[LeafOnHub]], Iterable[Key]]
#: From names of devices whose agents have registered, went silent, or offer something else now, to keys of their roots.
AgentMapper = Callable[[Sequence[str]], Iterable[Key]]
#: From an object to the values under which an index finds it.
Indexer = Callable[[Object], Iterable[str]]


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Watch:
    """Objects whose changes concern a controller. Watches of the same objects share one informer.

    `namespace` None: all namespaces. `labels`: a label selector. `fields`: a field selector. `needed`: whether anybody
    has to know them, asked whenever another configuration comes into force; while nobody does, the store is empty.
    """

    kind: Kind
    mapper: Mapper
    namespace: str | None = None
    labels: str = ""
    fields: str = ""
    indexes: Mapping[str, Indexer] = field(default_factory=dict)
    needed: Callable[[], bool] = _always


@dataclass(frozen=True)
class Registration:
    """A controller and what wakes it: its watches, keys that are due at the start and at every resync anyway, and
    leafs and agents that come and go.

    `workers` are its own: a controller whose passes wait for many others, who may be slow, then keeps nobody else
    waiting. 0: it shares those of all others.
    """

    controller: Controller
    watches: Sequence[Watch]
    always: Sequence[Key] = ()
    leafs: LeafMapper | None = None
    agents: AgentMapper | None = None
    workers: int = 0


class Store(Protocol):
    """Read-only view of what an informer has seen. Objects are shared: never change one, copy it first."""

    @property
    def problem(self) -> str:
        """Why the API server does not offer an optional kind (see Kind); empty when it does."""
        ...

    def get(self, namespace: str | None, name: str) -> Object | None: ...

    def list(self, namespace: str | None = None) -> Sequence[Object]:
        """All objects, of one namespace when it is given; sorted by namespace and name."""
        ...

    def by_index(self, index: str, value: str) -> Sequence[Object]:
        """Objects that the named index (see Watch.indexes) files under `value`; sorted likewise."""
        ...


class Stores(Protocol):
    """Finds the store of a kind that the controller watches; for use in `reconcile`, not yet in `build`.

    `namespace` and `labels` are needed only where a kind is watched in several ways; `fields` always, as watched.
    """

    def __call__(
        self, kind: Kind, *, namespace: str | None = None, labels: str | None = None, fields: str = ""
    ) -> Store: ...


class Recorder(Protocol):
    """Writes Events about an object; repeats are merged, and a failure to write one never reaches the caller."""

    def normal(self, about: Mapping[str, Any], reason: str, message: str) -> None: ...

    def warning(self, about: Mapping[str, Any], reason: str, message: str) -> None: ...


class VaultCalls(Protocol):
    """The logged-in Vault client, run in a thread."""

    async def call(self, function: Callable[Concatenate[Vault, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`await context.vault.call(Vault.sign, key, payload)`: the client comes as the first argument.

        Raises VaultUnavailable (also while there is no configuration yet) and VaultRefused.
        """
        ...


class Servers(Protocol):
    """The servers that the reconciler runs itself, between their controllers and everybody else."""

    @property
    def accepted(self) -> Configuration | None:
        """The configuration that they shall follow; it comes into force for others when they are ready."""
        ...

    @property
    def accepted_text(self) -> str:
        """That configuration as it was written; empty when the ConfigMap holds another one since before we began."""
        ...

    @property
    def refusal(self) -> str:
        """Why the ConfigMap's configuration is not the accepted one; empty when it is."""
        ...

    def server_problems(self) -> Mapping[str, str]:
        """The servers that the reconciler runs, by name, and why each cannot be talked to (empty: it can)."""
        ...

    def report(self, server: str, *, authorities: str, problem: str) -> None:
        """Tell what was observed: the authorities of the server's certificate (PEM), and what it still lacks."""
        ...


class NoServers:
    """Where the reconciler runs no server."""

    accepted: Configuration | None = None
    accepted_text: str = ""
    refusal: str = ""

    def server_problems(self) -> Mapping[str, str]:
        """Nothing."""
        return {}

    def report(self, server: str, *, authorities: str, problem: str) -> None:
        """Nobody asks."""


@dataclass(frozen=True)
class Context:
    """All that the runtime offers to controllers."""

    kube: Kube
    store: Stores
    #: The configuration in force; None until the ConfigMap `network` was good once.
    configuration: Callable[[], Configuration | None]
    vault: VaultCalls
    #: The client of the configuration in force; raises NatsUnavailable while there is none.
    nats: Callable[[], NatsSystem]
    #: The JetStream API of a network's account, by the network's name; raises NatsUnavailable likewise.
    jetstream: Callable[[str], JetStream]
    events: Recorder
    clock: Callable[[], datetime]
    settings: Settings
    log: structlog.stdlib.BoundLogger
    #: The leafs as the hub sees them; asking costs nothing, because one poll serves all controllers.
    leafs: Callable[[], LeafView] = LeafView
    #: The agents that are connected now.
    agents: Callable[[], Agents] = NoAgents
    #: Have another root looked at soon, because of what a pass has found out.
    wake: Callable[[Key], None] = lambda _: None
    servers: Servers = field(default_factory=NoServers)
