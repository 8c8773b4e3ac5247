"""Decides what NACK, the JetStream controller of NATS, is told: its Stream and Account objects and its credentials.

NACK is meant as it is with `--control-loop`; without, it knows no JetStream domains. What it carries into JetStream,
and what it does not, was measured with it (tests/reconciler/test_nack_controller.py). Its own description:
https://github.com/nats-io/nack/blob/main/docs/api.md
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from edgefarm import names
from edgefarm.errors import InvalidCredential
from edgefarm.nats import jwt
from edgefarm.nats.creds import parse_creds
from reconciler.desired.owners import owner_reference
from reconciler.desired.streams import Place
from reconciler.desired.streams_config import Owner
from reconciler.ports import NACK_ACCOUNT, NACK_STREAM, NETWORK, SECRET, Object
from reconciler.status import find_condition, merge_patch

#: By these labels we find the objects that we have made for NACK.
LABELS: Final = {names.LABEL_MANAGED_BY: names.MANAGED_BY}
SELECTOR: Final = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
#: How long NACK's user is valid, and what must be left of that: a reconciler that is away for less harms nobody.
CREDENTIALS_LIFETIME: Final = timedelta(hours=24)
_SHORTEST_REST: Final = timedelta(hours=16)

_CREDENTIALS_FILE: Final = "nats.creds"
_CA_FILE: Final = "ca.crt"
_UNLIMITED: Final = -1
_SECOND: Final = 10**9
#: In nanoseconds: what a server takes for the window of duplicates by itself; it must not be longer than `maxAge`, and
#: NACK does not let the server see to that.
_WINDOW: Final = 120 * _SECOND
#: JetStream's names of what NACK has other names for; the rest are the same.
_SPEC_MEMBERS: Final = {
    "max_msgs": "maxMsgs",
    "max_msgs_per_subject": "maxMsgsPerSubject",
    "max_bytes": "maxBytes",
    "max_msg_size": "maxMsgSize",
    "num_replicas": "replicas",
}
_SAME_MEMBERS: Final = ("name", "metadata", "storage", "retention", "discard")


@dataclass(frozen=True)
class Hub:
    """How NACK reaches the hub; `ca` is PEM text (None: the system's roots)."""

    urls: tuple[str, ...]
    ca: str | None


@dataclass(frozen=True)
class Word:
    """What NACK last said about one of its Stream objects; `ready` None: nothing yet about what it says now."""

    ready: bool | None
    message: str = ""


def stream_object(owner: Owner, network: str, place: Place, config: Mapping[str, Any], namespace: str) -> Object:
    """NACK's Stream object for a stream with this JetStream configuration in one domain."""
    return {
        "apiVersion": NACK_STREAM.api_version,
        "kind": NACK_STREAM.kind,
        "metadata": {
            "name": names.nack_stream(owner.namespace, owner.name, place.domain),
            "namespace": namespace,
            "labels": {**LABELS, names.LABEL_OF_NETWORK: network},
            "annotations": owner.marks(),
        },
        "spec": _spec(network, place, config),
    }


def account_object(network: Mapping[str, Any], hub: Hub) -> Object:
    """NACK's Account object of a network (raw JSON of the Network object): where its users log in, and as whom."""
    secret = {"name": names.nack_account(network["metadata"]["name"])}
    spec: Object = {"servers": list(hub.urls), "creds": {"secret": secret, "file": _CREDENTIALS_FILE}}
    if hub.ca is not None:
        spec["tls"] = {"secret": dict(secret), "ca": _CA_FILE}
    return {
        "apiVersion": NACK_ACCOUNT.api_version,
        "kind": NACK_ACCOUNT.kind,
        "metadata": _owned(network),
        "spec": spec,
    }


def secret_object(network: Mapping[str, Any], hub: Hub, credentials: str) -> Object:
    """The Secret that the Account object refers to, with the text of a creds file."""
    data = {_CREDENTIALS_FILE: credentials, **({_CA_FILE: hub.ca} if hub.ca is not None else {})}
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": _owned(network),
        "type": "Opaque",
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in data.items()},
    }


def usable_credentials(secret: Mapping[str, Any] | None, account: str, issuer: str, now: datetime) -> str | None:
    """The creds file of the Secret, if it is a user of this account under this signing key (both `A…`) that need not be
    renewed yet."""
    text = ((secret or {}).get("data") or {}).get(_CREDENTIALS_FILE)
    try:
        credentials = base64.b64decode(text or "", validate=True).decode()
        claims = jwt.decode(parse_creds(credentials)[0])
    except (InvalidCredential, binascii.Error, UnicodeDecodeError):
        return None
    expires = claims.get("exp")
    if claims.get("iss") != issuer or (claims.get("nats") or {}).get("issuer_account") != account:
        return None
    if not isinstance(expires, int) or datetime.fromtimestamp(expires, UTC) - now < _SHORTEST_REST:
        return None
    return credentials


def is_ours(obj: Mapping[str, Any], network: str) -> bool:
    """Whether an object was made by us for this network."""
    labels = obj["metadata"].get("labels") or {}
    return bool(labels.items() >= {**LABELS, names.LABEL_OF_NETWORK: network}.items())


