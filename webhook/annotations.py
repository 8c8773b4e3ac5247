"""Reads the annotations by which a pod's author steers the injection; docs/injection.md lists them for users.

`TABLE` is the whole truth: what is in it is read and checked, anything else under our prefix is answered with a
warning.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from edgefarm import names
from edgefarm.errors import EdgefarmError, InvalidName
from edgefarm.units import parse_quantity
from webhook import resources
from webhook.resources import Size


class Mode(StrEnum):
    """What the sidecar offers: Dapr's API on localhost, or NATS and credentials for the application's own client."""

    DAPR = "dapr"
    NATS = "nats"


class InvalidAnnotation(EdgefarmError):
    """The value of an annotation cannot be used; the message names the annotation and says what to write.

    The message may quote the value, which does not belong into a log; `annotation` is the name alone.
    """

    def __init__(self, annotation: str, problem: str) -> None:
        super().__init__(f"annotation {annotation} {problem}")
        self.annotation = annotation


@dataclass(frozen=True)
class Options:
    """What the annotations ask for; None where the platform's own choice holds."""

    inject: bool = True
    mode: Mode = Mode.DAPR
    image: str | None = None
    #: Where the sidecar answers probes and shows its metrics.
    health_port: int = 3580
    sizes: Mapping[Size, str] = field(default_factory=dict, hash=False)
    #: The Policy that the author expects to hold for the pod's service account; the sidecar checks it.
    policy: str | None = None
    #: Keep credentials on the node's disk instead of in memory, so that they outlive a reboot.
    persist_on_disk: bool = False
    #: Mode nats: NATS on localhost, which the sidecar connects to the leaf of the node or the hub; else the hub itself.
    nats_relay: bool = True
    nats_port: int = 4222
    app_id: str | None = None
    app_port: int | None = None
    app_protocol: str = "http"
    app_max_concurrency: int | None = None
    #: A ConfigMap of the pod's namespace with a Dapr Configuration in its key `config.yaml`.
    dapr_config: str | None = None
    api_logging: bool = False
    log_level: str = "info"
    max_body_size: str | None = None
    shutdown_seconds: int | None = None


#: For the many pods without an annotation of ours.
_DEFAULTS: Final = Options()
_Read = Callable[[str], Any]


def read_options(annotations: Mapping[str, str]) -> Options:
    """Read every annotation; raise InvalidAnnotation for the first one that is wrong.

    A pod that opts out needs no further correct annotation.
    """
    found: dict[str, Any] = {}
    sizes: dict[Size, str] = {}
    for name, value in annotations.items():
        entry = TABLE.get(name)
        if entry is None:
            continue
        target, read = entry
        try:
            result = read(value)
        except ValueError as error:
            if annotations.get(names.ANNOTATION_INJECT) == "false":
                continue
            raise InvalidAnnotation(name, f"is {_short(value)}: {error}") from error
        if isinstance(target, str):
            found[target] = result
        else:
            sizes[target] = result
    if not found and not sizes:
        return _DEFAULTS
    options = Options(**found, sizes=sizes)
    if options.inject:
        _check_together(options)
    return options


def warnings(annotations: Mapping[str, str], mode: Mode) -> Iterator[str]:
    """What the author of the pod should know: annotations that mean nothing here, most likely misspelt.

    Kubernetes asks for less than 120 characters each.
    """
    for name in annotations:
        if name.startswith(_DAPR_PREFIX):
            ours = f"{names.PREFIX}dapr-{name.removeprefix(_DAPR_PREFIX)}"
            if ours in TABLE and mode is Mode.DAPR:
                yield f"{name} has no effect: write {ours}"
        elif not name.startswith(names.PREFIX) or name == names.ANNOTATION_STATUS:
            continue
        elif name in _OF_POLICIES:
            yield f"annotation {name} belongs on a Policy and has no effect on a pod"
        elif name not in TABLE:
            yield _unknown(name)
        elif name.startswith(_OF_OTHER_MODE[mode]):
            yield f"annotation {name} has no effect in mode {mode}"


def _unknown(name: str) -> str:
    short = name.removeprefix(names.PREFIX)[:30]
    # Pods are validated after us: anything may be in a name.
    shown = short if short.isprintable() else ascii(short)[:30]
    similar = difflib.get_close_matches(short, [known.removeprefix(names.PREFIX) for known in TABLE], 1)
    hint = f": did you mean {similar[0]}?" if similar else " and ignored"
    return f"annotation {names.PREFIX}{shown} is unknown{hint}"


def _check_together(options: Options) -> None:
    name = resources.exceeding(options.sizes)
    if name is not None:
        raise InvalidAnnotation(
            f"{names.PREFIX}sidecar-{name}-request",
            f"is larger than {names.PREFIX}sidecar-{name}-limit: write a request that is not above the limit",
        )


# ── readers: the value, or ValueError that says what to write ───────────────────────────────────────────────────────


def _choice(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"write one of {', '.join(choices)}")
        return value

    return read


