"""Writes the part of requirements.lock that each image installs; with --check it only tells whether they are fresh.

Needs no network: which packages an image needs follows from the metadata of the packages that are installed here.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = Path(__file__).parent
#: Image -> the extras of pyproject.toml whose programs it holds.
IMAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "control": ("abbot", "agent", "reconciler", "webhook"),
    "sidecar": ("sidecar",),
}
#: The image of the examples holds none of the programs, only what the examples import.
EXAMPLES: Final = ("nats-py[nkeys]",)
#: What images are built for, in the words of environment markers; the Python version is that of the Dockerfile.
_MACHINES: Final = ("x86_64", "aarch64")
_PYTHON: Final = "3.11"
_HEADER: Final = "# Part of requirements.lock for the image `{image}`, made by `make lock`. Do not edit.\n"


def requirements(image: str) -> list[Requirement]:
    """What the programs of an image ask for."""
    if image == "examples":
        return [Requirement(text) for text in EXAMPLES]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return [Requirement(text) for extra in IMAGES[image] for text in extras[extra]]


def closure(wanted: Iterable[Requirement]) -> set[str]:
    """Canonical names of all packages that these requirements bring, on any machine that images are built for."""
    found: set[tuple[str, str]] = set()
    waiting = [(requirement, "") for requirement in wanted]
    while waiting:
        requirement, extra = waiting.pop()
        if not _applies(requirement, extra):
            continue
        name = canonicalize_name(requirement.name)
        for asked in ("", *requirement.extras):
            if (name, asked) not in found:
                found.add((name, asked))
                texts = metadata.requires(name) or []
                waiting += [(Requirement(text), asked) for text in texts]
    return {name for name, _ in found}


def _applies(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return True
    base = {
        **default_environment(),
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "python_version": _PYTHON,
        "python_full_version": f"{_PYTHON}.0",
        "extra": extra,
    }
    return any(requirement.marker.evaluate({**base, "platform_machine": machine}) for machine in _MACHINES)


def blocks(lock: str) -> Iterator[tuple[str, str]]:
    """(canonical name, lines with all hashes) of each package of a lock file."""
    for block in re.findall(r"^[^\s#][^\n]*\n(?:[ \t][^\n]*\n)*", lock, re.MULTILINE):
        yield canonicalize_name(re.split(r"[=\[; ]", block, maxsplit=1)[0]), block


def rendered() -> dict[Path, str]:
    """The files as they must be."""
    locked = dict(blocks((ROOT / "requirements.lock").read_text()))
    return {
        FOLDER / f"{image}.lock": _HEADER.format(image=image)
        + "".join(locked[name] for name in sorted(closure(requirements(image))))
        for image in (*IMAGES, "examples")
    }


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    check = parser.parse_args().check
    stale = [path for path, text in rendered().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            sys.stderr.write(f"{path} is stale: run make lock\n")
        else:
            path.write_text(rendered()[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
