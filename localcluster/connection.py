"""How to reach one API server: address, authority and credentials, read from a kubeconfig file."""

from __future__ import annotations

import base64
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from edgefarm.errors import InvalidResource


@dataclass(frozen=True)
class Connection:
    """Address of an API server and what proves both sides; nothing secret is in its repr."""

    server: str
    ca: str
    """PEM text of the authority that issued the server's certificate."""
    token: str = field(default="", repr=False)
    client_certificate: str = ""
    client_key: str = field(default="", repr=False)

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Connection:
        """Read the current context; raise InvalidResource naming what is missing."""
        config = yaml.safe_load(path.read_text())
        context = _named(config, "contexts", config.get("current-context"))["context"]
        cluster = _named(config, "clusters", context.get("cluster"))["cluster"]
        user = _named(config, "users", context.get("user"))["user"]
        token_file = user.get("tokenFile")
        return cls(
            server=cluster["server"].rstrip("/"),
            ca=_text(cluster, "certificate-authority", path.parent),
            token=(path.parent / token_file).read_text().strip() if token_file else user.get("token", ""),
            client_certificate=_text(user, "client-certificate", path.parent),
            client_key=_text(user, "client-key", path.parent),
        )

    @property
    def host(self) -> str:
        return urlsplit(self.server).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.server).port or 443

    def ssl_context(self) -> ssl.SSLContext:
        """A client context that verifies the server and shows our certificate, where we have one."""
        context = ssl.create_default_context(cadata=self.ca or None)
        if self.client_certificate:
            # The ssl module reads certificates from files only; the folder is private and gone at once.
            with tempfile.TemporaryDirectory() as folder:
                pair = Path(folder, "pair.pem")
                pair.touch(0o600)
                pair.write_text(f"{self.client_certificate}\n{self.client_key}\n")
                context.load_cert_chain(pair)
        return context


def _named(config: dict[str, Any], section: str, name: str | None) -> dict[str, Any]:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            return dict(entry)
    raise InvalidResource(f"kubeconfig.{section}", f"there is no entry named {name!r}")


def _text(section: dict[str, Any], key: str, folder: Path) -> str:
    """Content of `<key>-data` (base64) or of the file that `<key>` names; empty when there is neither."""
    if inline := section.get(f"{key}-data"):
        return base64.b64decode(inline).decode()
    return (folder / section[key]).read_text() if section.get(key) else ""
