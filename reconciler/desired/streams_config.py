"""Decides what a stream is to be in JetStream, and what may be done about one that is different.

Which fields a server updates in place, and what it removes at once when it does, was measured on nats-server 2.15
(tests/reconciler/test_stream_server.py). Data is never removed unless the Stream says that it may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from edgefarm import names
from edgefarm.api.meta import Meta
from edgefarm.api.stream import UNLIMITED, Stream
from reconciler.desired.streams import Place, StreamPlan

_MICROSECOND: Final = timedelta(microseconds=1)
#: Members whose absence means the same as this value.
_ABSENT: Final[Mapping[str, Any]] = {"subjects": [], "sources": [], "mirror": None, "max_age": 0, "num_replicas": 1}
#: Members that are limits, with the names that users know them by.
_LIMITS: Final = {"max_msgs": "maxMsgs", "max_bytes": "maxBytes"}
#: What the server adds to a stream's metadata by itself begins with this.
_SERVERS_METADATA: Final = "_nats."

Kind = Literal["equal", "create", "update", "foreign", "cannot", "loss"]


@dataclass(frozen=True)
class Observed:
    """A stream as a server described it: the answer to STREAM.INFO (None: there is none), and how many messages its
    fullest subject has, where that was asked."""

    info: Mapping[str, Any] | None
    fullest_subject: int | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        return (self.info or {}).get("config") or {}

    @property
    def state(self) -> Mapping[str, Any]:
        return (self.info or {}).get("state") or {}

    @property
    def owner(self) -> Owner | None:
        """Whom it was made for; None when we did not make it."""
        return Owner.read(self.config)

    @property
    def messages(self) -> int:
        return int(self.state.get("messages", 0))

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return int(self.state.get("bytes", 0))

    @property
    def lag(self) -> int | None:
        """Messages that are still to come from linked streams, as the server knows; None without any."""
        info = self.info or {}
        linked = [*(info.get("sources") or ()), *([info["mirror"]] if info.get("mirror") else ())]
        return sum(int(each.get("lag", 0)) for each in linked) if linked else None


@dataclass(frozen=True)
class Step:
    """What is to be done in one domain: `config` is to be sent for create and update; otherwise `message` says why
    nothing is done."""

    kind: Kind
    config: Mapping[str, Any] | None = None
    message: str = ""


@dataclass(frozen=True)
class Owner:
    """The Stream object that a stream was made for."""

    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, meta: Meta) -> Owner:
        """The owner that an object's metadata makes of it."""
        return cls(meta.namespace, meta.name, meta.uid)

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Owner | None:
        """The owner of a stream as a server describes it; None when we did not make it."""
        metadata: Mapping[str, str] = config.get("metadata") or {}
        namespace, separator, name = metadata.get(names.STREAM_OWNER, "").partition("/")
        uid = metadata.get(names.STREAM_OWNER_UID)
        return cls(namespace, name, uid) if separator and uid else None

    def marks(self) -> dict[str, str]:
        """The metadata by which we know the stream again."""
        return {names.STREAM_OWNER: f"{self.namespace}/{self.name}", names.STREAM_OWNER_UID: self.uid}


def wanted_config(plan: StreamPlan, place: Place, main_replicas: int) -> dict[str, Any]:
    """All that we say about a stream, in the terms of JetStream (ADR-2, ADR-8); the rest are the server's defaults."""
    config = plan.stream.config
    return {
        "name": plan.stream.name,
        "metadata": Owner.of(plan.stream.meta).marks(),
        "storage": config.storage,
        "retention": config.retention,
        "discard": config.discard,
        "max_msgs": config.max_msgs,
        "max_msgs_per_subject": config.max_msgs_per_subject,
        "max_bytes": config.max_bytes,
        "max_msg_size": config.max_msg_size,
        "max_age": _nanoseconds(config.max_age),
        "num_replicas": main_replicas if place.domain == names.MAIN_DOMAIN else 1,
        **_origin(plan),
    }


def _origin(plan: StreamPlan) -> dict[str, Any]:
    """Where its messages come from."""
    link = plan.stream.link
    if link is None:
        return {"subjects": list(plan.stream.subjects), "sources": [], "mirror": None}
    linked = [{"name": link, "external": {"api": f"$JS.{place.domain}.API"}} for place in plan.sources]
    if plan.stream.location == "main":
        return {"subjects": [], "sources": linked, "mirror": None}
    return {"subjects": [], "sources": [], "mirror": linked[0]}


def _nanoseconds(age: timedelta | None) -> int:
    return 0 if age is None else age // _MICROSECOND * 1000


