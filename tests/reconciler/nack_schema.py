"""What NACK takes, as definitions of our own after its documentation: kinds, fields, values and defaults.

https://github.com/nats-io/nack/blob/main/docs/api.md describes `jetstream.nats.io/v1beta2`.
"""

from __future__ import annotations

from typing import Any, Final

from reconciler.ports import NACK_ACCOUNT, NACK_STREAM, Kind, Object

Schema = dict[str, Any]


def _text(**limits: Any) -> Schema:
    return {"type": "string", **limits}


def _number(default: int | None = None, **limits: Any) -> Schema:
    return {"type": "integer", **({} if default is None else {"default": default}), **limits}


def _flags(*names: str) -> dict[str, Schema]:
    return {name: {"type": "boolean", "default": False} for name in names}


def _object(**members: Schema) -> Schema:
    return {"type": "object", "properties": members}


def _list(items: Schema, **limits: Any) -> Schema:
    return {"type": "array", "items": items, **limits}


_TRANSFORM: Final = _object(source=_text(), dest=_text())
_SOURCE: Final = _object(
    name=_text(),
    optStartSeq=_number(),
    optStartTime=_text(),
    filterSubject=_text(),
    externalApiPrefix=_text(),
    externalDeliverPrefix=_text(),
    subjectTransforms=_list(_TRANSFORM),
)
_NAME: Final = "^[^.*>]*$"
_STATUS: Final = _object(
    observedGeneration=_number(),
    conditions=_list(
        _object(**{name: _text() for name in ("type", "status", "lastTransitionTime", "reason", "message")})
    ),
)

STREAM_SPEC: Final = _object(
    # what it is
    name=_text(pattern=_NAME, minLength=1),
    description=_text(),
    metadata={"type": "object", "additionalProperties": _text()},
    subjects=_list(_text(minLength=1)),
    mirror=_SOURCE,
    sources=_list(_SOURCE),
    # how messages are kept
    storage=_text(enum=["file", "memory"], default="memory"),
    retention=_text(enum=["limits", "interest", "workqueue"], default="limits"),
    discard=_text(enum=["old", "new"], default="old"),
    maxConsumers=_number(-1, minimum=-1),
    maxMsgs=_number(-1, minimum=-1),
    maxBytes=_number(-1, minimum=-1),
    maxMsgSize=_number(-1, minimum=-1),
    maxMsgsPerSubject=_number(0),
    maxAge=_text(default=""),
    replicas=_number(1, minimum=1),
    duplicateWindow=_text(),
    compression=_text(enum=["s2", "none", ""], default=""),
    firstSequence={"type": "number", "default": 0},
    persistMode=_text(default=""),
    subjectDeleteMarkerTtl=_text(default=""),
    placement=_object(cluster=_text(), tags=_list(_text())),
    subjectTransform=_TRANSFORM,
    republish=_object(source=_text(), destination=_text()),
    consumerLimits=_object(inactiveThreshold=_text(), maxAckPending=_number()),
    **_flags("noAck", "sealed", "discardPerSubject", "denyDelete", "denyPurge", "allowRollup", "allowDirect"),
    **_flags("mirrorDirect", "allowMsgTtl", "allowMsgCounter", "allowAtomicPublish", "allowMsgSchedules"),
    # how NACK reaches it, and what it may do
    account=_text(pattern=_NAME),
    jsDomain=_text(),
    servers=_list(_text(), default=[]),
    creds=_text(default=""),
    nkey=_text(default=""),
    tls=_object(clientCert=_text(), clientKey=_text(), rootCas=_list(_text())),
    **_flags("tlsFirst", "preventDelete", "preventUpdate"),
)

_SECRET: Final = _object(name=_text())
ACCOUNT_SPEC: Final = _object(
    name=_text(pattern=_NAME, minLength=1),
    servers=_list(_text(minLength=1)),
    creds=_object(secret=_SECRET, file=_text()),
    nkey=_object(secret=_SECRET, seed=_text()),
    tls=_object(secret=_SECRET, ca=_text(), cert=_text(), key=_text()),
    token=_object(secret=_SECRET, token=_text()),
    user=_object(secret=_SECRET, user=_text(), password=_text()),
    **_flags("tlsFirst"),
)
#: NACK watches these, too, and we never make one.
_OTHERS: Final = ("Consumer", "KeyValue", "ObjectStore")


def nack_definitions() -> list[Object]:
    """The definitions that a cluster with NACK has."""
    other = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    kinds = [Kind(NACK_STREAM.group, NACK_STREAM.version, f"{name.lower()}s", name) for name in _OTHERS]
    return [
        _definition(NACK_STREAM, STREAM_SPEC),
        _definition(NACK_ACCOUNT, ACCOUNT_SPEC),
        *(_definition(kind, other) for kind in kinds),
    ]


def _definition(kind: Kind, spec: Schema) -> Object:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {"kind": kind.kind, "singular": kind.kind.lower(), "plural": kind.plural},
            "versions": [
                {
                    "name": kind.version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": _object(spec=spec, status=_STATUS)},
                }
            ],
        },
    }
