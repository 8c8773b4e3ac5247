"""The error tree of edgefarm-network.

    EdgefarmError
    ├── SettingsError            an environment variable of a program is missing or wrong
    ├── InvalidResource          a field of a custom resource or configuration is wrong
    ├── InvalidName              a name cannot be used to derive other names
    ├── InvalidSubject           not a valid NATS subject or filter
    ├── InvalidReview            an admission request that cannot be answered
    ├── InvalidCredential        an nkey, JWT or creds file cannot be read
    ├── InvalidMessage           bytes are no abbot-proto message that we know
    ├── NetworkFailed            a host's or container's network cannot be made as asked; nothing was changed
    ├── Conflict                 the object changed meanwhile: gather again
    └── Unavailable              an outside system did not answer, or not yet: try again
        ├── NoAnswer             nothing came within the time limit
        ├── VaultUnavailable
        ├── NatsUnavailable
        │   ├── AccountNotStored a server does not hold the account as it was pushed
        │   ├── DomainUnreachable no server of a JetStream domain answers: the node is away
        │   └── JetStreamSilent  the hub answers, but not its JetStream in this account
        ├── AgentUnavailable    the agent of an edge host is not connected, or did not answer in time
        ├── NackUnavailable     NACK has not done yet what it was told
        └── KubernetesUnavailable
    └── Refused                  an outside system answered, and the answer is no
        ├── VaultRefused
        ├── NatsRefused
        │   └── RestartNeeded   a server cannot take its changed configuration while it runs
        ├── AgentRefused        the command of an edge host's agent failed; its own words
        │   └── AgentUnsupported the host does not offer that at all
        └── KubernetesRefused

Messages are written for a human, name what is wrong and what to do, and never contain a secret.
"""

from __future__ import annotations

from collections.abc import Sequence


class EdgefarmError(Exception):
    """Anything this project raises on purpose; `str()` of it is one sentence that a user may read."""


class SettingsError(EdgefarmError):
    """One or more environment variables of a program are missing or wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class InvalidResource(EdgefarmError):
    """A field of an object that a user wrote is wrong; `field` is its path, e.g. `spec.limits.filestorage`."""

    def __init__(self, field: str, message: str, reason: str = "InvalidSpec") -> None:
        self.field = field
        self.message = message
        self.reason = reason
        super().__init__(f"{field}: {message}")


class InvalidName(EdgefarmError):
    """A name cannot be used, because names derived from it would be ambiguous or too long."""


class InvalidSubject(EdgefarmError):
    """Not a valid NATS subject or subject filter."""


class InvalidReview(EdgefarmError):
    """An admission request is no AdmissionReview that we can answer; `status` is the HTTP status to answer with."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class InvalidCredential(EdgefarmError):
    """An nkey, a JWT or a creds file is malformed; the message never repeats its content."""


class InvalidMessage(EdgefarmError):
    """Bytes are not the abbot-proto message that they should be; the error never repeats them."""


class NetworkFailed(EdgefarmError):
    """A host's or container's network cannot be made as asked; what was changed has been taken back.

    The message names the interface or container.
    """


class Conflict(EdgefarmError):
    """The object was changed by somebody else since it was read."""


class Unavailable(EdgefarmError):
    """An outside system cannot be reached or cannot serve now; the same call may succeed later."""


class NoAnswer(Unavailable):
    """Nothing came within the time limit: the other side hangs, or is very slow."""


class VaultUnavailable(Unavailable):
    """Vault or OpenBao is unreachable, sealed or standby."""


class NatsUnavailable(Unavailable):
    """No NATS server answered in time."""


class AccountNotStored(NatsUnavailable):
    """A server took an account, but what it has stored under it is still something else."""


class DomainUnreachable(NatsUnavailable):
    """No server of a JetStream domain answered: for a leaf's domain, its node is away."""


class AgentUnavailable(Unavailable):
    """The agent of an edge host is not connected, did not answer in time, or has too much to do."""


class NackUnavailable(Unavailable):
    """NACK, the JetStream controller of NATS, has not done yet what it was told; perhaps it does not run."""


class JetStreamSilent(NatsUnavailable):
    """The hub was reached, but its JetStream does not answer in an account: it is off, has not the storage that the
    account may use, or is overloaded."""


class KubernetesUnavailable(Unavailable):
    """The Kubernetes API cannot be reached or throttles us."""


class Refused(EdgefarmError):
    """An outside system understood the request and said no; repeating it unchanged will not help."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class VaultRefused(Refused):
    """Vault answered 4xx; `status` is the HTTP status (403 permission, 400 bad request, 404 absent)."""


class NatsRefused(Refused):
    """A NATS server refused a claim or a request."""


class RestartNeeded(NatsRefused):
    """A NATS server cannot take its changed configuration while it runs; it goes on with the one before."""


class KubernetesRefused(Refused):
    """The API server answered 4xx; `status` is the HTTP status."""


class AgentRefused(Refused):
    """The command that an edge host's agent runs failed; `status` is its exit status, the message its own words."""


class AgentUnsupported(AgentRefused):
    """An edge host does not offer what was asked for: its network is not enabled, or it runs no containers."""
