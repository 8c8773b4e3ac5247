"""OpenBao as the reconciler runs it: real processes from the StatefulSet's own pod template."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest

from edgefarm import names
from edgefarm.errors import VaultRefused
from edgefarm.vault import Vault
from edgefarm.vault.transport import Operation
from reconciler.ports import CONFIGMAP, POD, POD_DISRUPTION_BUDGET, SECRET, SERVICE, STATEFUL_SET, Object
from tests.reconciler_servers.killer import Killed
from tests.reconciler_servers.node import health
from tests.reconciler_servers.world import World

# Python leaves a socket open whose peer goes away between connection and TLS, as servers do here.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
#: Tokens as OpenBao writes them: of service, batch and recovery.
_TOKEN = re.compile(r"\b(?:s|b|r|hvs|hvb|hvr)\.[A-Za-z0-9_-]{24,}")
_SHOW = Operation("show", "POST")
_INITIALISED = "security barrier initialized"


async def test_openbao_initialises_itself_and_its_recovery_key_is_kept(world: World) -> None:
    await world.until_ready()
    await world.pass_once()
    writes = len(world.killer.writes)
    await world.pass_once()
    assert len(world.killer.writes) == writes
    await _assert_initialised_once(world)
    assert "initialize" not in await _configuration(world)


async def test_it_initialises_once_wherever_the_reconciler_ends(world: World) -> None:
    killer = world.killer
    with killer.killing_everywhere():
        while True:
            try:
                await world.until_ready()
                break
            except Killed:
                world.restart()
    assert killer.ends == {(when, write) for write in killer.writes for when in ("before", "after")}
    assert "verify recovery keys sys/rotate/recovery/verify" in killer.writes, "it came to the end"
    await _assert_initialised_once(world)


async def test_a_recovery_key_that_was_stored_but_never_took_effect_is_made_anew(world: World) -> None:
    world.killer.kill("before", "verify recovery keys sys/rotate/recovery/verify")
    with pytest.raises(Killed):
        await world.until_ready()
    world.restart()
    before = await world.secret(names.VAULT_RECOVERY_SECRET)
    # What waits for its verification is forgotten when OpenBao starts again.
    (pod,) = await _pods(world)
    await world.kube.delete(POD, world.namespace, pod["metadata"]["name"])
    await world.until(lambda: len(world.node.starts) == 2)
    await world.until_ready()
    assert await world.secret(names.VAULT_RECOVERY_SECRET) != before
    await _assert_initialised_once(world)


async def test_a_lone_openbao_becomes_three_that_are_updated_one_after_the_other_the_active_one_last(
    world: World,
) -> None:
    await world.until_ready()
    first = names.server_replica(names.VAULT_SERVER, 0)
    world.configure(replicas=3)
    await world.until(lambda: sum(health(each) == 200 for each in world.node.addresses) == 3)
    assert world.node.starts.count(first) == 1, "the first one must not be restarted"
    _trust_new_replicas_soon(world)
    await _assert_initialised_once(world)
    world.node.starts.clear()
    world.configure(image="openbao:next")
    await world.until(lambda: len(world.node.starts) == 3, seconds=60)
    assert world.node.starts[-1] == first
    await world.until(lambda: sum(health(each) == 200 for each in world.node.addresses) == 3)
    world.configure(replicas=1)
    await world.until(lambda: any(each[1] == "ConfigurationRefused" for each in world.events.seen))
    assert len(await _pods(world)) == 3
    # A first replica that has lost its disk joins the others.
    shutil.rmtree(world.node.folder / first / "data")
    await world.kube.delete(POD, world.namespace, first)
    await world.until(lambda: len(world.node.starts) == 4)
    await world.until(lambda: sum(health(each) == 200 for each in world.node.addresses) == 3)
    await _assert_initialised_once(world)


async def test_without_its_seal_key_nothing_is_made_anew(world: World) -> None:
    await world.until_ready()
    await world.pass_once()
    trusted = await world.kube.get(CONFIGMAP, world.namespace, names.SERVERS_CA)
    assert trusted is not None
    assert "BEGIN CERTIFICATE" in trusted["data"]["ca.crt"]
    key = await world.kube.get(SECRET, world.namespace, names.VAULT_UNSEAL_SECRET)
    await world.kube.delete(SECRET, world.namespace, names.VAULT_UNSEAL_SECRET)
    await world.until(lambda: "out of the pod network-vault-0 before it ends" in world.source.summary)
    assert {event[1] for event in world.events.seen} == {"SealKeyLost"}
    world.restart()
    await world.until(lambda: "restore it from a backup" in world.source.summary)
    assert await world.kube.get(SECRET, world.namespace, names.VAULT_UNSEAL_SECRET) is None
    # Nor is anything taken from pods that start meanwhile.
    trusted_still = await world.kube.get(CONFIGMAP, world.namespace, names.SERVERS_CA)
    assert trusted_still is not None
    assert trusted_still["data"] == trusted["data"]
    assert key is not None
    del key["metadata"]["resourceVersion"], key["metadata"]["uid"]
    await world.kube.create(SECRET, key)
    await world.until_ready()


async def test_an_openbao_that_begins_anew_is_set_up_by_the_reconciler_that_has_set_up_the_one_before(
    world: World,
) -> None:
    await world.until_ready()
    before = await world.secret(names.VAULT_RECOVERY_SECRET)
    await world.kube.delete(SECRET, world.namespace, names.VAULT_RECOVERY_SECRET)
    # While the old one runs, its key is in effect: nobody else may begin, and the administrator is told.
    await world.until(lambda: any(event[1] == "RecoveryKeyLost" for event in world.events.seen))
    await world.pass_once()
    writes = len(world.killer.writes)
    await world.pass_once()
    assert len(world.killer.writes) == writes
    assert "initialize" not in await _configuration(world)
    (pod,) = await _pods(world)
    shutil.rmtree(world.node.folder / pod["metadata"]["name"] / "data")
    await world.kube.delete(POD, world.namespace, pod["metadata"]["name"])
    await world.until(lambda: len(world.node.starts) == 2)
    await world.until_ready()
    assert await world.secret(names.VAULT_RECOVERY_SECRET) != before
    assert world.vault(names.CONTROLLER_ROLE).read_document(names.OPERATOR_DOCUMENT)


async def test_openbao_that_somebody_else_shall_run_is_taken_down_and_comes_back_with_its_data(world: World) -> None:
    await world.until_ready()
    document = world.vault(names.CONTROLLER_ROLE).read_document(names.OPERATOR_DOCUMENT)
    kept = {name: await world.secret(name) for name in (names.VAULT_UNSEAL_SECRET, names.VAULT_RECOVERY_SECRET)}
    stranger = {"name": "stranger", "namespace": world.namespace, "labels": {names.LABEL_SERVER: names.VAULT_SERVER}}
    await world.kube.create(CONFIGMAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": stranger})
    world.configure(deploy=False, address="https://vault.example")
    await world.until(lambda: not world.node.replicas)
    await world.pass_once()
    for kind in (STATEFUL_SET, SERVICE, CONFIGMAP, POD_DISRUPTION_BUDGET):
        left, _ = await world.kube.list(kind, world.namespace, labels=f"{names.LABEL_SERVER}={names.VAULT_SERVER}")
        assert [obj["metadata"]["name"] for obj in left] == (["stranger"] if kind == CONFIGMAP else [])
    assert await world.kube.get(SECRET, world.namespace, names.server_tls_secret(names.VAULT_SERVER)) is None
    assert {name: await world.secret(name) for name in kept} == kept
    writes = len(world.killer.writes)
    await world.pass_once()
    assert len(world.killer.writes) == writes
    world.configure(deploy=True, address="")
    await world.until_ready()
    assert world.vault(names.CONTROLLER_ROLE).read_document(names.OPERATOR_DOCUMENT) == document
    await _assert_initialised_once(world)


async def test_a_new_certificate_and_a_full_audit_log_are_taken_up_without_a_restart(world: World) -> None:
    world.configure(auditStorage="16Ki")
    await world.until_ready()
    served = _certificate(world)
    world.configure(hosts=[*world.node.addresses, "vault.example"])
    await world.until(lambda: _certificate(world) != served, seconds=45)
    folder = world.node.folder / names.server_replica(names.VAULT_SERVER, 0) / "data"
    assert (folder / "audit.log.1").stat().st_size > 8192
    assert len(world.node.starts) == 1
    assert world.vault(names.CONTROLLER_ROLE).read_document(names.OPERATOR_DOCUMENT)
    assert (folder / "audit.log").stat().st_size > 0


async def _assert_initialised_once(world: World) -> None:
    """One initialisation, logins as both roles, a recovery key that is in effect, and no other secret anywhere."""
    assert world.node.log().count(_INITIALISED) == 1
    document = world.vault(names.CONTROLLER_ROLE).read_document(names.OPERATOR_DOCUMENT)
    assert document is not None
    vault = world.vault(names.VAULT_SETUP_ROLE)
    stored = await world.secret(names.VAULT_RECOVERY_SECRET)
    assert set(stored) == {"keys"}
    await asyncio.to_thread(_prove, vault, base64.b64decode(stored["keys"]).decode())
    secrets, _ = await world.kube.list(SECRET, world.namespace)
    held = [base64.b64decode(text).decode("latin-1") for each in secrets for text in each.get("data", {}).values()]
    audit = [path.read_text() for path in world.node.folder.glob("*/data/audit.log*")]
    assert audit
    assert not _TOKEN.findall("\n".join([*held, *audit, world.node.log()]))


def _prove(vault: Vault, key: str) -> None:
    """Show the recovery key for a rotation, which is not finished: the new key is never verified."""
    transport, path = vault.transport, "sys/rotate/recovery"
    own = vault.policy(names.VAULT_SETUP_ROLE)
    assert own is not None
    # No part of what the reconciler does, so that its rights have to be extended; it may do that.
    vault.write_policy(names.VAULT_SETUP_ROLE, own.replace(f"{path}/verify", f"{path}/*"))
    body = {"secret_shares": 1, "secret_threshold": 1, "require_verification": True}
    begun = transport.read(Operation("begin", "POST"), f"{path}/init", body)
    assert begun is not None
    assert begun["required"] == 1
    answer = _once_permitted(lambda: transport.read(_SHOW, f"{path}/update", {"key": key, "nonce": begun["nonce"]}))
    assert answer["complete"]
    transport.send(Operation("cancel", "DELETE"), f"{path}/init")
    vault.write_policy(names.VAULT_SETUP_ROLE, own)


def _once_permitted(send: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    """The answer, as soon as a replica knows of rights that were given a moment ago at another one."""
    until = time.monotonic() + 10
    while True:
        try:
            return send() or {}
        except VaultRefused as error:
            if error.status != 403 or time.monotonic() > until:
                raise


def _trust_new_replicas_soon(world: World) -> None:
    """A replica that has joined has no vote before it was well for ten seconds, without this."""
    vault, path = world.vault(names.VAULT_SETUP_ROLE), "sys/storage/raft/autopilot"
    own = vault.policy(names.VAULT_SETUP_ROLE)
    assert own is not None
    wider = {f"{path}/configuration": {"capabilities": ["update", "sudo"]}, **json.loads(own)["path"]}
    vault.write_policy(names.VAULT_SETUP_ROLE, json.dumps({"path": wider}))
    body = {"server_stabilization_time": "1s"}
    _once_permitted(lambda: vault.transport.send(Operation("configure", "POST"), f"{path}/configuration", body))
    vault.write_policy(names.VAULT_SETUP_ROLE, own)


async def _pods(world: World) -> list[Object]:
    return (await world.kube.list(POD, world.namespace, labels=f"{names.LABEL_SERVER}={names.VAULT_SERVER}"))[0]


async def _configuration(world: World) -> str:
    config = await world.kube.get(CONFIGMAP, world.namespace, names.VAULT_SERVER)
    assert config is not None
    return "".join(config["data"].values())


def _certificate(world: World) -> str:
    try:
        return ssl.get_server_certificate((world.node.addresses[0], 8200), timeout=5)
    except OSError:
        return ""
