"""What users see when something is wrong: outages, wrong objects, a wrong configuration, a deletion that must wait."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from edgefarm import names
from localcluster.client import CONFIG_MAPS, EVENTS, SERVICE_ACCOUNTS, Json, has_condition, is_gone
from localcluster.demo.observer import NETWORKS, POLICIES
from localcluster.platform import Platform
from localcluster.stack import find_program

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMESPACE = names.CONTROLLER_NAMESPACE


def network(name: str, **spec: Any) -> Json:
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": names.API_VERSION, "kind": "Network", "metadata": meta, "spec": spec}


def policy(namespace: str, name: str, **spec: Any) -> Json:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": names.API_VERSION, "kind": "Policy", "metadata": meta, "spec": spec}


def namespace(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def reason_is(kind: str, reason: str) -> Callable[[Json | None], bool]:
    """For `wait_for`: the condition of this type has this reason."""

    def check(obj: Json | None) -> bool:
        conditions = (obj or {}).get("status", {}).get("conditions", [])
        return any(entry["type"] == kind and entry["reason"] == reason for entry in conditions)

    return check


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def message_of(obj: Json | None, kind: str) -> str:
    assert obj is not None
    return str(next(entry["message"] for entry in obj["status"]["conditions"] if entry["type"] == kind))


async def ready(platform: Platform, name: str) -> Json:
    found = await platform.kube.wait_for(NETWORKS, name, NAMESPACE, until=has_condition("Ready"), timeout=40)
    assert found is not None
    return found


def kubectl(platform: Platform, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [find_program("kubectl"), "--kubeconfig", str(platform.api.kubeconfig), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


async def test_while_openbao_is_away_the_network_says_so_and_recovers(platform: Platform) -> None:
    await platform.kube.apply([namespace("v"), network("vaultless", namespaces=["v"])])
    await ready(platform, "vaultless")
    address = platform.bao.address
    platform.bao.stop()
    await platform.kube.apply([policy("v", "late", network="vaultless", allowpub=["a.>"])])
    waiting = await platform.kube.wait_for(
        NETWORKS, "vaultless", NAMESPACE, until=reason_is("Ready", "VaultUnavailable"), timeout=40
    )
    assert address in message_of(waiting, "Ready")
    platform.start_openbao(port=port_of(address))
    await platform.kube.wait_for(POLICIES, "late", "v", until=has_condition("Ready"), timeout=60)
    await ready(platform, "vaultless")


async def test_a_deleted_network_waits_for_nats_and_then_leaves_nothing(platform: Platform) -> None:
    await platform.kube.apply([namespace("n"), network("leaving", namespaces=["n"])])
    await platform.kube.apply([policy("n", "p", network="leaving", allowpub=["a.>"])])
    account = (await ready(platform, "leaving"))["status"]["account"]
    await platform.kube.wait_for(POLICIES, "p", "n", until=has_condition("Ready"), timeout=20)
    platform.nats.stop()
    await platform.kube.delete(NETWORKS, "leaving", NAMESPACE)
    waiting = await platform.kube.wait_for(
        NETWORKS,
        "leaving",
        NAMESPACE,
        until=lambda obj: reason_is("Ready", "Deleting")(obj) and platform.nats.url in message_of(obj, "Ready"),
        timeout=40,
    )
    assert waiting is not None
    assert names.FINALIZER in waiting["metadata"]["finalizers"]
    assert platform.vault.key(names.account_key("leaving")) is not None
    platform.start_nats(port=port_of(platform.nats.url))
    await platform.kube.wait_for(NETWORKS, "leaving", NAMESPACE, until=is_gone, timeout=60)
    left = [*platform.vault.keys(), *platform.vault.roles(), *platform.vault.policies()]
    left += platform.vault.list_documents("access")
    assert [name for name in left if "leaving" in name] == []
    assert not list((platform.folder / "nats" / "accounts").glob(f"{account}.jwt"))
    orphan = await platform.kube.wait_for(
        POLICIES, "p", "n", until=reason_is("Accepted", "NetworkNotFound"), timeout=20
    )
    assert "'leaving'" in message_of(orphan, "Accepted")


async def test_a_wrong_configuration_is_reported_and_the_last_good_one_stays(platform: Platform) -> None:
    good = (await platform.kube.get(CONFIG_MAPS, names.CONFIGMAP, NAMESPACE))["data"]["config.yaml"]
    wrong = yaml.safe_dump(yaml.safe_load(good) | {"credentails": {"renewEvery": "1s"}})
    await platform.kube.patch(CONFIG_MAPS, names.CONFIGMAP, {"data": {"config.yaml": wrong}}, NAMESPACE)

    async def said(reason: str) -> list[str]:
        events, _ = await platform.kube.list(EVENTS, NAMESPACE)
        return [event["message"] for event in events if event["reason"] == reason]

    for _ in range(200):
        if messages := await said("InvalidConfiguration"):
            break
    assert any("credentails" in message and "credentials" in message for message in messages)
    await platform.kube.apply([namespace("c"), network("still", namespaces=["c"])])
    await ready(platform, "still")
    await platform.kube.patch(CONFIG_MAPS, names.CONFIGMAP, {"data": {"config.yaml": good}}, NAMESPACE)


async def test_a_network_that_names_a_missing_namespace_says_which_and_heals(platform: Platform) -> None:
    await platform.kube.apply([network("ahead", namespaces=["not-yet"])])
    seen = await platform.kube.wait_for(
        NETWORKS, "ahead", NAMESPACE, until=has_condition("NamespacesFound", "False"), timeout=20
    )
    assert "not-yet" in message_of(seen, "NamespacesFound")
    await platform.kube.apply([namespace("not-yet")])
    await platform.kube.wait_for(NETWORKS, "ahead", NAMESPACE, until=has_condition("NamespacesFound"), timeout=20)


async def test_of_two_policies_with_one_service_account_the_older_keeps_it(platform: Platform) -> None:
    await platform.kube.apply([namespace("two"), network("shared", namespaces=["two"])])
    await platform.kube.apply([policy("two", "older", serviceAccounts=["worker"], allowpub=["a"])])
    await platform.kube.wait_for(POLICIES, "older", "two", until=has_condition("Ready"), timeout=30)
    await platform.kube.apply([policy("two", "younger", serviceAccounts=["worker"], allowpub=["b"])])

    def says_so(obj: Json | None) -> bool:
        return "worker" in json.dumps((obj or {}).get("status", {}).get("conditions", []))

    younger = await platform.kube.wait_for(POLICIES, "younger", "two", until=says_so, timeout=20)
    assert younger is not None
    assert "older" in json.dumps(younger["status"]["conditions"])
    assert younger["status"]["serviceAccounts"] == ["younger"]
    older = await platform.kube.get(POLICIES, "older", "two")
    assert older["status"]["serviceAccounts"] == ["older", "worker"]
    assert await platform.kube.find(SERVICE_ACCOUNTS, "younger", "two") is not None


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (network("bad", limits={"filestorage": "lots"}), "spec.limits.filestorage"),
        (network("bad", limits={"immemorystorage": "1Mi", "inmemorystorage": "1Mi"}), "write only inmemorystorage"),
        (network("a.b"), "no dots"),
        (network("n" * 64), "1 to 63"),
        (policy("default", "bad", allowpub=["a b"]), "without spaces"),
        (policy("default", "bad", allowsub=["a..b"]), "tokens joined by '.'"),
        (policy("default", "bad", denypub=["a.>.b"]), "only at the end"),
        (network("bad", namespace=["typo"]), 'unknown field "spec.namespace"'),
    ],
)
async def test_the_api_server_refuses_wrong_objects_with_what_to_write(
    platform: Platform, obj: Json, words: str
) -> None:
    done = kubectl(platform, "apply", "-f", "-", text=json.dumps(obj))
    assert done.returncode != 0
    assert words in done.stderr


async def test_kubectl_shows_networks_and_policies_with_their_state(platform: Platform) -> None:
    shown = kubectl(platform, "get", "networks,policies", "-A")
    assert shown.returncode == 0, shown.stderr
    assert "READY" in shown.stdout
    row = next(line for line in shown.stdout.splitlines() if "/shared" in line)
    assert row.split()[2:4] == ["True", "Reconciled"]


async def test_no_process_of_the_platform_logged_a_secret(platform: Platform) -> None:
    secrets = [platform.bao.root_token, platform.api.admin_token]
    suspicious = ("eyJhbGciOi", "-----BEGIN PRIVATE", "-----BEGIN EC PRIVATE", "hvb.", "b.AAAA")
    logs = [*platform.folder.glob("*.log"), *platform.folder.glob("nodes/logs/*.log")]
    assert logs
    for log in logs:
        text = log.read_text(errors="replace")
        assert not [word for word in (*secrets, *suspicious) if word in text], log.name
