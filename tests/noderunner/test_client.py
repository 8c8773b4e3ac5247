"""The small client: server-side apply, waiting, watching, refusals, kubeconfig files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from edgefarm.errors import Conflict, InvalidResource, KubernetesRefused, KubernetesUnavailable
from localcluster.client import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, Client, Json, Resource, is_gone
from localcluster.connection import Connection
from localcluster.informer import Informer
from tests.noderunner.workloads import eventually, unique


def config_map(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_apply_creates_and_updates_and_drops_what_is_no_longer_there(kube: Client) -> None:
    name = unique("applied")
    await kube.apply([config_map(name, a="1", b="2")])
    await kube.apply([config_map(name, a="3")])
    found = await kube.get(CONFIG_MAPS, name, "default")
    assert found["data"] == {"a": "3"}
    assert await kube.delete(CONFIG_MAPS, name, "default")
    assert not await kube.delete(CONFIG_MAPS, name, "default")


async def test_an_object_can_be_applied_together_with_its_definition(kube: Client) -> None:
    group = f"{unique('group')}.example.com"
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
    definition: Json = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
    thing = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "one"}, "spec": {"size": 1}}
    try:
        _, made = await kube.apply([definition, thing])
        assert made["spec"] == {"size": 1}
        assert await kube.find(Resource(f"{group}/v1", "things"), "one", "default") is not None
    finally:
        await kube.delete(CUSTOM_RESOURCE_DEFINITIONS, f"things.{group}")
        await kube.wait_for(CUSTOM_RESOURCE_DEFINITIONS, f"things.{group}", until=is_gone)


async def test_a_kind_that_is_not_served_is_refused_by_name(kube: Client) -> None:
    with pytest.raises(KubernetesRefused, match=r"does not serve Nothing of example\.com/v1"):
        await kube.resource_of("example.com/v1", "Nothing", within=0)


async def test_refusals_conflicts_and_silence_are_told_apart(kube: Client) -> None:
    with pytest.raises(KubernetesRefused) as refused:
        await kube.get(CONFIG_MAPS, "absent", "default")
    assert refused.value.status == 404
    name = unique("twice")
    await kube.create(CONFIG_MAPS, config_map(name), "default")
    with pytest.raises(Conflict, match="already exists"):
        await kube.create(CONFIG_MAPS, config_map(name), "default")
    assert not await kube.delete(CONFIG_MAPS, name, "default", uid="another")
    await kube.delete(CONFIG_MAPS, name, "default")
    async with Client(Connection("https://127.0.0.1:1", ca="")) as nobody:
        with pytest.raises(KubernetesUnavailable, match="no answer"):
            await nobody.get(CONFIG_MAPS, "x", "default")


async def test_waiting_ends_with_what_was_seen_last(kube: Client) -> None:
    with pytest.raises(TimeoutError, match="configmaps/absent: not as expected"):
        await kube.wait_for(CONFIG_MAPS, "absent", "default", until=lambda obj: obj is not None, timeout=0.1)


async def test_an_informer_mirrors_what_exists_and_tells_what_moved(kube: Client) -> None:
    name = unique("mirrored")
    informer = Informer(kube, CONFIG_MAPS, fields=f"metadata.name={name}")
    told: list[str] = []
    informer.listen(lambda obj: told.append(obj["kind"]))
    await kube.create(CONFIG_MAPS, config_map(name, a="1"), "default")
    task = asyncio.create_task(informer.run())
    try:
        key = ("default", name)
        await eventually(lambda: key in informer.items, "the object is listed")
        await kube.patch(CONFIG_MAPS, name, {"data": {"a": "2"}}, "default")
        await eventually(lambda: informer.items[key]["data"] == {"a": "2"}, "the change is seen")
        await kube.delete(CONFIG_MAPS, name, "default")
        await eventually(lambda: key not in informer.items, "the deletion is seen")
        assert told == ["ConfigMap"] * 3
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_kubeconfig_may_name_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("authority")
    (tmp_path / "token").write_text("secret\n")
    path = tmp_path / "config"
    document = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://host:6443/", "certificate-authority": "ca.pem"}}],
        "users": [{"name": "u", "user": {"tokenFile": "token"}}],
    }
    path.write_text(yaml.safe_dump(document))
    connection = Connection.from_kubeconfig(path)
    assert (connection.server, connection.host, connection.port) == ("https://host:6443", "host", 6443)
    assert (connection.ca, connection.token) == ("authority", "secret")
    assert "secret" not in repr(connection)
    path.write_text(yaml.safe_dump({**document, "current-context": "there"}))
    with pytest.raises(InvalidResource, match="'there'"):
        Connection.from_kubeconfig(path)
