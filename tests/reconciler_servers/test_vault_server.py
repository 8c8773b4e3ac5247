"""OpenBao as the reconciler runs it: real processes from the StatefulSet's own pod template."""

from __future__ import annotations

from edgefarm import names
from tests.reconciler_servers.world import World


async def test_openbao_initialises_itself_and_the_reconciler_logs_in(world: World) -> None:
    await world.until_ready()
    assert world.source.current is not None
    vault = world.vault(names.CONTROLLER_ROLE)
    assert vault.read_document(names.OPERATOR_DOCUMENT) is not None
