"""The Policy kind: what a group of service accounts may publish and subscribe in a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from edgefarm import names
from edgefarm.api import schema
from edgefarm.api.meta import Meta
from edgefarm.api.reading import Fields, read_time
from edgefarm.nats.subjects import check_filter


@dataclass(frozen=True)
class Permissions:
    """Subjects with wildcards. An empty allow list allows nothing; a deny wins over an allow."""

    allow_publish: tuple[str, ...] = ()
    allow_subscribe: tuple[str, ...] = ()
    deny_publish: tuple[str, ...] = ()
    deny_subscribe: tuple[str, ...] = ()


@dataclass(frozen=True)
class Policy:
    """One Policy object. `network` is None when its namespace must tell."""

    meta: Meta
    permissions: Permissions
    network: str | None = None
    service_accounts: tuple[str, ...] = ()
    rotate_keys_at: datetime | None = None
    revoke_keys_before: datetime | None = None

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Policy:
        """Parse raw JSON; raise InvalidResource with the field's path."""
        meta = Meta.parse(obj)
        names.check_label(meta.name, "policy")
        spec = Fields(obj.get("spec", {}), "spec")
        policy = cls(
            meta=meta,
            permissions=read_permissions(spec),
            network=spec.optional("network"),
            service_accounts=spec.texts("serviceAccounts", lambda name: names.check_label(name, "service account")),
            rotate_keys_at=_time_annotation(meta, names.ANNOTATION_ROTATE_KEYS_AT),
            revoke_keys_before=_time_annotation(meta, names.ANNOTATION_REVOKE_KEYS_BEFORE),
        )
        spec.closed()
        return policy


def read_permissions(spec: Fields) -> Permissions:
    """The four subject lists, as they stand in a Policy and in a Network's inline default policy."""
    return Permissions(
        allow_publish=spec.texts("allowpub", check_filter),
        allow_subscribe=spec.texts("allowsub", check_filter),
        deny_publish=spec.texts("denypub", check_filter),
        deny_subscribe=spec.texts("denysub", check_filter),
    )


def permission_fields(permissions: Permissions) -> dict[str, list[str]]:
    """The inverse of `read_permissions`: spec fields, without the empty ones."""
    fields = {
        "allowpub": permissions.allow_publish,
        "allowsub": permissions.allow_subscribe,
        "denypub": permissions.deny_publish,
        "denysub": permissions.deny_subscribe,
    }
    return {name: list(subjects) for name, subjects in fields.items() if subjects}


def _time_annotation(meta: Meta, annotation: str) -> datetime | None:
    value = meta.annotations.get(annotation)
    return None if value is None else read_time(value, f"metadata.annotations[{annotation}]")


PERMISSION_PROPERTIES: Final = {
    "allowpub": schema.subject_list("Subjects that may be published to. Empty: none."),
    "allowsub": schema.subject_list("Subjects that may be subscribed to. Empty: none."),
    "denypub": schema.subject_list("Subjects that may not be published to, whatever allowpub says."),
    "denysub": schema.subject_list("Subjects that may not be subscribed to, whatever allowsub says."),
}

SPEC: Final = schema.obj(
    {
        "network": schema.text(
            "Network that the policy belongs to. May be omitted when exactly one network lists this namespace.",
            maxLength=63,
        ),
        **PERMISSION_PROPERTIES,
        "serviceAccounts": schema.label_list(
            "Service accounts of this namespace that get these rights, besides the one named like the Policy.",
            "service account",
            most=64,
        ),
    },
    description="What a group of service accounts may do in a network.",
)

STATUS: Final = schema.obj(
    {
        "conditions": schema.CONDITIONS,
        "network": schema.text("Network that the policy belongs to."),
        "key": schema.text("Public key of the scoped signing key that is in use."),
        "keyVersion": schema.integer("Version of that key in Vault."),
        "serviceAccounts": {
            "type": "array",
            "description": "Service accounts that have a grant by this policy.",
            "items": {"type": "string"},
            "x-kubernetes-list-type": "set",
        },
    }
)
