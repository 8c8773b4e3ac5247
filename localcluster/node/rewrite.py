"""Stands in for namespaces and the cluster's DNS by rewriting what a container is told.

All containers see the same file system and the same loopback device. Three rewritings of environment values, command
and arguments make up for it:

* every occurrence of a volume mount's path, as a path or as the beginning of one, becomes the folder that really
  holds the volume (`--config=/etc/app/app.yaml` becomes `--config=<data>/pods/<uid>/volumes/config/app.yaml`);
* `127.0.0.1` and `localhost` become the pod's own loopback address, so that the containers of one pod find each
  other there, and two pods may listen on the same port;
* `<service>.<namespace>.svc` and `.svc.cluster.local` become the address of that Service, if it is there when the
  container starts and is served here (`localcluster.network.services`), unless containers have cluster DNS.

A program that has such a path, address or name built in is out of reach: it must take it from environment or arguments.
What `localcluster.node.mounts` shows containers, where it may, needs no rewriting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_LOCALHOST = re.compile(r"(?<![\w.-])(?:127\.0\.0\.1|localhost)(?![\w-]|\.\w)")
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SERVICE = re.compile(rf"(?<![\w.-])({_LABEL})\.({_LABEL})\.svc(?:\.cluster\.local)?(?![\w-]|\.\w)")
_VARIABLE = re.compile(r"\$(?:\$|\(([\w.-]+)\))")


class Rewriter:
    """The rewriting for one container: `mounts` maps mount paths to real paths, `resolve` knows the Services."""

    def __init__(self, mounts: Mapping[str, str], pod_ip: str, resolve: Callable[[str, str], str | None]) -> None:
        self._mounts = {path.rstrip("/"): real for path, real in mounts.items() if path.rstrip("/")}
        self._pod_ip = pod_ip
        self._resolve = resolve
        # The longest path first: a mount may lie below another.
        paths = "|".join(re.escape(path) for path in sorted(self._mounts, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<![\w.-])(?:{paths})(?![\w-]|\.\w)") if paths else None

    def __call__(self, text: str) -> str:
        text = _SERVICE.sub(lambda found: self._resolve(found[1], found[2]) or found[0], text)
        text = _LOCALHOST.sub(self._pod_ip, text)
        return text if self._pattern is None else self._pattern.sub(lambda found: self._mounts[found[0]], text)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Kubernetes' `$(NAME)` expansion: unknown names stay as they are, `$$` is a literal `$`."""

    def value(found: re.Match[str]) -> str:
        return "$" if found[1] is None else variables.get(found[1], found[0])

    return _VARIABLE.sub(value, text)