def is_login(secret: Mapping[str, Any]) -> bool:
    """Whether a Secret is what NACK logs in with in one of our networks."""
    network = network_of(secret)
    return network is not None and secret["metadata"]["name"] == names.nack_account(network)


def owner_of(obj: Mapping[str, Any]) -> Owner | None:
    """The Stream that one of NACK's Stream objects was made for."""
    return Owner.read({"metadata": obj["metadata"].get("annotations")})


def network_of(obj: Mapping[str, Any]) -> str | None:
    """The network that an object was made for."""
    network = (obj["metadata"].get("labels") or {}).get(names.LABEL_OF_NETWORK)
    return str(network) if network else None


def domain_of(obj: Mapping[str, Any]) -> str:
    """The JetStream domain that one of NACK's Stream objects is about."""
    return str((obj.get("spec") or {}).get("jsDomain") or names.MAIN_DOMAIN)


def mending_patch(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Object:
    """The merge patch that makes an object of ours what it shall be; empty when it is.

    Members that others have added to the spec are taken away: one of them could point NACK to another server. The
    defaults of NACK's definitions do not count.
    """
    metadata: Object = {}
    for member in ("labels", "annotations", "ownerReferences"):
        before, after = found["metadata"].get(member) or {}, wanted["metadata"].get(member) or {}
        if isinstance(after, Mapping) and not before.items() >= after.items():
            metadata[member] = dict(after)
        elif after and not isinstance(after, Mapping) and before != after:
            metadata[member] = after
    patch: Object = {"metadata": metadata} if metadata else {}
    for member in ("spec", "data"):
        before, after = _significant(found.get(member) or {}), _significant(wanted.get(member) or {})
        if before != after:
            patch[member] = merge_patch(before, after)
    if patch:
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        patch["metadata"] = {**patch.get("metadata", {}), **version}
    return patch


def release_patch(found: Mapping[str, Any]) -> Object:
    """The merge patch after which NACK lets the stream be when its object is deleted; empty when it would anyway."""
    if (found.get("spec") or {}).get("preventDelete"):
        return {}
    return {"spec": {"preventDelete": True}}


def not_carried(wanted: Mapping[str, Any], observed: Mapping[str, Any]) -> str:
    """The field that NACK would leave as it is in JetStream, with its old and new value; empty when there is none."""
    limit = observed.get("max_msgs_per_subject", _UNLIMITED)
    if limit > 0 and wanted["max_msgs_per_subject"] == _UNLIMITED:
        return f"spec.config.maxMsgsPerSubject (from {limit} to unlimited; a large number would do)"
    for name in ("sources", "mirror"):
        if observed.get(name) and not wanted[name]:
            return "spec.link (from a link to none)"
    return ""


def word_about(obj: Mapping[str, Any]) -> Word:
    """What NACK says about one of its Stream objects."""
    ready = find_condition(obj, "Ready")
    if ready is None or ready.get("status") not in ("True", "False"):
        return Word(None)
    if ready["status"] == "False":
        return Word(False, str(ready.get("message") or ""))
    current = (obj.get("status") or {}).get("observedGeneration") == obj["metadata"].get("generation")
    return Word(True if current else None)


def _owned(network: Mapping[str, Any]) -> Object:
    metadata = network["metadata"]
    return {
        "name": names.nack_account(metadata["name"]),
        "namespace": metadata["namespace"],
        "labels": {**LABELS, names.LABEL_OF_NETWORK: metadata["name"]},
        "ownerReferences": [owner_reference(NETWORK, metadata["name"], metadata["uid"], controller=True)],
    }


def _spec(network: str, place: Place, config: Mapping[str, Any]) -> Object:
    """Complete where NACK's own idea of a default would be another one, such as a `maxAge` of one year."""
    spec: Object = {
        "account": names.nack_account(network),
        "jsDomain": place.domain,
        **{name: config[name] for name in _SAME_MEMBERS},
        **{known_as: config[name] for name, known_as in _SPEC_MEMBERS.items()},
        "maxConsumers": _UNLIMITED,
        "maxAge": _duration(config["max_age"]),
    }
    if config["mirror"]:
        return {**spec, "mirror": _source(config["mirror"])}
    if config["sources"]:
        return {**spec, "sources": [_source(source) for source in config["sources"]]}
    return {
        **spec,
        "subjects": list(config["subjects"]),
        "duplicateWindow": _duration(min(_WINDOW, config["max_age"] or _WINDOW)),
    }


def _source(source: Mapping[str, Any]) -> Object:
    return {"name": source["name"], "externalApiPrefix": source["external"]["api"]}


def _duration(nanoseconds: int) -> str:
    """In the notation of Go; our ages are whole seconds."""
    return f"{nanoseconds // _SECOND}s"


def _significant(value: Any) -> Any:
    """Without members that say nothing: NACK leaves those out when it writes, and the API server puts them in."""
    if isinstance(value, Mapping):
        members = {name: _significant(member) for name, member in value.items()}
        return {name: member for name, member in members.items() if member not in (None, False, "", 0, [], {})}
    if isinstance(value, list | tuple):
        return [_significant(item) for item in value]
    return value
