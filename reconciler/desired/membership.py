"""Decides which network a Policy or Stream belongs to, and which of its service accounts a Policy gets there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from edgefarm import names
from edgefarm.api.meta import Meta
from edgefarm.api.policy import Policy
from reconciler.desired.resources import FoundNetwork, FoundPolicy, FoundStream

#: Every namespace has this service account; pods run under it unless they say otherwise.
DEFAULT_SERVICE_ACCOUNT = "default"


class Reason(StrEnum):
    """Why a Policy or Stream belongs to a network, or to none; also the reason of its condition `Accepted`."""

    ACCEPTED = "Accepted"
    #: Lives in the controller namespace and is what a Network's default policy is copied from.
    TEMPLATE = "Template"
    INVALID_SPEC = "InvalidSpec"
    NETWORK_NOT_FOUND = "NetworkNotFound"
    NETWORK_INVALID = "NetworkInvalid"
    NETWORK_AMBIGUOUS = "NetworkAmbiguous"
    NAMESPACE_NOT_IN_NETWORK = "NamespaceNotInNetwork"
    NO_NETWORK = "NoNetwork"


@dataclass(frozen=True)
class Verdict:
    """What becomes of one Policy or Stream. `network` is set exactly when it was accepted there."""

    reason: Reason
    message: str
    network: str | None = None


def assign(policy: FoundPolicy, networks: Mapping[str, FoundNetwork], controller_namespace: str) -> Verdict:
    """Find the network of a Policy: the one it names, else the only one that lists its namespace.

    A network that is being deleted counts as gone.
    """
    if policy.policy is None:
        return Verdict(Reason.INVALID_SPEC, policy.problem)
    if policy.namespace == controller_namespace:
        users = sorted(n.name for n in _alive(networks).values() if _copies(n, policy.name))
        if users:
            return Verdict(
                Reason.TEMPLATE, f"it is the default policy of {_list_of(users)}, whose namespaces get copies"
            )
    return _find(policy.namespace, policy.network, networks)


def assign_stream(stream: FoundStream, networks: Mapping[str, FoundNetwork]) -> Verdict:
    """Find the network of a Stream, by the same rule as that of a Policy."""
    if stream.stream is None:
        return Verdict(Reason.INVALID_SPEC, stream.problem)
    return _find(stream.namespace, stream.network, networks)


def _find(namespace: str, named: str | None, networks: Mapping[str, FoundNetwork]) -> Verdict:
    alive = _alive(networks)
    return _find_named(namespace, named, alive) if named is not None else _find_listing(namespace, alive)


def _alive(networks: Mapping[str, FoundNetwork]) -> dict[str, FoundNetwork]:
    return {name: network for name, network in networks.items() if not network.deleting}


def _copies(network: FoundNetwork, policy: str) -> bool:
    return network.network is not None and network.network.default_policy_ref == policy


def _find_named(namespace: str, name: str, networks: Mapping[str, FoundNetwork]) -> Verdict:
    network = networks.get(name)
    if network is None:
        return Verdict(Reason.NETWORK_NOT_FOUND, f"there is no network {name!r}: create it or correct spec.network")
    if namespace not in network.namespaces:
        return Verdict(
            Reason.NAMESPACE_NOT_IN_NETWORK,
            f"network {name!r} does not list the namespace {namespace!r}: add it to its spec.namespaces",
        )
    return _accept(network)


def _find_listing(namespace: str, networks: Mapping[str, FoundNetwork]) -> Verdict:
    listing = sorted(name for name, network in networks.items() if namespace in network.namespaces)
    if not listing:
        return Verdict(
            Reason.NO_NETWORK,
            f"no network lists the namespace {namespace!r}: add it to a Network's spec.namespaces",
        )
    if len(listing) > 1:
        return Verdict(
            Reason.NETWORK_AMBIGUOUS,
            f"the namespace {namespace!r} belongs to {_list_of(listing)}: write one of them to spec.network",
        )
    return _accept(networks[listing[0]])


def _accept(network: FoundNetwork) -> Verdict:
    if network.network is None:
        return Verdict(Reason.NETWORK_INVALID, f"network {network.name!r} has a mistake: {network.problem}")
    return Verdict(Reason.ACCEPTED, f"belongs to network {network.name!r}", network.name)


def _list_of(networks: Iterable[str]) -> str:
    found = [repr(name) for name in networks]
    return f"network {found[0]}" if len(found) == 1 else f"the networks {', '.join(found[:-1])} and {found[-1]}"


@dataclass(frozen=True)
class Claims:
    """The service accounts that one Policy gets, those that another Policy keeps (account to Policy name), and those
    that are for leafs only."""

    granted: tuple[str, ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)
    reserved: tuple[str, ...] = ()


def is_copy(meta: Meta, network: str) -> bool:
    """Whether a Policy is our copy of the network's default policy, rather than a user's own Policy of that name."""
    return (
        meta.name == names.default_policy(network)
        and meta.labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY
        and meta.labels.get(names.LABEL_OF_NETWORK) == network
    )


def share_accounts(
    policies: Iterable[Policy], network: str, reserved: Collection[tuple[str, str]] = ()
) -> dict[tuple[str, str], Claims]:
    """Give each service account of a network to one Policy; keys are (namespace, Policy name).

    Those that are `reserved` (namespace, account) go to none.

    The older Policy keeps an account that two claim; of two equally old ones the first by name. What a user wrote wins
    over copies of the default policy, which silently do without.
    """
    in_order = sorted(policies, key=lambda p: (is_copy(p.meta, network), p.meta.created, p.meta.name))
    holders: dict[tuple[str, str], str] = {}
    lost: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    kept: dict[tuple[str, str], list[str]] = defaultdict(list)
    for policy in in_order:
        namespace, name = policy.meta.namespace, policy.meta.name
        copy = is_copy(policy.meta, network)
        for account in _wanted_accounts(policy, copy=copy):
            if (namespace, account) in reserved:
                kept[namespace, name].append(account)
                continue
            holder = holders.setdefault((namespace, account), name)
            if holder != name and not copy:
                lost[namespace, name][account] = holder
    granted: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (namespace, account), name in holders.items():
        granted[namespace, name].append(account)
    found = [(policy.meta.namespace, policy.meta.name) for policy in in_order]
    return {
        key: Claims(tuple(sorted(granted.get(key, ()))), dict(lost.get(key, {})), tuple(kept.get(key, ())))
        for key in found
    }


def _wanted_accounts(policy: Policy, *, copy: bool) -> list[str]:
    accounts = [policy.meta.name, *policy.service_accounts, *((DEFAULT_SERVICE_ACCOUNT,) if copy else ())]
    return list(dict.fromkeys(accounts))
