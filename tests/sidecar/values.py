"""Values for tests of pure parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sidecar.access import AccessDocument
from sidecar.credentials import Credentials

ACCESS = AccessDocument(
    network="foo",
    policy="sensor",
    account="AACCOUNT",
    signing_key="AKEY1",
    transit_key="policy.foo.plant.sensor",
    key_version=1,
    hub=("tls://nats.example:4222",),
    leaf=(),
    renew_every_seconds=3600,
    lifetime_seconds=86400,
)


def held(issued_at: int = 0, access: AccessDocument = ACCESS, **changes: Any) -> Credentials:
    """Credentials for the document."""
    made = Credentials(
        jwt="a.b.c",
        seed="SUSEED",
        access=access,
        account=access.account,
        signing_key=access.signing_key,
        issued_at=issued_at,
        expires_at=issued_at + access.lifetime_seconds,
    )
    return replace(made, **changes)
