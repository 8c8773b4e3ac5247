"""Walks the chain that a question is about: gathers, decides, and stops where everything further would only follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgefarm import names
from edgefarm.errors import EdgefarmError
from edgefarm.findings import Code, Finding, Status, unknown, wrong
from reconciler.configuration import Configuration
from reconciler.context import Context
from reconciler.controllers.directory import Directory
from reconciler.controllers.inspection import Holdings, Inspector
from reconciler.desired.blueprint import Blueprint
from reconciler.desired.reservation import Reservation
from reconciler.desired.resources import FoundNetwork
from reconciler.diagnostics.asking import asked
from reconciler.diagnostics.conditions import explained
from reconciler.diagnostics.device import DeviceFacts, check_device
from reconciler.diagnostics.edges import LeafFacts, check_leafs
from reconciler.diagnostics.look import look_at_nats, look_at_vault
from reconciler.diagnostics.network import NetworkHoldings, NetworkObjects, check_holdings, check_objects
from reconciler.diagnostics.pod import PodFacts, account_of, check_pod, network_of
from reconciler.diagnostics.question import Question, Scope
from reconciler.diagnostics.servers import check_nats, check_vault
from reconciler.ports import EDGE_DEVICE, POD, Object

#: Seconds for reading all that Vault holds for a network, and for each question to NATS about it.
_VAULT_SECONDS: Final = 3.0
_NATS_SECONDS: Final = 2.0


@dataclass(frozen=True)
class _Servers:
    """What the walk past the servers has found, and which of them may be asked further."""

    findings: list[Finding]
    vault: bool
    nats: bool


class Diagnosis:
    """Answers one question after the other from what is in force now."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._namespace = context.settings.namespace
        self._directory = Directory(context)
        self._inspector = Inspector(context)

    async def findings(self, question: Question) -> list[Finding]:
        """All findings, in the order in which one thing depends on the other."""
        configuration = self._context.configuration()
        if configuration is None:
            message = "no configuration is in force, so nothing is done: its /readyz says what it waits for"
            advice = f"see the ConfigMap {names.CONFIGMAP} and, where the reconciler runs the servers, their pods"
            return [wrong(Code.RECONCILER_WAITING, "reconciler", message, advice)]
        servers = await self._servers(configuration)
        if question.scope is Scope.NETWORK:
            return [*servers.findings, *await self._network(question.name, configuration, servers)]
        if question.scope is Scope.POD:
            return [*servers.findings, *await self._pod(question, configuration, servers)]
        if question.scope is Scope.DEVICE:
            return [*servers.findings, *self._device(question.name, configuration)]
        return servers.findings

    async def _servers(self, configuration: Configuration) -> _Servers:
        facts = await look_at_vault(configuration, self._context.settings.vault_token_file)
        vault = check_vault(facts)
        nats = check_nats(await look_at_nats(self._context, configuration, facts.system_account))
        return _Servers([*vault, *nats], vault=_works(vault), nats=_works(nats))

    async def _network(self, name: str, configuration: Configuration, servers: _Servers) -> list[Finding]:
        obj = self._directory.network(name)
        if obj is None:
            return check_objects(NetworkObjects(name, None))
        edges = self._directory.edge_networks_of(name)
        objects = NetworkObjects(
            name,
            obj,
            policies=self._policies(obj),
            edge_networks=edges,
            streams=[stream for stream, _ in self._directory.streams_of(name)],
        )
        held = await self._held(obj, configuration, servers)
        holdings = check_holdings(name, held) if held is not None else [_not_compared(name, servers)]
        exists, *conditions = check_objects(objects, explained([*servers.findings, *holdings]))
        return [exists, *holdings, *conditions, *check_leafs(self._leafs(obj))]

    async def _pod(self, question: Question, configuration: Configuration, servers: _Servers) -> list[Finding]:
        pod = self._context.store(POD, labels=names.LABEL_NETWORK).get(question.namespace, question.name)
        obj = self._directory.network(network_of(pod)) if pod is not None else None
        found = check_pod(
            PodFacts(
                subject=f"Pod {question.namespace}/{question.name}",
                pod=pod,
                network=FoundNetwork.read(obj) if obj is not None else None,
                policies=self._directory.policies_in(question.namespace),
                audience=configuration.vault.audience,
            )
        )
        if pod is None or obj is None or not _works(found):
            return found
        network = obj["metadata"]["name"]
        role = names.grant_role(network, question.namespace, account_of(pod))
        held = await self._held(obj, configuration, servers)
        grant = [_not_compared(network, servers)]
        if held is not None:
            grant = check_holdings(network, held, frozenset((role,)))
        return [*found, *grant, *check_leafs(self._leafs(obj), (pod.get("spec") or {}).get("nodeName", ""))]

    def _device(self, name: str, configuration: Configuration) -> list[Finding]:
        facts = DeviceFacts(
            name=name,
            obj=self._context.store(EDGE_DEVICE, namespace=self._namespace).get(self._namespace, name),
            mesh_enabled=configuration.mesh.enabled,
            connected=self._context.agents().get(name) is not None,
        )
        return check_device(facts)

    async def _held(self, obj: Object, configuration: Configuration, servers: _Servers) -> NetworkHoldings | None:
        """None: it is not known what there shall be, because Vault does not work or the Network has a mistake."""
        network = FoundNetwork.read(obj).network
        if network is None or not servers.vault:
            return None
        blueprint = self._inspector.blueprint(obj, network, configuration)
        holdings = await asked(self._inspector.holdings(blueprint), _VAULT_SECONDS)
        if isinstance(holdings, EdgefarmError) or holdings.account is None:
            return NetworkHoldings(holdings)
        wanted = await asked(self._inspector.grants(blueprint, holdings.account, holdings), _VAULT_SECONDS)
        if not servers.nats:
            return NetworkHoldings(holdings, wanted)
        # Without all keys it is not known what the account shall say.
        is_known = not holdings.missing_keys
        account = self._inspector.account(blueprint, holdings.account, holdings) if is_known else None
        return NetworkHoldings(
            holdings,
            wanted,
            await asked(account, _NATS_SECONDS) if account is not None else None,
            await self._reservation(blueprint, holdings),
        )

    async def _reservation(self, blueprint: Blueprint, holdings: Holdings) -> Reservation | None:
        if holdings.missing_keys:
            return None
        found = await asked(self._inspector.reservation(blueprint), _NATS_SECONDS)
        return Reservation(None, str(found)) if isinstance(found, EdgefarmError) else found

    def _policies(self, network: Object) -> list[Object]:
        """Policies that belong to it or say so, each once."""
        name = network["metadata"]["name"]
        listed = FoundNetwork.listed_namespaces(network)
        mine = [
            policy
            for namespace in listed
            for policy in self._directory.policies_in(namespace)
            if (policy.get("spec") or {}).get("network") in (None, name)
        ]
        others = [p for p in self._directory.policies_naming(name) if p["metadata"]["namespace"] not in listed]
        return [*mine, *others]

    def _leafs(self, network: Object) -> LeafFacts:
        name = network["metadata"]["name"]
        labels = f"{names.LABEL_TYPE}={names.TYPE_LEAF}"
        return LeafFacts(
            network=name,
            edge_networks=self._directory.edge_networks_of(name),
            pods=self._context.store(POD, namespace=self._namespace, labels=labels).list(),
            view=self._context.leafs(),
            account=(network.get("status") or {}).get("account"),
        )


def _works(findings: list[Finding]) -> bool:
    return all(finding.status in (Status.OK, Status.WARNING) for finding in findings)


def _not_compared(network: str, servers: _Servers) -> Finding:
    why = "the Network has a mistake" if servers.vault else "Vault does not work"
    message = f"what Vault and NATS hold for it is not compared, because {why}"
    return unknown(Code.ROLE_MISSING, f"Network {network}", message)
