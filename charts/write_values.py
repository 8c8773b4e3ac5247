"""Makes the chart's values.schema.json and README.md from the comments of values.yaml; --check only compares them."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parent / "edgefarm-network"
#: What stands in README.md around the tables; `{values}` is where they go.
TEMPLATE: Final = Path(__file__).parent / "README.md.in"
DEFINITIONS: Final = Path(__file__).parent / "values-types.yaml"
SCHEMA_MARK: Final = "@schema "
_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z0-9]+):")
_INDENT: Final = 2
_TYPES: Final = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Value:
    """One key of values.yaml: its path, its default, and what the comment above it says."""

    path: tuple[str, ...]
    default: Any
    description: str
    schema: Json
    children: tuple[Value, ...] = ()

    @property
    def name(self) -> str:
        """The path as it is written after `--set`."""
        return ".".join(self.path)

    def leafs(self) -> Iterator[Value]:
        """The values below that hold no others, in the file's order."""
        for child in self.children:
            yield from child.leafs()
        if not self.children:
            yield self


@dataclass
class _Comment:
    text: list[str] = field(default_factory=list)
    schema: Json = field(default_factory=dict)


def read(text: str) -> tuple[Value, ...]:
    """The values of a file in block style with two spaces of indentation; ValueError for a key without a comment."""
    return _values(yaml.safe_load(text), _comments(text), ())


def _comments(text: str) -> dict[tuple[str, ...], _Comment]:
    found: dict[tuple[str, ...], _Comment] = {}
    path: tuple[str, ...] = ()
    comment = _Comment()
    for line in text.splitlines():
        words = line.strip()
        key = _KEY.match(line)
        if words.startswith(f"# {SCHEMA_MARK}"):
            comment.schema = yaml.safe_load(words.removeprefix(f"# {SCHEMA_MARK}"))
        elif words.startswith("#"):
            comment.text.append(words.removeprefix("#").strip())
        elif key:
            path = (*path[: len(key["indent"]) // _INDENT], key["key"])
            found[path] = comment
            comment = _Comment()
        else:
            comment = _Comment()
    return found


def _values(
    defaults: Mapping[str, Any], comments: Mapping[tuple[str, ...], _Comment], above: tuple[str, ...]
) -> tuple[Value, ...]:
    values = []
    for key, default in defaults.items():
        path = (*above, key)
        comment = comments[path]
        if not comment.text:
            raise ValueError(f"{'.'.join(path)} has no comment in values.yaml")
        # A map with a schema of its own is a value; the keys of all others are documented one by one.
        nested = isinstance(default, dict) and not comment.schema
        children = _values(default, comments, path) if nested else ()
        values.append(Value(path, default, " ".join(comment.text), comment.schema, children))
    return tuple(values)


def schema(values: tuple[Value, ...], definitions: Json) -> Json:
    """The JSON Schema of all values, in the draft that every Helm 3 and 4 reads: no other keys are valid.

    That draft looks at nothing beside `$ref` but descriptions and defaults.
    """
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart edgefarm-network",
        **_object(values, {"global": {"type": "object", "description": "What Helm gives to charts inside others."}}),
        "definitions": definitions,
    }


def _object(values: tuple[Value, ...], more: Json | None = None) -> Json:
    properties = {value.path[-1]: _property(value) for value in values}
    return {"type": "object", "properties": {**properties, **(more or {})}, "additionalProperties": False}


def _property(value: Value) -> Json:
    if value.children:
        return {"description": value.description, **_object(value.children)}
    if "$ref" in value.schema and len(value.schema) > 1:
        raise ValueError(f"{value.name}: nothing else is looked at beside $ref")
    known = {} if "$ref" in value.schema else {"type": _TYPES[type(value.default)]}
    return {"description": value.description, **known, **value.schema, "default": value.default}


def tables(values: tuple[Value, ...]) -> str:
    """The values as Markdown: one table for each top-level map, and one for single values."""
    single = [value for value in values if not value.children]
    parts = [_table("", single)] if single else []
    for group in values:
        if group.children:
            parts.append(f"### {group.name}\n\n{group.description}\n\n{_table(group.name, list(group.leafs()))}")
    return "\n".join(parts)


def _table(group: str, values: list[Value]) -> str:
    lines = ["| value | default | meaning |", "| --- | --- | --- |"]
    for value in values:
        default = json.dumps(value.default, ensure_ascii=False).replace("|", "\\|")
        lines.append(f"| `{value.name}` | `{default}` | {_meaning(value)} |")
    return "\n".join(lines) + "\n"


def _meaning(value: Value) -> str:
    choices = value.schema.get("enum")
    text = value.description.replace("|", "\\|")
    return f"{text} One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else text


def rendered() -> dict[Path, str]:
    """The files as they must be."""
    values = read((CHART / "values.yaml").read_text())
    definitions = yaml.safe_load(DEFINITIONS.read_text())
    text = json.dumps(schema(values, definitions), indent=2, ensure_ascii=False)
    return {
        CHART / "values.schema.json": f"{text}\n",
        CHART / "README.md": TEMPLATE.read_text().replace("{values}", tables(values)),
    }


def stale() -> list[Path]:
    """Files that are missing or differ."""
    return [path for path, text in rendered().items() if not path.exists() or path.read_text() != text]


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    if parser.parse_args().check:
        for path in stale():
            print(f"{path} is stale: run python charts/write_values.py", file=sys.stderr)
        return 1 if stale() else 0
    for path, text in rendered().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
