"""Writes the reference of the custom resources from `edgefarm.api`; with --check it only tells whether it is fresh."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edgefarm.api.crd import definitions

FOLDER: Final = Path(__file__).parent / "reference"
_NOTE: Final = "<!-- Made from edgefarm/api by `python docs/write_reference.py`. Do not edit. -->\n"
Schema = Mapping[str, Any]


def rendered() -> dict[Path, str]:
    """The pages as they must be: one for each kind, and their list."""
    found = [definition["spec"] for definition in definitions().values()]
    pages = {FOLDER / f"{spec['names']['singular']}.md": _page(spec) for spec in found}
    return {FOLDER / "README.md": _list(found)} | pages


def stale() -> list[Path]:
    """Pages that are missing, differ or should not be there."""
    wanted = rendered()
    wrong = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    return wrong + [path for path in FOLDER.glob("*.md") if path not in wanted]


def _list(specs: list[Schema]) -> str:
    rows = (
        (
            f"[{spec['names']['kind']}]({spec['names']['singular']}.md)",
            f"`{spec['names']['shortNames'][0]}`",
            _schema(spec)["description"],
        )
        for spec in specs
    )
    return (
        f"{_NOTE}# Custom resources\n\nGroup `{specs[0]['group']}`, version `{specs[0]['versions'][0]['name']}`. "
        "`kubectl explain` shows the same as these pages. The rules are checked by the API server, which refuses an "
        "object that breaks one and says what to write instead; what depends on other objects is said by conditions "
        "([runbooks](../runbooks.md)).\n\n"
        f"{_table(('kind', 'short', 'what it is'), rows)}\n`kubectl get edgefarm -A` lists all of them.\n"
    )


def _page(spec: Schema) -> str:
    names, schema = spec["names"], _schema(spec)
    members = schema["properties"]
    parts = [
        f"{_NOTE}# {names['kind']}",
        schema["description"],
        f"`kubectl get {names['plural']}.{spec['group']}`, short `{names['shortNames'][0]}`.",
        _bullets(schema),
        "## spec",
        _bullets(members["spec"]),
        _table(("field", "type", "required, default", "meaning and rules"), _fields(members["spec"], "")),
        "## status",
        # Nobody writes a status, so nothing in it is required or has a default.
        _table(("field", "type", "meaning"), ((*row[:2], row[3]) for row in _fields(members["status"], ""))),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _bullets(schema: Schema) -> str:
    return "".join(f"* {_escaped(text)}\n" for text in _messages(schema))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _schema(spec: Schema) -> Schema:
    schema: Schema = spec["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _fields(schema: Schema, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Path, type, whether it is required or its default, and meaning of all members, outer ones first."""
    required = schema.get("required", ())
    for name, member in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        default = f"`{json.dumps(member['default'])}`" if "default" in member else ""
        text = " ".join([member.get("description", ""), *(_sentence(rule) for rule in _rules(member))]).strip()
        yield f"`{path}`", _type(member), "required" if name in required else default, _escaped(text)
        inner, suffix = _inner(member)
        yield from _fields(inner, f"{path}{suffix}.")


def _inner(member: Schema) -> tuple[Schema, str]:
    if member.get("type") == "array":
        return member["items"], "[]"
    extra = member.get("additionalProperties")
    return (extra, ".<key>") if isinstance(extra, dict) else (member, "")


def _type(member: Schema) -> str:
    if "x-kubernetes-int-or-string" in member:
        return "integer or string"
    if "enum" in member:
        return " \\| ".join(f"`{value}`" for value in member["enum"])
    if member.get("type") == "array":
        return f"list of {_type(member['items'])}s"
    if isinstance(member.get("additionalProperties"), dict):
        return f"map of {_type(member['additionalProperties'])}s"
    return str(member.get("format") if member.get("format") == "date-time" else member.get("type", "any"))


def _rules(member: Schema) -> Iterator[str]:
    if "minimum" in member and "maximum" in member:
        yield f"{member['minimum']} to {member['maximum']}"
    elif "minimum" in member:
        yield f"at least {member['minimum']}"
    elif "maximum" in member:
        yield f"at most {member['maximum']}"
    if "maxItems" in member:
        yield f"at most {member['maxItems']} entries"
    yield from _messages(member)
    yield from _messages(member.get("items", {}))


def _messages(schema: Schema) -> list[str]:
    return [str(rule["message"]) for rule in schema.get("x-kubernetes-validations", ())]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def _escaped(text: str) -> str:
    """The text in a cell of a Markdown table, where nothing of it means anything."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ").replace("*", "\\*")


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is stale")
    if parser.parse_args().check:
        for path in stale():
            print(f"{path} is stale: run python docs/write_reference.py", file=sys.stderr)
        return 1 if stale() else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in rendered().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
