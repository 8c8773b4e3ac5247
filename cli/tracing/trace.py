"""Decides what to tell about one pod: its network and Policy, its subjects and streams, and who shares them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cli.tracing.members import Installation, Member, Membership, Readable, membership_of, shared_subjects
from edgefarm import names
from reconciler.desired.advice import Advice, advise
from reconciler.desired.membership import DEFAULT_SERVICE_ACCOUNT
from reconciler.desired.resources import FoundNetwork
from reconciler.ports import Object
from reconciler.status import find_condition

_FINISHED: Final = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Partner:
    """A Policy with whose users the pod has subjects in common, and its pods."""

    namespace: str
    policy: str
    subjects: tuple[str, ...]
    pods: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Its part of the JSON document."""
        return {
            "namespace": self.namespace,
            "policy": self.policy,
            "subjects": list(self.subjects),
            "pods": list(self.pods),
        }


@dataclass(frozen=True)
class Trace:
    """What is known of a pod's part in its network. `advice` says what keeps it from working there; without a `member`
    it has no rights at all."""

    pod: str
    namespace: str
    service_account: str
    network: str | None
    advice: Advice | None
    member: Member | None = None
    streams: tuple[Readable, ...] = ()
    heard_by: tuple[Partner, ...] = ()
    hears: tuple[Partner, ...] = ()

    def document(self) -> dict[str, Any]:
        """The JSON document; docs/cli.md describes it."""
        template = self.member.template if self.member is not None else None
        return {
            "pod": self.pod,
            "namespace": self.namespace,
            "serviceAccount": self.service_account,
            "network": self.network,
            "policy": self.member.name if self.member is not None else None,
            "problem": None if self.advice is None else {"reason": self.advice.reason, "message": self.advice.message},
            "publish": _lists(template.pub_allow, template.pub_deny) if template else _lists((), ()),
            "subscribe": _lists(template.sub_allow, template.sub_deny) if template else _lists((), ()),
            "streams": [each.document() for each in self.streams],
            "heardBy": [each.document() for each in self.heard_by],
            "hears": [each.document() for each in self.hears],
        }


def trace(pod: Object, around: Installation, pods: Sequence[Object] = ()) -> Trace:
    """What the pod may say and hear; `pods` are those of its network, as far as they are known."""
    metadata = pod["metadata"]
    namespace, account = metadata["namespace"], _account(pod)
    network = (metadata.get("labels") or {}).get(names.LABEL_NETWORK)
    if not network:
        return Trace(metadata["name"], namespace, account, None, _unlabelled(namespace, around))
    membership = membership_of(network, around)
    member = membership.holder(namespace, account)
    advice = _advice(pod, network, member, around)
    if member is None:
        return Trace(metadata["name"], namespace, account, network, advice)
    others = [each for each in pods if each["metadata"].get("uid") != metadata.get("uid")]
    mine = member
    return Trace(
        pod=metadata["name"],
        namespace=namespace,
        service_account=account,
        network=network,
        advice=advice,
        member=member,
        streams=tuple(member.readable(membership.stored)),
        heard_by=tuple(_partners(membership, others, lambda other: shared_subjects(mine, other))),
        hears=tuple(_partners(membership, others, lambda other: shared_subjects(other, mine))),
    )


def _partners(
    membership: Membership, pods: Sequence[Object], common: Callable[[Member], tuple[str, ...]]
) -> Iterator[Partner]:
    for member in membership.members:
        if subjects := common(member):
            names_of_pods = sorted(
                pod["metadata"]["name"]
                for pod in pods
                if pod["metadata"]["namespace"] == member.namespace
                and _account(pod) in member.accounts
                and not _has_ended(pod)
            )
            yield Partner(member.namespace, member.name, subjects, tuple(names_of_pods))


def _advice(pod: Object, network: str, member: Member | None, around: Installation) -> Advice | None:
    """What keeps the pod from its network: what the reconciler would tell it, and what that leaves out."""
    namespace = pod["metadata"]["namespace"]
    if (pod["metadata"].get("annotations") or {}).get(names.ANNOTATION_INJECT) == "false":
        return Advice(
            "InjectionDisabled",
            f"the annotation {names.ANNOTATION_INJECT} is 'false', so the pod gets no sidecar: remove it and create "
            "the pod again",
        )
    if _has_ended(pod):
        return Advice("Ended", "the pod has ended or is being deleted, and needs no credentials any more")
    found = next((each for each in map(FoundNetwork.read, around.networks) if each.name == network), None)
    if found is not None and found.network is None and not found.deleting:
        return Advice(
            "NetworkInvalid",
            f"network {network!r} has a mistake: {found.problem}; what was there before stays in place",
        )
    own = [policy for policy in around.policies if policy["metadata"]["namespace"] == namespace]
    advice = advise(pod, found, own)
    if advice is not None and advice.reason == "NoGrant" and member is not None:
        return _not_in_effect(member, own)
    return advice


def _not_in_effect(member: Member, policies: Sequence[Object]) -> Advice:
    """The Policy is there; what is missing is the reconciler's work."""
    obj = next(policy for policy in policies if policy["metadata"]["name"] == member.name)
    ready: Mapping[str, Any] = find_condition(obj, "Ready") or {}
    why = ready.get("message") or "the reconciler has not looked at it yet"
    return Advice("PolicyNotInEffect", f"the Policy {member.name!r} is not in effect yet: {why}")


def _unlabelled(namespace: str, around: Installation) -> Advice:
    listing = sorted(each.name for each in map(FoundNetwork.read, around.networks) if namespace in each.namespaces)
    if listing:
        advice = (
            f"the pod is in no network: write the label {names.LABEL_NETWORK}: {' or '.join(listing)} in its template, "
            "and create it again, because pods are injected when they are created"
        )
    else:
        advice = (
            f"the pod is in no network, and no Network lists its namespace: add {namespace!r} to a Network's "
            f"spec.namespaces, and write the label {names.LABEL_NETWORK}: NETWORK in the pod's template"
        )
    return Advice("NotLabelled", advice)


def _account(pod: Object) -> str:
    return (pod.get("spec") or {}).get("serviceAccountName") or DEFAULT_SERVICE_ACCOUNT


def _has_ended(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"] or (pod.get("status") or {}).get("phase") in _FINISHED


def _lists(allow: Collection[str], deny: Collection[str]) -> dict[str, list[str]]:
    return {"allow": list(allow), "deny": list(deny)}