def decide(wanted: Mapping[str, Any], stream: Stream, observed: Observed, now: datetime) -> Step:
    """What is to be done so that the stream in one domain becomes `wanted`."""
    if observed.info is None:
        return Step("create", _without_defaults(wanted))
    if observed.owner != Owner.of(stream.meta):
        return Step(
            "foreign",
            message=f"a stream {stream.name!r} exists that was not made for this Stream, and is left alone: "
            "write another spec.name, or delete it",
        )
    changed = [name for name in wanted if _normal(name, wanted[name]) != _normal(name, observed.config.get(name))]
    if not changed:
        return Step("equal")
    problem = _impossible(wanted, observed.config, changed)
    if problem:
        return Step(
            "cannot", message=f"{problem} cannot be changed: delete the Stream and create it anew if its data may go"
        )
    losses = _losses(wanted, observed, changed, now)
    if losses and stream.meta.annotations.get(names.ANNOTATION_ALLOW_DATA_LOSS) != "true":
        return Step(
            "loss",
            message=f"{'; '.join(losses)}: choose other limits, or annotate the Stream with "
            f"{names.ANNOTATION_ALLOW_DATA_LOSS}=true if this data may go",
        )
    return Step("update", _update(wanted, observed.config))


def needs_fullest_subject(wanted: Mapping[str, Any], observed: Observed) -> bool:
    """Whether `decide` has to know how many messages the fullest subject has: asking for that is expensive."""
    limit = wanted["max_msgs_per_subject"]
    changed: bool = limit != observed.config.get("max_msgs_per_subject", limit)
    return changed and limit != UNLIMITED and observed.messages > limit


def _normal(name: str, value: Any) -> Any:
    """Equal for what means the same: servers leave out what is empty, add defaults, and keep the order of lists."""
    if value is None:
        value = _ABSENT.get(name)
    if name == "metadata":
        return Owner.read({"metadata": value})
    if name == "subjects":
        return sorted(value)
    if name == "sources":
        return sorted(map(_link, value))
    if name == "mirror":
        return _link(value) if value else None
    return value


def _link(source: Mapping[str, Any]) -> tuple[str, str]:
    return source["name"], (source.get("external") or {}).get("api", "")


def _without_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if value not in ([], None)}


def _update(wanted: Mapping[str, Any], observed: Mapping[str, Any]) -> dict[str, Any]:
    """The whole configuration to send: what we do not speak of stays as it is.

    But for the window of duplicates: it must not be longer than `max_age`, and left out it becomes the default again.
    """
    metadata = {
        key: text for key, text in (observed.get("metadata") or {}).items() if not key.startswith(_SERVERS_METADATA)
    }
    merged = {**observed, **wanted, "metadata": {**metadata, **wanted["metadata"]}}
    merged.pop("duplicate_window", None)
    return _without_defaults(merged)


def _impossible(wanted: Mapping[str, Any], observed: Mapping[str, Any], changed: Sequence[str]) -> str:
    """The field that JetStream does not change in place, with its old and new value; empty when there is none."""
    for name in ("storage", "retention"):
        old, new = observed.get(name), wanted[name]
        if name in changed and (name == "storage" or "workqueue" in (old, new)):
            return f"spec.config.{name} (from {old} to {new})"
    if "mirror" in changed and wanted["mirror"] is not None:
        mirror = observed.get("mirror")
        old = f"the link to {mirror['name']!r}" if mirror else "subjects"
        return f"spec.link.stream (from {old} to the link to {wanted['mirror']['name']!r})"
    return ""


def _losses(wanted: Mapping[str, Any], observed: Observed, changed: Sequence[str], now: datetime) -> list[str]:
    """What the server would remove as soon as it was told; phrases that say what and why.

    With `discard: new` a server removes nothing for maxMsgs and maxBytes.
    """
    if not observed.messages:
        return []
    losses = []
    held = {"max_msgs": observed.messages, "max_bytes": observed.size}
    for name, known_as in _LIMITS.items():
        if wanted["discard"] == "old" and wanted[name] != UNLIMITED and held[name] > wanted[name]:
            losses.append(f"spec.config.{known_as} ({wanted[name]}) is less than it holds ({held[name]})")
    if "max_msgs_per_subject" in changed and (observed.fullest_subject or 0) > wanted["max_msgs_per_subject"] > 0:
        losses.append(
            f"spec.config.maxMsgsPerSubject ({wanted['max_msgs_per_subject']}) is less than it holds of one subject "
            f"({observed.fullest_subject})"
        )
    oldest = _time(observed.state.get("first_ts"))
    if "max_age" in changed and wanted["max_age"] and oldest is not None:
        limit = timedelta(microseconds=wanted["max_age"] // 1000)
        if now - oldest > limit:
            since = oldest.isoformat(" ", "minutes")
            losses.append(f"spec.config.maxAge ({limit}) would remove older messages that it holds, since {since}")
    if "retention" in changed and wanted["retention"] == "interest":
        losses.append(
            f"spec.config.retention interest would remove those of its {observed.messages} messages that no consumer "
            "waits for"
        )
    return losses


def _time(text: Any) -> datetime | None:
    """A server's time; the year 1 stands for "never"."""
    return None if not isinstance(text, str) or text.startswith("0001-") else datetime.fromisoformat(text)
