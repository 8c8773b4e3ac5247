"""Writes the CRD files of the chart from `edgefarm.api`; with --check it only tells whether they are up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from edgefarm.api.crd import definitions

FOLDER = Path(__file__).parent / "edgefarm-network" / "files" / "crds"
HEADER = "# Made from edgefarm/api by `make crds`. Do not edit.\n"
#: Removing a definition removes all its objects, so Helm leaves it when the release is uninstalled.
ANNOTATIONS = {"helm.sh/resource-policy": "keep"}


def rendered() -> dict[Path, str]:
    """The files as they must be."""
    return {
        FOLDER / name: HEADER + yaml.safe_dump(_kept(definition), sort_keys=False, width=110)
        for name, definition in definitions().items()
    }


def _kept(definition: dict[str, Any]) -> dict[str, Any]:
    return {**definition, "metadata": {**definition["metadata"], "annotations": dict(ANNOTATIONS)}}


def stale() -> list[Path]:
    """Files that are missing, differ or should not be there."""
    wanted = rendered()
    wrong = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    return wrong + [path for path in FOLDER.glob("*.yaml") if path not in wanted]


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    if parser.parse_args().check:
        for path in stale():
            print(f"{path} is stale: run make crds", file=sys.stderr)
        return 1 if stale() else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in rendered().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
