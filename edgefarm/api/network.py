"""The Network kind: one isolated network, which is one NATS account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from edgefarm import names
from edgefarm.api import policy, schema
from edgefarm.api.meta import Meta
from edgefarm.api.policy import Permissions, read_permissions
from edgefarm.api.reading import Fields
from edgefarm.errors import InvalidResource


@dataclass(frozen=True)
class Limits:
    """Most bytes that JetStream may store; 0 is none."""

    file_storage: int = 0
    memory_storage: int = 0

    @classmethod
    def read(cls, fields: Fields) -> Limits:
        """From `limits` of a Network or EdgeNetwork; both spellings of the memory limit, but not both at once."""
        old, new = fields.quantity("immemorystorage"), fields.quantity("inmemorystorage")
        if old is not None and new is not None:
            raise InvalidResource(
                fields.path("immemorystorage"), "means the same as inmemorystorage: write only inmemorystorage"
            )
        limits = cls(file_storage=fields.quantity("filestorage") or 0, memory_storage=new or old or 0)
        fields.closed()
        return limits


@dataclass(frozen=True)
class CredentialTimes:
    """How long a sidecar's credentials are valid and how often it renews them; None takes the cluster's default."""

    renew_every: timedelta | None = None
    lifetime: timedelta | None = None


@dataclass(frozen=True)
class Network:
    """One Network object. At most one of the two default policy fields is set."""

    meta: Meta
    namespaces: tuple[str, ...] = ()
    limits: Limits = Limits()
    default_policy: Permissions | None = None
    default_policy_ref: str | None = None
    credentials: CredentialTimes = CredentialTimes()

    @property
    def name(self) -> str:
        return self.meta.name

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Network:
        """Parse raw JSON; raise InvalidResource with the field's path, InvalidName for a name with dots."""
        meta = Meta.parse(obj)
        names.check_label(meta.name, "network")
        spec = Fields(obj.get("spec", {}), "spec")
        permissions, ref = _read_default_policy(spec.child("defaultNetworkPolicy"))
        network = cls(
            meta=meta,
            namespaces=tuple(
                dict.fromkeys(spec.texts("namespaces", lambda name: names.check_label(name, "namespace")))
            ),
            limits=Limits.read(spec.child("limits")),
            default_policy=permissions,
            default_policy_ref=ref,
            credentials=_read_credentials(spec.child("credentials")),
        )
        spec.closed()
        return network


def _read_default_policy(fields: Fields) -> tuple[Permissions | None, str | None]:
    ref = fields.optional("ref")
    permissions = None
    if fields.has("spec"):
        if ref is not None:
            raise InvalidResource(fields.path("spec"), "and ref exclude each other: write only one of them")
        inline = fields.child("spec")
        permissions = read_permissions(inline)
        inline.closed()
    fields.closed()
    return permissions, ref


def _read_credentials(fields: Fields) -> CredentialTimes:
    times = CredentialTimes(fields.duration("renewEvery"), fields.duration("lifetime"))
    if times.renew_every and times.lifetime and times.renew_every * 3 > times.lifetime * 2:
        raise InvalidResource(fields.path("renewEvery"), "must be at most two thirds of lifetime")
    fields.closed()
    return times


SPEC: Final = schema.obj(
    {
        "namespaces": schema.label_list("Namespaces whose workload may join the network.", "namespace"),
        "limits": schema.limits("in the main NATS"),
        "defaultNetworkPolicy": schema.obj(
            {
                "ref": schema.text("Name of a Policy in the controller namespace to copy.", maxLength=63),
                "spec": schema.obj(policy.PERMISSION_PROPERTIES, description="The default policy itself."),
            },
            description="A Policy that every namespace of the network gets, named like the network; it also covers "
            "the service account default, so that the label alone is enough to join.",
            rules=[
                {
                    "rule": "!(has(self.ref) && has(self.spec))",
                    "message": "ref and spec exclude each other: write only one of them",
                }
            ],
        ),
        "credentials": schema.obj(
            {
                "renewEvery": schema.duration("How often sidecars renew their credentials."),
                "lifetime": schema.duration(
                    "How long credentials are valid: long enough for an edge node that is away. Revocation does not "
                    "wait for it."
                ),
            },
            description="Times of the credentials; defaults come from the reconciler's configuration.",
        ),
    },
    description="Who may join the network and what it may use.",
)

STATUS: Final = schema.obj(
    {
        "conditions": schema.CONDITIONS,
        "account": schema.text("Public key of the network's NATS account, as found on the servers."),
        "grants": schema.integer("Service accounts that can get credentials."),
        "policies": schema.integer("Policies that belong to the network."),
        "edgeNodes": schema.integer("Nodes that its EdgeNetworks select."),
        "streams": schema.integer("Streams that belong to the network."),
    }
)
