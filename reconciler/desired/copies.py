"""Decides about the copies of a network's default policy in its workload namespaces."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgefarm import names
from edgefarm.api.meta import Meta
from edgefarm.api.network import Network
from edgefarm.api.policy import Permissions, Policy, permission_fields
from reconciler.desired.membership import is_copy
from reconciler.desired.resources import FoundPolicy


@dataclass(frozen=True)
class Template:
    """What a network's default policy allows. `permissions` None: there is none, or (with `problem`) it is unusable."""

    permissions: Permissions | None
    reason: str = ""
    problem: str = ""


@dataclass(frozen=True)
class CopyPlan:
    """Copies as they shall be (`wanted`: raw objects by namespace) and what must be done for that; namespaces where a
    user's own Policy has the name are `taken`."""

    wanted: Mapping[str, dict[str, Any]]
    create: tuple[str, ...]
    update: tuple[str, ...]
    delete: tuple[str, ...]
    taken: tuple[str, ...]


def find_template(network: Network, found: FoundPolicy | None) -> Template:
    """The network's default policy; `found` is what its reference names, if it has one."""
    if network.default_policy_ref is None:
        return Template(network.default_policy)
    where = f"the default policy {network.default_policy_ref!r} in the controller namespace"
    if found is None or found.deleting:
        return Template(None, "DefaultPolicyNotFound", f"{where} does not exist: create it, or correct the ref")
    if found.policy is None:
        return Template(None, "DefaultPolicyInvalid", f"{where} has a mistake: {found.problem}")
    return Template(found.policy.permissions)


def plan_copies(
    network: Network, template: Template, namespaces: Collection[str], found: Mapping[str, Mapping[str, Any]]
) -> CopyPlan:
    """What to do so that each of `namespaces` (listed and existing) has the copy.

    `found` are the raw Policies with the copies' name by namespace. With an unusable template existing copies stay as
    they are: a typing mistake must not cut anybody off.
    """
    if template.problem:
        return CopyPlan({}, (), (), (), ())
    ours = {namespace for namespace, obj in found.items() if is_copy(Meta.parse(obj), network.name)}
    if template.permissions is None:
        return CopyPlan({}, (), (), tuple(sorted(ours)), ())
    spec = {"network": network.name, **permission_fields(template.permissions)}
    wanted = {ns: {**found[ns], "spec": spec} for ns in namespaces if ns in ours}
    wanted |= {ns: _new_copy(network.name, ns, spec) for ns in namespaces if ns not in found}
    return CopyPlan(
        wanted=wanted,
        create=tuple(sorted(wanted.keys() - ours)),
        update=tuple(sorted(ns for ns in wanted.keys() & ours if found[ns]["spec"] != spec)),
        delete=tuple(sorted(ours - wanted.keys())),
        taken=tuple(sorted(set(namespaces) - wanted.keys())),
    )


def effective_policies(policies: Collection[Policy], network: str, plan: CopyPlan, now: datetime) -> list[Policy]:
    """The network's Policies as they will be once the plan is carried out, so that one pass is enough."""
    changed = {*plan.create, *plan.update, *plan.delete}
    kept = [policy for policy in policies if not (is_copy(policy.meta, network) and policy.meta.namespace in changed)]
    updated = [FoundPolicy.read(plan.wanted[namespace]).policy for namespace in plan.update]
    created = [_as_created(plan.wanted[namespace], now) for namespace in plan.create]
    return [*kept, *(policy for policy in updated if policy is not None), *created]


def _new_copy(network: str, namespace: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Policy",
        "metadata": {
            "name": names.default_policy(network),
            "namespace": namespace,
            "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_OF_NETWORK: network},
        },
        "spec": dict(spec),
    }


def _as_created(copy: Mapping[str, Any], now: datetime) -> Policy:
    metadata = {**copy["metadata"], "uid": "", "creationTimestamp": now.isoformat()}
    return Policy.parse({**copy, "metadata": metadata})
