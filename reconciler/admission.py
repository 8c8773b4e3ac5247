"""Gathers, from what informers have seen, the facts that decide whether a configuration is accepted."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

from edgefarm import names
from reconciler.configuration import Configuration
from reconciler.desired.servers.admission import SECTIONS, Facts, Verdict, judge, recall, recall_ready
from reconciler.informers import Informers
from reconciler.ports import CONFIGMAP, NETWORK, SECRET, Object
from reconciler.watch import Source

_MEMORY: Final = f"metadata.name={names.SERVERS_CA}"


class Admission:
    """A `configuration_source.Judge` of one controller namespace. Its informers must be synced before it is asked."""

    def __init__(self, informers: Informers, namespace: str) -> None:
        self._namespace = namespace
        self._networks = informers.informer(Source(NETWORK, namespace))
        self._memory = informers.informer(Source(CONFIGMAP, namespace, fields=_MEMORY))
        self._certificates = {
            server: informers.informer(
                Source(SECRET, namespace, fields=f"metadata.name={names.server_tls_secret(server)}")
            )
            for server in SECTIONS
        }

    def __call__(self, wanted: Configuration, accepted: Configuration | None) -> Verdict:
        """What is accepted now."""
        return judge(wanted, accepted, self._facts())

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the last Network that has an account may have gone."""

        def changed(old: Object | None, new: Object | None) -> None:
            if old is not None and new is None:
                listener()

        self._networks.add_handler(changed)

    def _facts(self) -> Facts:
        accounts = [obj for obj in self._networks.store.list() if (obj.get("status") or {}).get("account")]
        served = [
            each.store.get(self._namespace, names.server_tls_secret(server))
            for server, each in self._certificates.items()
        ]
        memory = self._memory.store.get(self._namespace, names.SERVERS_CA)
        return Facts(
            remembered=recall(memory, self._namespace),
            traces=frozenset(server for server, each in self._certificates.items() if each.store.list()),
            networks=tuple(obj["metadata"]["name"] for obj in accounts),
            ready=recall_ready(memory),
            authorities=next(filter(None, map(_authorities, served)), ""),
        )


def _authorities(secret: Object | None) -> str:
    """The authorities beside a server's certificate (PEM), which are those that its controller tells."""
    return base64.b64decode(((secret or {}).get("data") or {}).get("ca.crt", "")).decode()
