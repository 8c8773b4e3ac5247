"""The findings of `edgefarm doctor`: their codes, and one finding as a value that travels as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

#: Where each code has a heading of its own.
_RUNBOOK: Final = "docs/runbooks/findings.md"


class Code(StrEnum):
    """What a check is about. A code names what may be wrong, also in a finding that says that it is not."""

    # The installation, as the API server tells of it.
    API_UNREACHABLE = "api-unreachable"
    NOT_INSTALLED = "not-installed"
    CRDS_MISSING = "crds-missing"
    CRDS_OUTDATED = "crds-outdated"
    CONFIGURATION_MISSING = "configuration-missing"
    CONFIGURATION_INVALID = "configuration-invalid"
    RECONCILER_ABSENT = "reconciler-absent"
    RECONCILER_NOT_LEADING = "reconciler-not-leading"
    RECONCILER_NOT_ANSWERING = "reconciler-not-answering"
    RECONCILER_WAITING = "reconciler-waiting"
    RECONCILER_MAY_NOT_BE_ASKED = "reconciler-may-not-be-asked"
    WEBHOOK_ABSENT = "webhook-absent"
    WEBHOOK_NOT_RUNNING = "webhook-not-running"
    WEBHOOK_WITHOUT_CA = "webhook-without-ca"
    WEBHOOK_CERTIFICATE_INVALID = "webhook-certificate-invalid"
    WEBHOOK_CERTIFICATE_EXPIRING = "webhook-certificate-expiring"
    WEBHOOK_UNREACHABLE = "webhook-unreachable"
    NAMESPACE_EXCLUDED = "namespace-excluded"
    # The servers, as the reconciler finds them.
    VAULT_UNREACHABLE = "vault-unreachable"
    VAULT_SEALED = "vault-sealed"
    VAULT_LOGIN_REFUSED = "vault-login-refused"
    VAULT_SETUP_OUTDATED = "vault-setup-outdated"
    NATS_UNREACHABLE = "nats-unreachable"
    NATS_REFUSES_CONTROLLER = "nats-refuses-controller"
    # A network.
    NETWORK_ABSENT = "network-absent"
    NETWORK_NOT_READY = "network-not-ready"
    POLICY_NOT_READY = "policy-not-ready"
    KEY_MISSING = "key-missing"
    ACCOUNT_MISSING = "account-missing"
    ACCOUNT_DIFFERS = "account-differs"
    ROLE_MISSING = "role-missing"
    ROLE_DIFFERS = "role-differs"
    DOCUMENT_MISSING = "document-missing"
    DOCUMENT_DIFFERS = "document-differs"
    JETSTREAM_OFF = "jetstream-off"
    EDGE_NETWORK_NOT_READY = "edge-network-not-ready"
    LEAF_ABSENT = "leaf-absent"
    LEAF_NOT_CONNECTED = "leaf-not-connected"
    STREAM_NOT_READY = "stream-not-ready"
    # A pod.
    POD_ABSENT = "pod-absent"
    POD_NOT_LABELLED = "pod-not-labelled"
    POD_NOT_INJECTED = "pod-not-injected"
    NAMESPACE_NOT_IN_NETWORK = "namespace-not-in-network"
    NO_GRANT = "no-grant"
    OTHER_POLICY = "other-policy"
    TOKEN_AUDIENCE = "token-audience"
    SIDECAR_IMAGE_PULL = "sidecar-image-pull"
    SIDECAR_NOT_STARTED = "sidecar-not-started"
    SIDECAR_NOT_READY = "sidecar-not-ready"
    # A device of the mesh.
    DEVICE_ABSENT = "device-absent"
    DEVICE_NOT_READY = "device-not-ready"
    AGENT_NOT_CONNECTED = "agent-not-connected"
    TUNNEL_DEAD = "tunnel-dead"
    PEER_STALE = "peer-stale"


class Status(StrEnum):
    """How a check ended; `unknown` when something it depends on failed already or may not be asked."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """What one check found: `subject` is the object or server, `message` one sentence on what is, `advice` one on what
    to do (empty when all is well).

    `code` is text, because another version may know more codes than this one.
    """

    code: str
    subject: str
    status: Status
    message: str
    advice: str = ""

    def document(self) -> dict[str, str]:
        """The finding as a JSON object."""
        return {
            "code": str(self.code),
            "subject": self.subject,
            "status": self.status.value,
            "message": self.message,
            "advice": self.advice,
        }

    @property
    def runbook(self) -> str:
        """Where the documentation says more, relative to the repository."""
        return f"{_RUNBOOK}#{self.code}"

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Finding:
        """The finding of a JSON object; ValueError or KeyError when it is none."""
        return cls(
            code=str(document["code"]),
            subject=str(document["subject"]),
            status=Status(document["status"]),
            message=str(document["message"]),
            advice=str(document.get("advice", "")),
        )


def fine(code: Code, subject: str, message: str) -> Finding:
    """All is well."""
    return Finding(code, subject, Status.OK, message)


def warning(code: Code, subject: str, message: str, advice: str) -> Finding:
    """It works, but not for long or not in full."""
    return Finding(code, subject, Status.WARNING, message, advice)


def wrong(code: Code, subject: str, message: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(code, subject, Status.ERROR, message, advice)


def unknown(code: Code, subject: str, message: str, advice: str = "") -> Finding:
    """It could not be looked at."""
    return Finding(code, subject, Status.UNKNOWN, message, advice)
