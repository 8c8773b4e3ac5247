"""Keeps what NACK logs in with: an Account object and a Secret per network, in the controller namespace."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from edgefarm import names
from edgefarm.errors import Conflict
from edgefarm.nats.creds import format_creds
from reconciler.configuration import Configuration
from reconciler.context import Context
from reconciler.desired import nack
from reconciler.desired.streams import Refusal
from reconciler.ports import NACK_ACCOUNT, SECRET, Kind, Object
from reconciler.users import Term, network_signer, sign_user

#: How long it is taken for granted that both are as they shall be.
_TRUST: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class _Seen:
    """What was found to be in order, for how long that is good, and what it was made of."""

    until: datetime
    made_of: object


class NackAccounts:
    """The logins of all networks."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seen: dict[str, _Seen] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ensure(self, network: Object, configuration: Configuration) -> Refusal | None:
        """Make what is missing, renew what expires, mend what is different; nothing is written when all is in order.

        A refusal says that there is a foreign object in the way. Raises NatsUnavailable while the network has no
        account, what Vault raises, Conflict, KubernetesUnavailable and KubernetesRefused.
        """
        name, now = network["metadata"]["name"], self._context.clock()
        made_of = (network["metadata"]["uid"], (network.get("status") or {}).get("account"), configuration)
        async with self._locks[name]:
            seen = self._seen.get(name)
            if seen is not None and seen.made_of == made_of and now < seen.until:
                return None
            self._seen.pop(name, None)
            refusal = await self._ensure(network, configuration)
            if refusal is None:
                self._seen[name] = _Seen(now + _TRUST, made_of)
            return refusal

    async def delete(self, network: str) -> None:
        """Remove both, the Secret last: by it a later process knows that there is something of NACK's."""
        self._seen.pop(network, None)
        for kind in (NACK_ACCOUNT, SECRET):
            found = await self._read(kind, network)
            if found is not None and nack.is_ours(found, network):
                await self._context.kube.delete(kind, self._namespace, found["metadata"]["name"], uid=_uid(found))

    async def _ensure(self, network: Object, configuration: Configuration) -> Refusal | None:
        name = network["metadata"]["name"]
        hub = nack.Hub(configuration.nats.urls, configuration.nats.ca_bundle)
        found = {kind: await self._read(kind, name) for kind in (SECRET, NACK_ACCOUNT)}
        for kind, obj in found.items():
            if obj is not None and not nack.is_ours(obj, name):
                return Refusal(
                    "NameTaken",
                    f"NACK's {kind.kind} for this network would be called {obj['metadata']['name']!r}, and there is "
                    f"another one of that name in the namespace {self._namespace}: rename or delete it",
                )
        credentials = await self._credentials(name, found[SECRET])
        await self._write(SECRET, found[SECRET], nack.secret_object(network, hub, credentials))
        await self._write(NACK_ACCOUNT, found[NACK_ACCOUNT], nack.account_object(network, hub))
        return None

    async def _credentials(self, network: str, secret: Object | None) -> str:
        """The creds file of the Secret, or one of a new user."""
        signer = await network_signer(self._context.vault, network, names.nack_key(network))
        now = self._context.clock()
        usable = nack.usable_credentials(secret, signer.account, signer.issuer, now)
        if usable is not None:
            return usable
        term = Term("nack", now, nack.CREDENTIALS_LIFETIME)
        return format_creds(*await sign_user(self._context.vault, signer, term))

    async def _read(self, kind: Kind, network: str) -> Object | None:
        """Afresh, not from a store: what stands in the Secret is not to be kept anywhere else."""
        return await self._context.kube.get(kind, self._namespace, names.nack_account(network))

    async def _write(self, kind: Kind, found: Object | None, wanted: Mapping[str, Any]) -> None:
        if found is None:
            await self._context.kube.create(kind, wanted)
            return
        if "deletionTimestamp" in found["metadata"]:
            raise Conflict(
                f"NACK's {kind.kind} {found['metadata']['name']} is being deleted: it is made anew after that"
            )
        patch = nack.mending_patch(found, wanted)
        if patch:
            await self._context.kube.patch(kind, self._namespace, found["metadata"]["name"], patch)

    @property
    def _namespace(self) -> str:
        return self._context.settings.namespace


def _uid(obj: Object) -> str:
    return str(obj["metadata"]["uid"])
