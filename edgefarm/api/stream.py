"""The Stream kind: a JetStream stream in the hub or on every edge node of a network, and how the two are linked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from edgefarm import names
from edgefarm.api import schema
from edgefarm.api.meta import Meta
from edgefarm.api.reading import Fields
from edgefarm.errors import InvalidResource
from edgefarm.nats.subjects import check_filter
from edgefarm.units import MAX_INT64, parse_duration, parse_quantity

UNLIMITED: Final = -1
_MAX_INT32: Final = 2**31 - 1
#: Nanoseconds in a signed 64-bit number, in whole days.
_LONGEST_AGE: Final = timedelta(days=106_751)
#: What an API server can tell of that: each number by itself, and with few digits, for a rule must be cheap. Sums that
#: are too long, such as 200y200y, are left to `_age`.
_AGE_IN_RANGE: Final = (
    "^([0-9]{1,9}s|[0-9]{1,8}m|[0-9]{1,6}h|[0-9]{1,5}d|[0-9]{1,3}M|([01]?[0-9]{1,2}|2[0-8][0-9]|29[0-2])y)+$"
)
_STREAM_NAME: Final = "[A-Za-z0-9_-]{1,128}"
_STORAGES: Final = ("file", "memory")
_RETENTIONS: Final = ("limits", "interest", "workqueue")
_DISCARDS: Final = ("old", "new")

Location = Literal["edge", "main"]
_LOCATIONS: Final = ("edge", "main")


@dataclass(frozen=True)
class StreamConfig:
    """What JetStream is told about the stream; sizes in bytes, -1 is unlimited, `max_age` None is unlimited."""

    storage: str = "file"
    retention: str = "limits"
    max_msgs_per_subject: int = UNLIMITED
    max_msgs: int = UNLIMITED
    max_bytes: int = UNLIMITED
    max_age: timedelta | None = None
    max_msg_size: int = UNLIMITED
    discard: str = "old"


@dataclass(frozen=True)
class Stream:
    """One Stream object. `network` is None when its namespace must tell; `name` is the stream's name in JetStream.

    A stream has either subjects or a link. A link from main to an edge stream collects what that stores on all nodes;
    one from edge to a main stream keeps a copy of that on every node.
    """

    meta: Meta
    name: str
    location: Location
    network: str | None = None
    edge_network: str | None = None
    link: str | None = None
    subjects: tuple[str, ...] = ()
    config: StreamConfig = StreamConfig()

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Stream:
        """Parse raw JSON; raise InvalidResource with the field's path, InvalidName for a name with dots."""
        meta = Meta.parse(obj)
        names.check_label(meta.name, "stream")
        spec = Fields(obj.get("spec", {}), "spec")
        stream = cls(
            meta=meta,
            name=check_stream_name(spec, "name"),
            location="edge" if spec.choice("location", _LOCATIONS) == "edge" else "main",
            network=spec.optional("network"),
            edge_network=spec.optional("edgeNetwork"),
            link=_read_link(spec.child("link")) if spec.has("link") else None,
            subjects=tuple(dict.fromkeys(spec.texts("subjects", check_filter))),
            config=_read_config(spec.child("config")),
        )
        spec.closed()
        _check(stream, spec)
        return stream


def check_stream_name(fields: Fields, member: str) -> str:
    """A name that JetStream takes, without characters that would need care in subjects and files."""
    name = fields.text(member)
    if not re.fullmatch(_STREAM_NAME, name):
        raise InvalidResource(
            fields.path(member), f"{name!r} cannot name a stream: write 1 to 128 letters, digits, '-' or '_'"
        )
    return name


def _check(stream: Stream, spec: Fields) -> None:
    if stream.link is not None and stream.subjects:
        raise InvalidResource(
            spec.path("subjects"), "must be left out of a stream with a link: its messages come from the linked stream"
        )
    if stream.link is None and not stream.subjects:
        raise InvalidResource(spec.path("subjects"), "is required: write at least one subject, or a link")
    if stream.edge_network is not None and stream.location != "edge":
        raise InvalidResource(spec.path("edgeNetwork"), "is only for streams at location edge: leave it out")


def _read_link(fields: Fields) -> str:
    name = check_stream_name(fields, "stream")
    fields.closed()
    return name


def _read_config(fields: Fields) -> StreamConfig:
    config = StreamConfig(
        storage=fields.choice("storage", _STORAGES, "file"),
        retention=fields.choice("retention", _RETENTIONS, "limits"),
        max_msgs_per_subject=_count(fields, "maxMsgsPerSubject", MAX_INT64),
        max_msgs=_count(fields, "maxMsgs", MAX_INT64),
        max_bytes=fields.converted("maxBytes", _size) or UNLIMITED,
        max_age=fields.converted("maxAge", _age) or None,
        max_msg_size=_count(fields, "maxMsgSize", _MAX_INT32),
        discard=fields.choice("discard", _DISCARDS, "old"),
    )
    fields.closed()
    return config


def _count(fields: Fields, member: str, most: int) -> int:
    value = fields.integer(member, UNLIMITED, low=UNLIMITED, high=most)
    if value == 0:
        raise InvalidResource(fields.path(member), "must not be 0: write -1 for unlimited")
    return value


def _size(value: Any) -> int:
    if value in (UNLIMITED, "-1"):
        return UNLIMITED
    size = parse_quantity(value)
    if size == 0:
        raise ValueError("must not be 0: write -1 for unlimited")
    return size


