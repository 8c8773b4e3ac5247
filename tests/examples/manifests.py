"""The examples as Kubernetes objects, as kubectl reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from localcluster.stack import find_program

FOLDER = Path(__file__).parents[2] / "examples"
#: Every example: a folder with manifests.
EXAMPLES = sorted(
    path.name for path in FOLDER.iterdir() if path.is_dir() and (any(path.glob("*.yaml")) or any(path.glob("*.yml")))
)
WITHOUT_CLUSTER = {"PATH": "/usr/bin:/bin"}


def objects(example: str) -> list[dict[str, Any]]:
    """The objects of an example in the order of its files; files that hold something else are left out."""
    folder = FOLDER / example
    if (folder / "kustomization.yaml").exists():
        command = [find_program("kubectl"), "kustomize", str(folder)]
        built = subprocess.run(command, env=WITHOUT_CLUSTER, capture_output=True, text=True, timeout=30, check=True)
        texts = [built.stdout]
    else:
        texts = [path.read_text() for path in sorted(folder.glob("*.yaml"))]
    found = [obj for text in texts for obj in yaml.safe_load_all(text)]
    return [obj for obj in found if isinstance(obj, dict) and {"apiVersion", "kind", "metadata"} <= obj.keys()]
