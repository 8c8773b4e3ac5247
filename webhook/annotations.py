"""Reads the annotations by which a pod's author steers the injection; docs/injection.md lists them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgefarm import names
from edgefarm.errors import EdgefarmError, InvalidName


class Mode(StrEnum):
    """What the sidecar offers: Dapr's API on localhost, or only credentials for the application's own NATS client."""

    DAPR = "dapr"
    NATS = "nats"


class InvalidAnnotation(EdgefarmError):
    """The value of an annotation cannot be used; the message names the annotation and says what to write."""


@dataclass(frozen=True)
class Options:
    """What the annotations ask for."""

    inject: bool = True
    mode: Mode = Mode.DAPR
    #: Keep credentials on the node's disk instead of in memory, so that they outlive a reboot.
    persist_on_disk: bool = False
    app_id: str | None = None
    app_port: int | None = None
    app_protocol: str = "http"
    log_level: str = "info"


_PERSIST: Final = ("memory", "disk")
_PROTOCOLS: Final = ("http", "https", "grpc", "grpcs", "h2c")
_LOG_LEVELS: Final = ("debug", "info", "warn", "error")
_KNOWN: Final = frozenset(
    {
        names.ANNOTATION_INJECT,
        names.ANNOTATION_MODE,
        names.ANNOTATION_PERSIST,
        names.ANNOTATION_DAPR_APP_ID,
        names.ANNOTATION_DAPR_APP_PORT,
        names.ANNOTATION_DAPR_APP_PROTOCOL,
        names.ANNOTATION_DAPR_LOG_LEVEL,
        names.ANNOTATION_STATUS,
    }
)


def read_options(annotations: Mapping[str, str]) -> Options:
    """Read every annotation; raise InvalidAnnotation for the first one that is wrong.

    A pod that opts out needs no further correct annotation.
    """
    if _choice(annotations, names.ANNOTATION_INJECT, ("true", "false"), "true") == "false":
        return Options(inject=False)
    return Options(
        mode=Mode(_choice(annotations, names.ANNOTATION_MODE, tuple(Mode), Mode.DAPR)),
        persist_on_disk=_choice(annotations, names.ANNOTATION_PERSIST, _PERSIST, "memory") == "disk",
        app_id=_label(annotations, names.ANNOTATION_DAPR_APP_ID),
        app_port=_port(annotations, names.ANNOTATION_DAPR_APP_PORT),
        app_protocol=_choice(annotations, names.ANNOTATION_DAPR_APP_PROTOCOL, _PROTOCOLS, "http"),
        log_level=_choice(annotations, names.ANNOTATION_DAPR_LOG_LEVEL, _LOG_LEVELS, "info"),
    )


def unknown_annotations(annotations: Mapping[str, str]) -> list[str]:
    """Annotations under our prefix that mean nothing to us, most likely misspelt."""
    return [name for name in annotations if name.startswith(names.PREFIX) and name not in _KNOWN]


def _choice(annotations: Mapping[str, str], name: str, choices: Collection[str], default: str) -> str:
    value = annotations.get(name, default)
    if value not in choices:
        raise InvalidAnnotation(f"annotation {name} is {_short(value)}: write one of {', '.join(choices)}")
    return value


def _port(annotations: Mapping[str, str], name: str) -> int | None:
    value = annotations.get(name)
    if value is None:
        return None
    # isascii: int() and isdigit() would also take the digits of other scripts.
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and 1 <= int(value) <= 65535):
        raise InvalidAnnotation(f"annotation {name} is {_short(value)}: write a port from 1 to 65535")
    return int(value)


def _label(annotations: Mapping[str, str], name: str) -> str | None:
    value = annotations.get(name)
    if value is None:
        return None
    try:
        return names.check_label(value, f"annotation {name}:")
    except InvalidName as error:
        raise InvalidAnnotation(
            f"annotation {name} is {_short(value)}: write a DNS label (a-z, 0-9 and '-', at most 63)"
        ) from error


def _short(value: str) -> str:
    return repr(value if len(value) <= 60 else f"{value[:57]}...")
