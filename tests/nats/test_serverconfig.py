"""The hub's configuration text, read by a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefarm.nats.serverconfig import hub_config
from localcluster.stack import Authority
from reconciler.adapters.nats import SystemClient
from tests.natskit import Hub, LocalOperator


class _OddFolders(Hub):
    def resolver_dir(self, name: str) -> Path:
        return self.folder / f'{name} "Müller" $HOME \\n # {{}}'


async def test_a_resolver_folder_of_any_name_is_used_as_it_is_written(work: Path, authority: Authority) -> None:
    hub = _OddFolders.start(work, authority, LocalOperator())
    client = SystemClient(hub.urls, hub.operator.system_credentials, ca_bundle=authority.pem)
    account = hub.operator.account("net")
    await client.push(account.token())
    await client.close()
    hub.stop()
    stored = {path.stem for path in hub.resolver_dir("hub-0").rglob("*.jwt")}
    assert stored == {account.public, hub.operator.system.public}


def test_a_value_with_control_characters_is_refused() -> None:
    with pytest.raises(ValueError, match="control characters"):
        hub_config(operator_jwt="a", system_account="b", system_account_jwt="c", resolver_dir="d\ninclude x")
