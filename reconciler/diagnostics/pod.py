"""Decides what keeps a labelled pod from its credentials, as far as Kubernetes tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgefarm import names
from edgefarm.findings import Code, Finding, fine, wrong
from reconciler.desired.advice import advise
from reconciler.desired.membership import DEFAULT_SERVICE_ACCOUNT
from reconciler.desired.resources import FoundNetwork
from reconciler.ports import Object

#: What an Event on the pod says, as a finding; and where to look further.
_ADVICE: Final[Mapping[str, tuple[Code, str]]] = {
    "NotInjected": (Code.POD_NOT_INJECTED, "`edgefarm doctor` without a name tells whether the webhook works"),
    "NetworkNotFound": (Code.NETWORK_ABSENT, "`edgefarm status` lists the networks that exist"),
    "NamespaceNotInNetwork": (Code.NAMESPACE_NOT_IN_NETWORK, "whoever owns the Network has to add the namespace"),
    "NoGrant": (Code.NO_GRANT, "`edgefarm trace` shows which service accounts the Policies of the namespace cover"),
    "OtherPolicy": (Code.OTHER_POLICY, "status.serviceAccounts of the Policies tells which one has the account"),
}


@dataclass(frozen=True)
class PodFacts:
    """`pod` as the informer has it, None where it has none of that name with the label; `network` is the one that its
    label names, `policies` are those of its namespace, `audience` is what Vault wants in tokens."""

    subject: str
    pod: Object | None
    network: FoundNetwork | None
    policies: Sequence[Object]
    audience: str


def network_of(pod: Object) -> str:
    """The network that the label names."""
    return str(pod["metadata"]["labels"][names.LABEL_NETWORK])


def account_of(pod: Object) -> str:
    """The service account that it runs under."""
    return str((pod.get("spec") or {}).get("serviceAccountName") or DEFAULT_SERVICE_ACCOUNT)


def check_pod(facts: PodFacts) -> list[Finding]:
    """Label, network, grant and token."""
    if facts.pod is None:
        message = f"there is no such pod with the label {names.LABEL_NETWORK}"
        return [wrong(Code.POD_ABSENT, facts.subject, message, "correct its name and namespace, or give it the label")]
    advice = advise(facts.pod, facts.network, facts.policies)
    if advice is not None:
        code, more = _ADVICE[advice.reason]
        return [wrong(code, facts.subject, advice.message, more)]
    account = account_of(facts.pod)
    granted = f"the service account {account} has a grant in network {network_of(facts.pod)}"
    return [fine(Code.NO_GRANT, facts.subject, granted), *_audience(facts)]


def _audience(facts: PodFacts) -> list[Finding]:
    found = _token_audience(facts.pod or {})
    if found is None:
        return []
    if found == facts.audience:
        return [fine(Code.TOKEN_AUDIENCE, facts.subject, f"its token is for the audience {found}")]
    message = f"its token is for the audience {found!r}, but Vault wants {facts.audience!r}, so logins are refused"
    advice = "give vault.audience and the webhook's EDGEFARM_AUDIENCE the same value, and create the pod again"
    return [wrong(Code.TOKEN_AUDIENCE, facts.subject, message, advice)]


def _token_audience(pod: Mapping[str, object]) -> str | None:
    spec = pod.get("spec")
    volumes = spec.get("volumes") or () if isinstance(spec, Mapping) else ()
    for volume in volumes:
        if volume.get("name") != names.VOLUME_TOKEN:
            continue
        for source in (volume.get("projected") or {}).get("sources") or ():
            if "serviceAccountToken" in source:
                return str(source["serviceAccountToken"].get("audience") or "")
    return None
