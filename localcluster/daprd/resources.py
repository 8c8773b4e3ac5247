"""Component files: what daprd reads from its resources folder, and the metadata of pubsub.jetstream. Pure but for
reading the folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

_TYPE: Final = "pubsub.jetstream"
_VERSION: Final = "v1"
_DELIVER_POLICIES: Final = {
    "all": "all",
    "last": "last",
    "new": "new",
    "sequence": "by_start_sequence",
    "time": "by_start_time",
}
_ACK_POLICIES: Final = ("explicit", "all", "none")
_SUPPORTED: Final = frozenset(
    {"natsurl", "name", "jwt", "seedkey", "streamname", "durablename", "queuegroupname", "startsequence", "starttime"}
    | {"deliverpolicy", "ackpolicy", "ackwait", "maxdeliver", "maxackpending", "domain", "apiprefix", "concurrency"}
)
_DURATION: Final = re.compile(r"(\d+)(ms|s|m|h)")
_NANOSECONDS: Final = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


class InitError(Exception):
    """A component cannot be used; the message is what daprd would log."""


@dataclass(frozen=True)
class Component:
    """One component; `metadata` by lower-case name, because daprd ignores case there."""

    name: str
    type: str
    version: str
    ignore_errors: bool
    metadata: Mapping[str, str] = field(repr=False)


def read(folders: Iterable[Path]) -> dict[str, Component]:
    """All components of the *.yaml and *.yml files; InitError for a file that daprd cannot read."""
    components = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.suffix in (".yaml", ".yml"):
                for component in _read_file(path):
                    components[component.name] = component
    return components


def _read_file(path: Path) -> list[Component]:
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if isinstance(document, dict)]
    except (OSError, yaml.YAMLError) as error:
        # Only where, not what: the text around the error may be a secret.
        where = getattr(error, "problem_mark", None)
        raise InitError(f"{path} is not YAML{f' (line {where.line + 1})' if where else ''}") from None
    return [_component(path, document) for document in documents if document.get("kind") == "Component"]


def _component(path: Path, document: Mapping[str, Any]) -> Component:
    name, spec = (document.get("metadata") or {}).get("name"), document.get("spec") or {}
    if document.get("apiVersion") != "dapr.io/v1alpha1" or not name:
        raise InitError(f"{path}: a component needs apiVersion dapr.io/v1alpha1 and a name")
    metadata = {str(item["name"]).lower(): str(item.get("value", "")) for item in spec.get("metadata") or ()}
    return Component(
        str(name), str(spec.get("type")), str(spec.get("version")), bool(spec.get("ignoreErrors")), metadata
    )


@dataclass(frozen=True)
class JetStreamMetadata:
    """The fields of pubsub.jetstream that the stand-in knows, checked as components-contrib does."""

    urls: tuple[str, ...]
    name: str
    jwt: str = field(repr=False)
    seed: str = field(repr=False)
    stream: str
    api_prefix: str
    parallel: bool
    ack_wait_nanoseconds: int
    ack_policy: str
    consumer: Mapping[str, Any]  # the fixed part of every consumer's configuration

    @classmethod
    def parse(cls, component: Component) -> JetStreamMetadata:
        """Raise InitError for what the real component refuses, and for what the stand-in cannot do."""
        if (component.type, component.version) != (_TYPE, _VERSION):
            raise InitError(f"couldn't find pubsub {component.type}/{component.version}")
        values = component.metadata
        if unknown := sorted(set(values) - _SUPPORTED):
            raise InitError(f"metadata {', '.join(unknown)} is not part of the stand-in")
        if not values.get("natsurl"):
            raise InitError("missing nats URL")
        if values.get("jwt") and not values.get("seedkey"):
            raise InitError("missing seed key")
        if values.get("seedkey") and not values.get("jwt"):
            raise InitError("missing jwt")
        ack_policy = values.get("ackpolicy", "explicit")
        return cls(
            urls=tuple(url.strip() for url in values["natsurl"].split(",")),
            name=values.get("name") or "dapr.io - pubsub.jetstream",
            jwt=values.get("jwt", ""),
            seed=values.get("seedkey", ""),
            stream=values.get("streamname", ""),
            api_prefix=_api_prefix(values),
            parallel=values.get("concurrency", "single") == "parallel",
            ack_wait_nanoseconds=_duration(values.get("ackwait", "")),
            ack_policy=ack_policy if ack_policy in _ACK_POLICIES else "explicit",
            consumer=_consumer(values),
        )


def _api_prefix(values: Mapping[str, str]) -> str:
    if values.get("apiprefix"):
        return values["apiprefix"].rstrip(".")
    return f"$JS.{values['domain']}.API" if values.get("domain") else "$JS.API"


def _consumer(values: Mapping[str, str]) -> dict[str, Any]:
    policy = values.get("deliverpolicy") or "all"
    if policy not in _DELIVER_POLICIES:
        raise InitError(f"deliver policy {policy} is not one of: all, last, new, sequence, time")
    config: dict[str, Any] = {"deliver_policy": _DELIVER_POLICIES[policy]}
    if values.get("durablename"):
        config["durable_name"] = values["durablename"]
    if values.get("queuegroupname"):
        config["deliver_group"] = values["queuegroupname"]
    for name, target in (
        ("maxdeliver", "max_deliver"),
        ("maxackpending", "max_ack_pending"),
        ("startsequence", "opt_start_seq"),
    ):
        if values.get(name):
            config[target] = _integer(name, values[name])
    if values.get("starttime"):
        config["opt_start_time"] = _integer("startTime", values["starttime"])
    if values.get("ackwait"):
        config["ack_wait"] = _duration(values["ackwait"])
    return config


def _integer(name: str, text: str) -> int:
    if not text.isdecimal():
        raise InitError(f"metadata {name} is {text!r}, not a number")
    return int(text)


def _duration(text: str) -> int:
    if not text:
        return 0
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InitError(f"metadata ackWait is {text!r}: write for example 30s")
    return int(match[1]) * _NANOSECONDS[match[2]]
