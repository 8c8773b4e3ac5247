"""Pieces of the CRDs' OpenAPI schemas that several kinds use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgefarm.units import MAX_INT64

Schema = dict[str, Any]

DNS_LABEL: Final = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
# The same rule as edgefarm.nats.subjects.check_filter, for the API server to apply at once.
SUBJECT: Final = r"^(>|([^\\s.*>]+|\\*)(\\.([^\\s.*>]+|\\*))*(\\.>)?)$"
DURATION: Final = "^([0-9]+[smhdMy])+$"
QUANTITY: Final = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[kMGTPEm]|[eE][+-]?[0-9]{1,2})?$"


def obj(
    properties: Mapping[str, Schema],
    *,
    required: Sequence[str] = (),
    description: str = "",
    rules: Sequence[Schema] = (),
) -> Schema:
    """An object schema; `rules` are CEL validations."""
    schema: Schema = {"type": "object", "properties": dict(properties)}
    if required:
        schema["required"] = list(required)
    if description:
        schema["description"] = description
    if rules:
        schema["x-kubernetes-validations"] = list(rules)
    return schema


def text(description: str, **more: Any) -> Schema:
    """A string schema."""
    return {"type": "string", "description": description} | more


def integer(description: str, **more: Any) -> Schema:
    """A 64-bit integer schema."""
    return {"type": "integer", "format": "int64", "description": description} | more


def label_list(description: str, what: str, *, most: int = 256) -> Schema:
    """A set of DNS labels."""
    return {
        "type": "array",
        "description": description,
        "maxItems": most,
        "items": {"type": "string", "maxLength": 63},
        "x-kubernetes-list-type": "set",
        "x-kubernetes-validations": [
            {
                "rule": f"self.all(name, name.matches('{DNS_LABEL}'))",
                "message": f"each {what} must be a DNS label: 1 to 63 lower-case letters, digits or '-', no dots",
            }
        ],
    }


def subject_list(description: str) -> Schema:
    """A list of NATS subjects with wildcards."""
    return {
        "type": "array",
        "description": description,
        "maxItems": 256,
        "items": {"type": "string", "minLength": 1, "maxLength": 256},
        "x-kubernetes-list-type": "atomic",
        "x-kubernetes-validations": [
            {
                "rule": f"self.all(subject, subject.matches('{SUBJECT}') && !subject.contains('{{{{'))",
                "message": "each subject must be tokens joined by '.', without spaces; '*' stands for one token and "
                "'>' only at the end for the rest: write for example sensor.> or sensor.*.temperature",
            }
        ],
    }


def int_or_text(description: str, pattern: str, *rules: tuple[str, str]) -> Schema:
    """A whole number or a text with this pattern; `rules` are CEL expressions with what to write instead.

    The length is bounded because an API server refuses rules that could become too expensive.
    """
    return {
        "description": description,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": pattern,
        "maxLength": 32,
        "x-kubernetes-int-or-string": True,
        "x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules],
    }


def quantity(description: str) -> Schema:
    """A Kubernetes quantity."""
    return int_or_text(
        description,
        QUANTITY,
        (
            f"type(self) == int ? self >= 0 : {quantity_between('0')}",
            "must be 0 or a size below 8Ei: write for example 2Gi",
        ),
    )


def quantity_between(least: str) -> str:
    """The CEL expression for a text from this quantity up to the largest; API servers read all larger ones as that."""
    return (
        f"isQuantity(self) && quantity(self).compareTo(quantity('{least}')) >= 0 && "
        f"quantity(self).isLessThan(quantity('{MAX_INT64}'))"
    )


def duration(description: str) -> Schema:
    """A duration with the seed's units."""
    return text(
        f"{description} Units: s, m, h, d, M (30 days), y (365 days); for example 90s or 1h30m.",
        maxLength=32,
        **{
            "x-kubernetes-validations": [
                {
                    "rule": f"self.matches('{DURATION}')",
                    "message": "must be a duration: write for example 90s, 15m, 1h30m, 30d, 1M or 1y",
                }
            ]
        },
    )


def limits(where: str) -> Schema:
    """Storage limits; `immemorystorage` is how the first version of the API spelled it."""
    return obj(
        {
            "filestorage": quantity(f"Most that all file streams may store {where}. Unset: no file streams."),
            "inmemorystorage": quantity(f"Most that all memory streams may store {where}. Unset: no memory streams."),
            "immemorystorage": quantity("The older spelling of inmemorystorage; use only one of the two."),
        },
        description=f"What the network's streams may use {where}.",
        rules=[
            {
                "rule": "!(has(self.immemorystorage) && has(self.inmemorystorage))",
                "message": "immemorystorage and inmemorystorage mean the same: write only inmemorystorage",
            }
        ],
    )


CONDITIONS: Final[Schema] = {
    "type": "array",
    "description": "What was observed, in the standard form of Kubernetes.",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": obj(
        {
            "type": text("Kind of condition, for example Ready."),
            "status": text("True, False or Unknown.", enum=["True", "False", "Unknown"]),
            "reason": text("One word in CamelCase for programs.", minLength=1),
            "message": text("One sentence for humans."),
            "observedGeneration": integer("Generation of the spec that the condition speaks of."),
            "lastTransitionTime": text("When the status last changed.", format="date-time"),
        },
        required=["type", "status", "reason", "message", "lastTransitionTime"],
    ),
}
