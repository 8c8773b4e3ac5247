"""Decodes the protobuf bodies that Go clients send for built-in kinds; everything is answered in JSON.

kubectl's imperative commands and Helm's storage driver send a few small kinds this way. A kind or field that is not in
the tables is refused with 415 rather than dropped. Numbers: k8s.io/api and k8s.io/apimachinery, generated.proto.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from localcluster.apiserver.failures import ApiError, bad_request
from localcluster.apiserver.store import Json

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"
#: Field number -> (JSON name, type). Types: `s` string, `b` bytes, `i` integer that 0 leaves unset, `n` integer that
#: may be 0, `?` boolean, else a message; a leading `*` repeats, a leading `%` is a map from strings.
_Message = Mapping[int, tuple[str, str]]

_MESSAGES: Final[Mapping[str, _Message]] = {
    "Unknown": {1: ("type", "TypeMeta"), 2: ("raw", "b"), 3: ("contentEncoding", "s"), 4: ("contentType", "s")},
    "TypeMeta": {1: ("apiVersion", "s"), 2: ("kind", "s")},
    "ObjectMeta": {
        1: ("name", "s"),
        2: ("generateName", "s"),
        3: ("namespace", "s"),
        4: ("selfLink", "s"),
        5: ("uid", "s"),
        6: ("resourceVersion", "s"),
        7: ("generation", "i"),
        8: ("creationTimestamp", "Time"),
        9: ("deletionTimestamp", "Time"),
        10: ("deletionGracePeriodSeconds", "n"),
        11: ("labels", "%s"),
        12: ("annotations", "%s"),
        13: ("ownerReferences", "*OwnerReference"),
        14: ("finalizers", "*s"),
        17: ("managedFields", "*ManagedFieldsEntry"),
    },
    "ManagedFieldsEntry": {
        1: ("manager", "s"),
        2: ("operation", "s"),
        3: ("apiVersion", "s"),
        4: ("time", "Time"),
        6: ("fieldsType", "s"),
        7: ("fieldsV1", "FieldsV1"),
        8: ("subresource", "s"),
    },
    "FieldsV1": {1: ("raw", "b")},
    "OwnerReference": {
        1: ("kind", "s"),
        3: ("name", "s"),
        4: ("uid", "s"),
        5: ("apiVersion", "s"),
        6: ("controller", "?"),
        7: ("blockOwnerDeletion", "?"),
    },
    "Time": {1: ("seconds", "n"), 2: ("nanos", "n")},
    "MicroTime": {1: ("seconds", "n"), 2: ("nanos", "n")},
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "n"),
        2: ("preconditions", "Preconditions"),
        3: ("orphanDependents", "?"),
        4: ("propagationPolicy", "s"),
        5: ("dryRun", "*s"),
    },
    "Preconditions": {1: ("uid", "s"), 2: ("resourceVersion", "s")},
    "Namespace": {1: ("metadata", "ObjectMeta"), 2: ("spec", "NamespaceSpec"), 3: ("status", "NamespaceStatus")},
    "NamespaceSpec": {1: ("finalizers", "*s")},
    "NamespaceStatus": {1: ("phase", "s")},
    "ConfigMap": {1: ("metadata", "ObjectMeta"), 2: ("data", "%s"), 3: ("binaryData", "%b"), 4: ("immutable", "?")},
    "Secret": {
        1: ("metadata", "ObjectMeta"),
        2: ("data", "%b"),
        3: ("type", "s"),
        4: ("stringData", "%s"),
        5: ("immutable", "?"),
    },
    "ServiceAccount": {
        1: ("metadata", "ObjectMeta"),
        2: ("secrets", "*ObjectReference"),
        3: ("imagePullSecrets", "*LocalObjectReference"),
        4: ("automountServiceAccountToken", "?"),
    },
    "ObjectReference": {
        1: ("kind", "s"),
        2: ("namespace", "s"),
        3: ("name", "s"),
        4: ("uid", "s"),
        5: ("apiVersion", "s"),
        6: ("resourceVersion", "s"),
        7: ("fieldPath", "s"),
    },
    "LocalObjectReference": {1: ("name", "s")},
    "SelfSubjectReview": {1: ("metadata", "ObjectMeta"), 2: ("status", "Empty")},
    "SelfSubjectAccessReview": {
        1: ("metadata", "ObjectMeta"),
        2: ("spec", "AccessReviewSpec"),
        3: ("status", "AccessReviewStatus"),
    },
    "SelfSubjectRulesReview": {
        1: ("metadata", "ObjectMeta"),
        2: ("spec", "RulesReviewSpec"),
        3: ("status", "RulesReviewStatus"),
    },
    "RulesReviewSpec": {1: ("namespace", "s")},
    "RulesReviewStatus": {},
    "AccessReviewSpec": {
        1: ("resourceAttributes", "ResourceAttributes"),
        2: ("nonResourceAttributes", "PathAttributes"),
    },
    "AccessReviewStatus": {1: ("allowed", "?"), 2: ("reason", "s"), 3: ("evaluationError", "s"), 4: ("denied", "?")},
    "ResourceAttributes": {
        1: ("namespace", "s"),
        2: ("verb", "s"),
        3: ("group", "s"),
        4: ("version", "s"),
        5: ("resource", "s"),
        6: ("subresource", "s"),
        7: ("name", "s"),
    },
    "PathAttributes": {1: ("path", "s"), 2: ("verb", "s")},
    "TokenRequest": {
        1: ("metadata", "ObjectMeta"),
        2: ("spec", "TokenRequestSpec"),
        3: ("status", "TokenRequestStatus"),
    },
    "TokenRequestSpec": {
        1: ("audiences", "*s"),
        3: ("boundObjectRef", "BoundObjectReference"),
        4: ("expirationSeconds", "n"),
    },
    "TokenRequestStatus": {1: ("token", "s"), 2: ("expirationTimestamp", "Time")},
    "BoundObjectReference": {1: ("kind", "s"), 2: ("apiVersion", "s"), 3: ("name", "s"), 4: ("uid", "s")},
    "Role": {1: ("metadata", "ObjectMeta"), 2: ("rules", "*PolicyRule")},
    "PolicyRule": {
        1: ("verbs", "*s"),
        2: ("apiGroups", "*s"),
        3: ("resources", "*s"),
        4: ("resourceNames", "*s"),
        5: ("nonResourceURLs", "*s"),
    },
    "RoleBinding": {1: ("metadata", "ObjectMeta"), 2: ("subjects", "*Subject"), 3: ("roleRef", "RoleRef")},
    "Subject": {1: ("kind", "s"), 2: ("apiGroup", "s"), 3: ("name", "s"), 4: ("namespace", "s")},
    "RoleRef": {1: ("apiGroup", "s"), 2: ("kind", "s"), 3: ("name", "s")},
    "Lease": {1: ("metadata", "ObjectMeta"), 2: ("spec", "LeaseSpec")},
    "LeaseSpec": {
        1: ("holderIdentity", "s"),
        2: ("leaseDurationSeconds", "n"),
        3: ("acquireTime", "MicroTime"),
        4: ("renewTime", "MicroTime"),
        5: ("leaseTransitions", "n"),
    },
    "Eviction": {1: ("metadata", "ObjectMeta"), 2: ("deleteOptions", "DeleteOptions")},
    "Deployment": {1: ("metadata", "ObjectMeta"), 2: ("spec", "DeploymentSpec"), 3: ("status", "Empty")},
    "DeploymentSpec": {
        1: ("replicas", "n"),
        2: ("selector", "LabelSelector"),
        3: ("template", "PodTemplateSpec"),
        4: ("strategy", "DeploymentStrategy"),
        5: ("minReadySeconds", "i"),
        6: ("revisionHistoryLimit", "n"),
        7: ("paused", "?"),
        9: ("progressDeadlineSeconds", "n"),
    },
    "DeploymentStrategy": {1: ("type", "s")},
    "LabelSelector": {1: ("matchLabels", "%s")},
    "PodTemplateSpec": {1: ("metadata", "ObjectMeta"), 2: ("spec", "PodSpec")},
    # As far as `kubectl create deployment` goes.
    "PodSpec": {
        2: ("containers", "*Container"),
        3: ("restartPolicy", "s"),
        6: ("dnsPolicy", "s"),
        8: ("serviceAccountName", "s"),
        9: ("serviceAccount", "s"),
        10: ("nodeName", "s"),
        11: ("hostNetwork", "?"),
        12: ("hostPID", "?"),
        13: ("hostIPC", "?"),
        16: ("hostname", "s"),
        17: ("subdomain", "s"),
        19: ("schedulerName", "s"),
        24: ("priorityClassName", "s"),
    },
    "Container": {
        1: ("name", "s"),
        2: ("image", "s"),
        3: ("command", "*s"),
        4: ("args", "*s"),
        5: ("workingDir", "s"),
        6: ("ports", "*ContainerPort"),
        8: ("resources", "Empty"),
        13: ("terminationMessagePath", "s"),
        14: ("imagePullPolicy", "s"),
        16: ("stdin", "?"),
        17: ("stdinOnce", "?"),
        18: ("tty", "?"),
        20: ("terminationMessagePolicy", "s"),
    },
    "ContainerPort": {
        1: ("name", "s"),
        2: ("hostPort", "i"),
        3: ("containerPort", "i"),
        4: ("protocol", "s"),
        5: ("hostIP", "s"),
    },
    "Empty": {},
}
#: Kinds whose message has another name.
_KINDS: Final[Mapping[str, str]] = {"ClusterRole": "Role", "ClusterRoleBinding": "RoleBinding"}
#: Messages that a client may fill although the server sets them anyway.
_IGNORED: Final = frozenset({"Empty", "AccessReviewStatus", "RulesReviewStatus", "TokenRequestStatus"})


def decode(body: bytes) -> Json:
    """The object in a `application/vnd.kubernetes.protobuf` body; 415 when it cannot be shown completely."""
    if not body.startswith(_MAGIC):
        raise _malformed("it is not in Kubernetes' envelope")
    envelope = _message(memoryview(body)[len(_MAGIC) :], "Unknown")
    kind = envelope.get("type", {}).get("kind", "")
    name = _KINDS.get(kind, kind)
    if name not in _MESSAGES or envelope.get("contentEncoding"):
        raise _unsupported(f"localcluster reads {kind or 'this object'} in JSON or YAML only, not in protobuf")
    raw = base64.b64decode(envelope.get("raw", ""))
    obj = {"kind": kind, "apiVersion": envelope["type"].get("apiVersion", ""), **_message(memoryview(raw), name)}
    if kind == "ClusterRole":
        obj.setdefault("rules", [])
    return obj


def _message(data: memoryview, name: str) -> Json:
    known = _MESSAGES[name]
    result: Json = {}
    for number, value in _wire(data):
        if name in _IGNORED:
            continue
        if number not in known:
            raise _unsupported(f"localcluster does not know field {number} of {name} in protobuf: use JSON or YAML")
        field, kind = known[number]
        if isinstance(value, int) is not (kind.lstrip("*") in ("i", "n", "?")):
            raise _malformed(f"field {number} of {name} has the wrong wire type")
        if kind.startswith("*"):
            result.setdefault(field, []).append(_value(value, kind[1:]))
        elif kind.startswith("%"):
            pair = dict(_wire(value))
            if any(isinstance(part, int) for part in pair.values()):
                raise _malformed(f"field {number} of {name} is not a map of strings")
            result.setdefault(field, {})[_text(pair.get(1, b""))] = _value(pair.get(2, b""), kind[1:])
        else:
            decoded = _value(value, kind)
            if decoded not in ("", None, {}) and not (kind == "i" and decoded == 0):
                result[field] = decoded
    return result


def _value(value: Any, kind: str) -> Any:
    match kind:
        case "s":
            return _text(value)
        case "b":
            return base64.b64encode(value).decode()
        case "i" | "n":
            return value - (1 << 64) if value >= 1 << 63 else value
        case "?":
            return bool(value)
        case "Time" | "MicroTime":
            return _time(value, kind)
        case "FieldsV1":
            return {}
    return _message(value, kind)


def _text(value: memoryview | bytes) -> str:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise _malformed("a string in it is not UTF-8") from None


def _time(data: memoryview, kind: str) -> str | None:
    parts = dict(_wire(data))
    if not parts:
        return None
    try:
        moment = datetime.fromtimestamp(parts.get(1, 0), UTC).replace(microsecond=parts.get(2, 0) // 1000)
    except (ValueError, OverflowError, OSError, TypeError):
        raise _malformed("a time in it is out of range") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if kind == "MicroTime" else "%Y-%m-%dT%H:%M:%SZ")


def _wire(data: memoryview | bytes) -> Iterator[tuple[int, Any]]:
    """The fields of one message: number and integer or bytes."""
    at = 0
    try:
        while at < len(data):
            tag, at = _varint(data, at)
            match tag & 7:
                case 0:
                    value, at = _varint(data, at)
                    yield tag >> 3, value
                case 2:
                    length, at = _varint(data, at)
                    if at + length > len(data):
                        raise IndexError
                    yield tag >> 3, data[at : at + length]
                    at += length
                case _:
                    raise _unsupported("the protobuf body uses a wire type that Kubernetes does not use")
    except IndexError:
        raise _malformed("it ends in the middle of a field") from None


def _varint(data: memoryview | bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _malformed(why: str) -> ApiError:
    return bad_request(f"the protobuf body cannot be read: {why}")


def _unsupported(message: str) -> ApiError:
    return ApiError(415, "UnsupportedMediaType", message)