def _flag(value: str) -> bool:
    return _TRUE_FALSE(value) == "true"


def _mode(value: str) -> Mode:
    return Mode(_MODES(value))


def _persist(value: str) -> bool:
    return _PERSIST(value) == "disk"


def _number(low: int, high: int, what: str) -> _Read:
    def read(value: str) -> int:
        # isascii: int() and isdigit() would also take the digits of other scripts.
        if not (value.isascii() and value.isdigit() and len(value) <= 9 and low <= int(value) <= high):
            raise ValueError(f"write {what} from {low} to {high}")
        return int(value)

    return read


def _label(value: str) -> str:
    try:
        return names.check_label(value, "name")
    except InvalidName:
        raise ValueError("write a DNS label (a-z, 0-9 and '-', at most 63)") from None


def _subdomain(value: str) -> str:
    if len(value) > 253 or not _SUBDOMAIN.fullmatch(value):
        raise ValueError("write the name of a ConfigMap in the pod's namespace")
    return value


def _image(value: str) -> str:
    if not _IMAGE.fullmatch(value):
        raise ValueError("write an image such as registry.example/edgefarm/network:1.2.3")
    return value


def _cpu(value: str) -> str:
    if not resources.is_cpu(value):
        raise ValueError("write cores or millicores, for example 0.5 or 250m")
    return value


def _memory(value: str) -> str:
    if not resources.is_memory(value):
        raise ValueError("write bytes with a unit, for example 64Mi (at least 16Mi)")
    return value


def _body_size(value: str) -> str:
    try:
        size = parse_quantity(value) if len(value) <= 30 else 0
    except ValueError:
        size = 0
    if not 1024 <= size <= 2**31 - 1:
        raise ValueError("write bytes with a unit from 1Ki to 1Gi, for example 16Mi")
    return value


_TRUE_FALSE: Final = _choice("true", "false")
_MODES: Final = _choice(*Mode)
_PERSIST: Final = _choice("memory", "disk")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")
_PORT: Final = _number(1, 65535, "a port")

#: Annotation → member of Options (or size of the sidecar), and how its value is read.
TABLE: Final[Mapping[str, tuple[str | Size, _Read]]] = {
    names.ANNOTATION_INJECT: ("inject", _flag),
    names.ANNOTATION_MODE: ("mode", _mode),
    names.ANNOTATION_IMAGE: ("image", _image),
    # Below 1024 only root may listen on the network of a node.
    names.ANNOTATION_PORT: ("health_port", _number(1024, 65535, "a port")),
    names.ANNOTATION_CPU_REQUEST: (resources.CPU_REQUEST, _cpu),
    names.ANNOTATION_CPU_LIMIT: (resources.CPU_LIMIT, _cpu),
    names.ANNOTATION_MEMORY_REQUEST: (resources.MEMORY_REQUEST, _memory),
    names.ANNOTATION_MEMORY_LIMIT: (resources.MEMORY_LIMIT, _memory),
    names.ANNOTATION_POLICY: ("policy", _label),
    names.ANNOTATION_PERSIST: ("persist_on_disk", _persist),
    names.ANNOTATION_NATS_RELAY: ("nats_relay", _flag),
    names.ANNOTATION_NATS_PORT: ("nats_port", _number(1024, 65535, "a port")),
    names.ANNOTATION_DAPR_APP_ID: ("app_id", _label),
    names.ANNOTATION_DAPR_APP_PORT: ("app_port", _PORT),
    names.ANNOTATION_DAPR_APP_PROTOCOL: ("app_protocol", _choice("http", "https", "grpc", "grpcs", "h2c")),
    names.ANNOTATION_DAPR_APP_MAX_CONCURRENCY: ("app_max_concurrency", _number(1, 100_000, "a number")),
    names.ANNOTATION_DAPR_CONFIG: ("dapr_config", _subdomain),
    names.ANNOTATION_DAPR_API_LOGGING: ("api_logging", _flag),
    names.ANNOTATION_DAPR_LOG_LEVEL: ("log_level", _choice("debug", "info", "warn", "error", "fatal")),
    names.ANNOTATION_DAPR_MAX_BODY_SIZE: ("max_body_size", _body_size),
    names.ANNOTATION_DAPR_SHUTDOWN_SECONDS: ("shutdown_seconds", _number(1, 3600, "a number of seconds")),
}
_OF_POLICIES: Final = frozenset({names.ANNOTATION_ROTATE_KEYS_AT, names.ANNOTATION_REVOKE_KEYS_BEFORE})
#: What the names of annotations begin with that mean nothing in this mode.
_OF_OTHER_MODE: Final = {Mode.NATS: f"{names.PREFIX}dapr-", Mode.DAPR: f"{names.PREFIX}nats-"}
_DAPR_PREFIX: Final = "dapr.io/"


def _short(value: str) -> str:
    return repr(value if len(value) <= 60 else f"{value[:57]}...")
