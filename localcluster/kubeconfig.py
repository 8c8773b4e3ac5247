"""Writes kubeconfig files."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from localcluster.stack import write_private


def write_kubeconfig(path: Path, url: str, ca: Path, token: str) -> None:
    """A kubeconfig (mode 0600) with one context, in which `token` speaks to the API server at `url`."""
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(ca.read_bytes()).decode()}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "localcluster", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "localcluster", "context": {"cluster": "localcluster", "user": "admin"}}],
        "current-context": "localcluster",
    }
    write_private(path, yaml.safe_dump(document, sort_keys=False).encode())
