"""EDGEFARM_TEST_KUBECONFIG: the cluster that it names is used, left running, and refused where it does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefarm import names
from localcluster.client import NAMESPACES, NODES, Client
from localcluster.kubernetes import KUBECONFIG_VARIABLE, GivenApiServer, LocalApiServer, start_api_server
from localcluster.process import StartError
from tests.e2e.given import GivenCluster


@pytest.fixture
def running(work: Path) -> Iterator[LocalApiServer]:
    server = LocalApiServer.start(work / "running")
    yield server
    server.stop()


async def test_the_named_cluster_is_used_and_left_running(
    running: LocalApiServer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KUBECONFIG_VARIABLE, str(running.kubeconfig))
    server = start_api_server(work / "given", assets=work / "ignored")
    assert isinstance(server, GivenApiServer)
    assert (server.url, server.admin_token) == (running.url, running.admin_token)
    assert server.ca.read_text() == running.ca.read_text()
    with pytest.raises(StartError, match=f"unset {KUBECONFIG_VARIABLE}"):
        _ = server.process
    server.stop()
    async with Client.from_kubeconfig(server.kubeconfig) as kube:
        assert await kube.get(NAMESPACES, "default")


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), ("text", "is no kubeconfig")])
def test_a_kubeconfig_that_cannot_be_used_is_refused_with_a_sentence(
    work: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, words: str
) -> None:
    if content is not None:
        (work / "kubeconfig").write_text(content)
    monkeypatch.setenv(KUBECONFIG_VARIABLE, str(work / "kubeconfig"))
    with pytest.raises(StartError, match=f"{KUBECONFIG_VARIABLE}: .*{words}"):
        start_api_server(work / "given")


def test_a_cluster_that_does_not_answer_is_refused_with_a_sentence(
    running: LocalApiServer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.stop()
    monkeypatch.setenv(KUBECONFIG_VARIABLE, str(running.kubeconfig))
    with pytest.raises(StartError, match="is not ready"):
        start_api_server(work / "given")


async def test_the_platform_is_not_installed_beside_other_nodes_or_another_installation(
    running: LocalApiServer,
) -> None:
    async with Client.from_kubeconfig(running.kubeconfig) as kube:
        assert "default" in (await GivenCluster.take(running.kubeconfig)).namespaces
        await kube.create(NAMESPACES, {"metadata": {"name": names.CONTROLLER_NAMESPACE}})
        with pytest.raises(pytest.fail.Exception, match="run these tests one after the other"):
            await GivenCluster.take(running.kubeconfig)
        await kube.create(NODES, {"metadata": {"name": "worker"}})
        with pytest.raises(pytest.skip.Exception, match="has nodes or a controller manager of its own"):
            await GivenCluster.take(running.kubeconfig)
