"""x-kubernetes-validations: CEL rules of a structural schema, with Kubernetes' library as far as the product needs it.

Offered beside the language: the string, list and math functions of cel-go's libraries, `quantity` with its
comparisons, `isQuantity` and `isURL`. Not offered by the library underneath: optionals (`.?`), back-ticked field
names, `cel.bind`, `ip()`, `cidr()`, `format()`. A function that does not exist is found when a rule runs, not when the
definition is created. Cost limits are not enforced.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from edgefarm.units import parse_quantity
from localcluster.apiserver.failures import Cause

Schema = Mapping[str, Any]

_RULES: Final = "x-kubernetes-validations"
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED: Final = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_ESCAPES: Final = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}


@dataclass(frozen=True)
class _Rule:
    program: Any
    source: Mapping[str, Any]
    transition: bool
    message: Any


@dataclass(frozen=True)
class _Node:
    """The rules of one place of a schema and of the places below it."""

    schema: Schema
    rules: tuple[_Rule, ...]
    properties: Mapping[str, _Node] = field(default_factory=dict)
    items: _Node | None = None
    values: _Node | None = None

    @property
    def empty(self) -> bool:
        return not (self.rules or self.properties or self.items or self.values)


class Rules:
    """The compiled rules of one schema."""

    def __init__(self, schema: Schema) -> None:
        self._root = _compile(schema)
        self._context: Any = None if self._root.empty else _context()

    @property
    def empty(self) -> bool:
        """Whether there is no rule at all."""
        return self._root.empty

    @staticmethod
    def problems(schema: Schema, path: str) -> list[Cause]:
        """Rules directly at this schema that do not compile."""
        causes = []
        for index, rule in enumerate(schema.get(_RULES) or ()):
            for name in ("rule", "messageExpression"):
                try:
                    _cel().compile(rule.get(name) or "true")
                except ValueError as error:
                    where = f"{path}.{_RULES}[{index}].{name}"
                    causes.append(Cause.invalid(where, rule.get(name), f"compilation failed: {error}"))
        return causes

    def violations(self, value: Any, old: Any = None) -> list[Cause]:
        """Rules that an object breaks; transition rules count when there is an `old` one."""
        return list(self._check(self._root, value, old, "", root=True))

    def _check(self, node: _Node, value: Any, old: Any, path: str, *, root: bool = False) -> Iterator[Cause]:
        if node.empty or value is None:
            return
        if node.rules:
            self._context.add_variable("self", to_cel(node.schema, value, root=root))
            for rule in node.rules:
                if rule.transition:
                    if old is None:
                        continue
                    self._context.add_variable("oldSelf", to_cel(node.schema, old, root=root))
                yield from self._evaluate(rule, value, path)
        if isinstance(value, dict):
            old = old if isinstance(old, dict) else {}
            for name, inner in value.items():
                below = node.properties.get(name) or node.values
                if below is not None:
                    # Map keys stand in brackets in field paths only where Kubernetes knows no property.
                    where = f"{path}.{name}" if name in node.properties else f"{path}[{name}]"
                    yield from self._check(below, inner, old.get(name), where.lstrip("."))
        elif isinstance(value, list) and node.items is not None:
            matching = _Correlated(node.schema, old)
            for index, inner in enumerate(value):
                yield from self._check(node.items, inner, matching.find(inner), f"{path}[{index}]")

    def _evaluate(self, rule: _Rule, value: Any, path: str) -> Iterator[Cause]:
        source = rule.source
        try:
            if rule.program.execute(self._context) is True:
                return
            message = self._message(rule)
        except (ValueError, RuntimeError, KeyError, TypeError, ArithmeticError, IndexError) as error:
            message = f"{error} evaluating rule: {source.get('message') or source['rule']}"
        where = (path + source.get("fieldPath", "")).lstrip(".") or "<nil>"
        match source.get("reason", "FieldValueInvalid"):
            case "FieldValueRequired":
                yield Cause.required(where, message)
            case "FieldValueForbidden":
                yield Cause.forbidden(where, message)
            case "FieldValueDuplicate":
                yield Cause.duplicate(where, value)
            case _:
                yield Cause.invalid(where, value, message)

    def _message(self, rule: _Rule) -> str:
        if rule.message is not None:
            try:
                made = rule.message.execute(self._context)
            except (ValueError, RuntimeError, KeyError, TypeError, ArithmeticError, IndexError):
                made = None  # Kubernetes falls back to `message` too
            if isinstance(made, str) and made.strip():
                return made
        return str(rule.source.get("message") or f"failed rule: {rule.source['rule']}")


class _Correlated:
    """Finds the old element of a list that a new one replaces; only lists of type map have such pairs."""

    def __init__(self, schema: Schema, old: Any) -> None:
        self._keys = schema.get("x-kubernetes-list-map-keys") or ()
        items = old if isinstance(old, list) and self._keys else ()
        self._old = {self._key(item): item for item in items}

    def find(self, item: Any) -> Any:
        return self._old.get(self._key(item)) if self._old else None

    def _key(self, item: Any) -> tuple[Any, ...]:
        return tuple(item.get(key) for key in self._keys)


def to_cel(schema: Schema, value: Any, *, root: bool = False) -> Any:
    """A JSON value as the type that CEL sees by the schema, with property names escaped as Kubernetes escapes them."""
    if isinstance(value, list):
        return [to_cel(schema.get("items") or {}, item) for item in value]
    if isinstance(value, dict):
        known = schema.get("properties") or {}
        extra = schema.get("additionalProperties")
        result: dict[str, Any] = {}
        if root or schema.get("x-kubernetes-embedded-resource"):
            result = {key: value[key] for key in ("apiVersion", "kind") if key in value}
            metadata = value.get("metadata") or {}
            result["metadata"] = {key: metadata[key] for key in ("name", "generateName") if key in metadata}
        for name, inner in value.items():
            if name in known and name not in result:
                result[escape(name)] = to_cel(known[name], inner)
            elif isinstance(extra, Mapping):
                result[name] = to_cel(extra, inner)
        return result if known or isinstance(extra, Mapping) or root else value
    if isinstance(value, int) and not isinstance(value, bool) and schema.get("type") == "number":
        return float(value)
    if isinstance(value, str) and schema.get("format") == "date-time":
        return datetime.fromisoformat(value)
    return value


def escape(name: str) -> str:
    """A property name as it is written in a rule."""
    if name in _RESERVED:
        return f"__{name}__"
    if _IDENTIFIER.fullmatch(name) and "__" not in name:
        return name
    return re.sub(r"__|[.\-/]", lambda found: _ESCAPES[found[0]], name)


@cache
def _cel() -> Any:
    """The CEL library. Importing it takes a third of a second, because it brings a command line: only rules pay."""
    return importlib.import_module("cel")


def _compile(schema: Schema) -> _Node:
    below = {name: _compile(inner) for name, inner in (schema.get("properties") or {}).items()}
    items = _compile(schema["items"]) if isinstance(schema.get("items"), Mapping) else None
    extra = schema.get("additionalProperties")
    values = _compile(extra) if isinstance(extra, Mapping) else None
    return _Node(
        schema,
        tuple(_rule(source) for source in schema.get(_RULES) or ()),
        {name: node for name, node in below.items() if not node.empty},
        None if items is None or items.empty else items,
        None if values is None or values.empty else values,
    )


def _rule(source: Mapping[str, Any]) -> _Rule:
    program = _cel().compile(source["rule"])
    message = source.get("messageExpression")
    return _Rule(program, source, "oldSelf" in program.variables(), _cel().compile(message) if message else None)


def _context() -> Any:
    context = _cel().Context()
    _cel().stdlib.add_stdlib_to_context(context)
    for name, function in {
        "quantity": _quantity,
        "isQuantity": _is_quantity,
        "isGreaterThan": lambda a, b: a > b,
        "isLessThan": lambda a, b: a < b,
        "compareTo": lambda a, b: (a > b) - (a < b),
        "asInteger": int,
        "asApproximateFloat": float,
        "isURL": _is_url,
        "isSorted": lambda items: items == sorted(items),
        "find": _find,
        "findAll": lambda text, pattern: [found[0] for found in re.finditer(pattern, text)],
    }.items():
        context.add_function(name, function)
    return context


def _quantity(text: str) -> int:
    return -parse_quantity(text[1:]) if text.startswith("-") else parse_quantity(text.removeprefix("+"))


def _is_quantity(text: Any) -> bool:
    try:
        _quantity(text)
    except (ValueError, AttributeError):
        return False
    return True


def _is_url(text: str) -> bool:
    parts = urlsplit(text)
    return bool(parts.scheme) and (bool(parts.netloc) or parts.path.startswith("/"))


def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found[0] if found else ""


@lru_cache(maxsize=256)
def _program(expression: str) -> Any:
    return _cel().compile(expression)


def holds(expression: str, variables: Mapping[str, Any]) -> bool:
    """Whether an expression over whole objects (a webhook's matchCondition) is true."""
    context = _context()
    for name, value in variables.items():
        context.add_variable(name, value)
    return _program(expression).execute(context) is True
