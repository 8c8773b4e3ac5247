"""The NATS that the reconciler runs, as a cluster's nodes start it."""

from __future__ import annotations

from edgefarm import names
from tests.reconciler_servers_nats.installation import Installation


async def test_a_server_comes_up_and_is_reported_ready(installation: Installation) -> None:
    installation.accept(replicas=1, storage={"size": "128Mi"})
    pods = await installation.ready(1)
    assert set(pods) == {f"{names.NATS_SERVER}-0"}


async def test_three(installation: Installation) -> None:
    installation.accept(replicas=3, storage={"size": "128Mi"})
    pods = await installation.ready(3)
    print(await installation.hub.client.states())