def _age(value: Any) -> timedelta:
    """Zero stands for unlimited."""
    if value in (UNLIMITED, "-1"):
        return timedelta(0)
    age = parse_duration(value)
    if age <= timedelta(0):
        raise ValueError("must be longer than zero: write -1 for unlimited")
    if age > _LONGEST_AGE:
        raise ValueError("is longer than JetStream can count (292 years): write -1 for unlimited")
    return age


def _limit(description: str, most: int | None = None) -> schema.Schema:
    """Without `most` it is the type's own, which must not be written: API servers read it inexactly and refuse all."""
    return schema.integer(
        f"{description} -1 (default): unlimited.",
        minimum=-1,
        **({} if most is None else {"maximum": most}),
        **{"x-kubernetes-validations": [{"rule": "self != 0", "message": "must not be 0: write -1 for unlimited"}]},
    )


_CONFIG: Final = schema.obj(
    {
        "storage": schema.text("Where messages are kept: file (default) or memory.", enum=list(_STORAGES)),
        "retention": schema.text(
            "How long messages are kept: limits (default) until a limit is reached, interest as long as there are "
            "consumers, workqueue until one has processed it.",
            enum=list(_RETENTIONS),
        ),
        "maxMsgsPerSubject": _limit("Messages kept of each subject."),
        "maxMsgs": _limit("Messages kept."),
        "maxBytes": schema.int_or_text(
            "Bytes kept, as a number or a quantity such as 500Mi. -1 (default): unlimited.",
            f"^-1$|{schema.QUANTITY}",
            (
                f"type(self) == int ? self == -1 || self >= 1 : self == '-1' || {schema.quantity_between('1')}",
                "must be a size from 1 to below 8Ei: write for example 500Mi, or -1 for unlimited",
            ),
        ),
        "maxAge": schema.int_or_text(
            "Age from which messages are removed. Units: s, m, h, d, M (30 days), y (365 days); "
            "-1 (default): unlimited.",
            f"^-1$|{schema.DURATION}",
            (
                "type(self) == int ? self == -1 : self == '-1' || self.matches('[1-9]')",
                "must be longer than zero, with a unit: write for example 90s, 1h30m or 30d, or -1 for unlimited",
            ),
            (
                f"type(self) == int || self == '-1' || self.matches('{_AGE_IN_RANGE}')",
                "must not be longer than 292 years: write for example 1h30m, 30d or 10y (large numbers in larger "
                "units), or -1 for unlimited",
            ),
        ),
        "maxMsgSize": _limit("Bytes of the largest message that is accepted.", _MAX_INT32),
        "discard": schema.text(
            "When a limit is reached: old (default) removes the oldest messages, new refuses further ones.",
            enum=list(_DISCARDS),
        ),
    },
    description="How JetStream keeps the messages.",
)

SPEC: Final = schema.obj(
    {
        "network": schema.text(
            "Network that the stream belongs to. May be omitted when exactly one network lists this namespace.",
            maxLength=63,
        ),
        "name": schema.text("Name of the stream in JetStream.", maxLength=128, pattern=f"^{_STREAM_NAME}$"),
        "location": schema.text(
            "main: one stream in the hub. edge: one on each node of the network's EdgeNetworks.", enum=list(_LOCATIONS)
        ),
        "edgeNetwork": schema.text(
            "At location edge: the only EdgeNetwork whose nodes have the stream. Unset: all of the network's.",
            maxLength=63,
        ),
        "link": schema.obj(
            {"stream": schema.text("Name of the linked stream.", maxLength=128, pattern=f"^{_STREAM_NAME}$")},
            required=["stream"],
            description="A stream of the other location. A main stream collects what the linked stream stores on all "
            "edge nodes; an edge stream is a copy of the linked main stream.",
        ),
        "subjects": schema.subject_list(
            "Subjects whose messages are stored. An edge stream stores what is published on its own node."
        ),
        "config": _CONFIG,
    },
    required=["name", "location"],
    description="What the stream stores, where, and for how long.",
    rules=[
        {
            "rule": "has(self.link) || (has(self.subjects) && size(self.subjects) > 0)",
            "message": "subjects is required: write at least one subject, or a link",
        },
        {
            "rule": "!has(self.link) || !has(self.subjects) || size(self.subjects) == 0",
            "message": "subjects must be left out of a stream with a link: its messages come from the linked stream",
        },
        {
            "rule": "!has(self.edgeNetwork) || self.location == 'edge'",
            "message": "edgeNetwork is only for streams at location edge: leave it out",
        },
    ],
)

STATUS: Final = schema.obj(
    {
        "conditions": schema.CONDITIONS,
        "network": schema.text("Network that the stream belongs to."),
        "name": schema.text("Name under which the stream was seen in JetStream."),
        "locations": {
            "type": "array",
            "description": "What was observed of the stream in each JetStream domain.",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["domain"],
            "items": schema.obj(
                {
                    "domain": schema.text("JetStream domain: main, or that of a node's leaf."),
                    "node": schema.text("The node, at location edge."),
                    "state": schema.text(
                        "Present: as it shall be. Pending: NACK was told. Unreachable: the node is away. "
                        "Refused: see the condition Ready.",
                        enum=["Present", "Pending", "Unreachable", "Refused"],
                    ),
                    "messages": schema.integer("Messages that it holds."),
                    "bytes": schema.integer("Bytes that it holds."),
                    "lag": schema.integer("Messages that the linked streams hold and this one has not yet received."),
                },
                required=["domain", "state"],
            ),
        },
    }
)
