"""How the command line finds a cluster as kubectl does, and what it says when that does not work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.kube import Kube
from cli.kubeconfig import Wanted
from edgefarm.errors import KubernetesRefused, KubernetesUnavailable
from localcluster.kubernetes import LocalApiServer
from reconciler.ports import EDGE_NETWORK, NETWORK, POD, POLICY
from tests.cli.conftest import Cluster, Ended
from tests.cli.scripted import failure, kubeconfig, scripted

Run = Callable[..., Ended]
_EMPTY = (200, {"kind": "List", "items": []})


def _open(path: Path, **options: Any) -> Kube:
    return Kube.open(Wanted({}, str(path), **options))


def test_without_a_kubeconfig_it_says_where_one_was_looked_for(edgefarm: Run) -> None:
    ended = edgefarm("status")
    assert ended.status == 3
    assert ended.err == (
        "edgefarm: there is no kubeconfig: ~/.kube/config does not exist; set KUBECONFIG or write --kubeconfig FILE\n"
    )


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "{", "clusters: 7\n", "current-context: x\n", "\0", "apiVersion: v1\nkind: Config\n"]
)
def test_a_garbage_kubeconfig_is_one_sentence(edgefarm: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    ended = edgefarm("status", "--kubeconfig", str(tmp_path / "config"))
    assert ended.status == 3
    assert ended.err.startswith(f"edgefarm: the kubeconfig {tmp_path / 'config'} cannot be used")
    assert len(ended.err.splitlines()) == 1


def test_a_context_that_is_not_there_is_named(edgefarm: Run, tmp_path: Path) -> None:
    file = kubeconfig(tmp_path / "config", "http://127.0.0.1:9")
    ended = edgefarm("status", "--kubeconfig", str(file), "--context", "other")
    assert ended.status == 3
    assert ended.err == f"edgefarm: --context: {file} has no context 'other', but it\n"


def test_a_server_that_is_away_is_named_with_what_to_do(edgefarm: Run, tmp_path: Path) -> None:
    file = kubeconfig(tmp_path / "config", "https://127.0.0.1:9")
    ended = edgefarm("status", "--kubeconfig", str(file))
    assert ended.status == 3
    assert "the Kubernetes API at https://127.0.0.1:9 cannot be reached" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_server_with_a_foreign_certificate_is_not_trusted(api: LocalApiServer, tmp_path: Path) -> None:
    file = kubeconfig(tmp_path / "config", api.url)
    with pytest.raises(KubernetesUnavailable, match="certificate verify failed"):
        _open(file).list(NETWORK)


def test_a_kubeconfig_that_does_without_verification_is_obeyed_silently(
    api: LocalApiServer, edgefarm: Run, tmp_path: Path
) -> None:
    document = yaml.safe_load(api.kubeconfig.read_text())
    document["clusters"][0]["cluster"] = {"server": api.url, "insecure-skip-tls-verify": True}
    (tmp_path / "config").write_text(yaml.safe_dump(document))
    ended = edgefarm("status", "--kubeconfig", str(tmp_path / "config"), "--controller-namespace", "x", "-n", "x")
    assert (ended.status, ended.err) == (0, "")


def test_in_a_pod_its_own_account_is_asked_for(edgefarm: Run) -> None:
    ended = edgefarm("status", KUBERNETES_SERVICE_HOST="127.0.0.1", KUBERNETES_SERVICE_PORT="9")
    assert ended.status == 3
    assert ended.err.startswith("edgefarm: the kubeconfig of this pod cannot be used: Service ")


def test_a_token_that_is_not_known_is_refused_without_repeating_it(
    api: LocalApiServer, edgefarm: Run, tmp_path: Path
) -> None:
    document = yaml.safe_load(api.kubeconfig.read_text())
    document["users"][0]["user"]["token"] = "stale-token"
    (tmp_path / "config").write_text(yaml.safe_dump(document))
    ended = edgefarm("status", "--kubeconfig", str(tmp_path / "config"))
    assert ended.status == 3
    assert "does not accept your login: log in again" in ended.err
    assert "stale-token" not in ended.err


def test_several_files_in_KUBECONFIG_are_merged_and_missing_ones_left_out(
    api: LocalApiServer, edgefarm: Run, tmp_path: Path
) -> None:
    other = kubeconfig(tmp_path / "other", "http://127.0.0.1:9")
    files = f"{tmp_path / 'missing'}:{other}:{api.kubeconfig}"
    ended = edgefarm("status", "--context", "localcluster", "--controller-namespace", "nowhere", KUBECONFIG=files)
    assert ended.status == 0, ended


def test_the_login_command_of_a_kubeconfig_is_run(tmp_path: Path) -> None:
    credential = '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t"}}'
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": ["-c", f"print({credential!r})"],
        }
    }
    with scripted(lambda _path, _query: _EMPTY) as server:
        _open(kubeconfig(tmp_path / "config", server.url, user)).list(NETWORK)
    assert server.authorizations == ["Bearer t"]


def test_a_login_command_that_fails_says_why(edgefarm: Run, tmp_path: Path) -> None:
    failing = {"command": sys.executable, "args": ["-c", "import sys; sys.exit('please log in with SSO')"]}
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **failing}}
    file = kubeconfig(tmp_path / "config", "http://127.0.0.1:9", user)
    ended = edgefarm("status", "--kubeconfig", str(file))
    assert ended.status == 3
    assert "the login command of the kubeconfig failed: exec: process returned 1. please log in with SSO" in ended.err


def test_the_namespace_is_that_of_the_context(tmp_path: Path) -> None:
    assert _open(kubeconfig(tmp_path / "config", "http://127.0.0.1:9", namespace="shop")).namespace == "shop"
    assert _open(kubeconfig(tmp_path / "config", "http://127.0.0.1:9")).namespace == "default"


def test_long_lists_are_read_in_pages_and_again_when_one_expires(tmp_path: Path) -> None:
    asked: list[Mapping[str, str]] = []

    def script(_path: str, query: Mapping[str, str]) -> tuple[int, Any]:
        asked.append(query)
        position = query.get("continue")
        if position == "two":
            return failure(410, "the continue token has expired")
        items = [{"metadata": {"name": position or "one"}}]
        more = {"continue": {None: "next", "next": "two"}[position]} if "limit" in query else {}
        return 200, {"kind": "List", "metadata": more, "items": items}

    with scripted(script) as server:
        found = _open(kubeconfig(tmp_path / "config", server.url)).list(POLICY, labels="a=b")
    assert [obj["metadata"]["name"] for obj in found] == ["one"]
    assert found[0]["kind"] == "Policy"
    assert [query.get("continue") for query in asked] == [None, "next", "two", None]
    assert all(query["labelSelector"] == "a=b" for query in asked)


def test_a_missing_right_is_named_and_the_rest_is_shown(edgefarm: Run, tmp_path: Path) -> None:
    def script(path: str, _query: Mapping[str, str]) -> tuple[int, Any]:
        return failure(403, "forbidden") if path.endswith("/networks") else _EMPTY

    with scripted(script) as server:
        ended = edgefarm("status", "--kubeconfig", str(kubeconfig(tmp_path / "config", server.url)))
    assert ended.status == 3
    assert "you lack the right to list networks.network.edgefarm.io in namespace 'network'" in ended.out
    assert "Policies\n  none" in ended.out


def test_who_may_not_list_all_namespaces_sees_those_of_their_own(edgefarm: Run, tmp_path: Path) -> None:
    def script(path: str, _query: Mapping[str, str]) -> tuple[int, Any]:
        tenants = path.endswith(("/policies", "/streams")) and "/namespaces/" not in path
        return failure(403, "forbidden") if tenants else _EMPTY

    with scripted(script) as server:
        file = str(kubeconfig(tmp_path / "config", server.url, namespace="shop"))
        ended = edgefarm("status", "--kubeconfig", file, "-o", "json")
        insisted = edgefarm("status", "--kubeconfig", file, "-A", "-o", "json")
    assert ended.status == 0
    assert ended.document["notes"][1:] == ["of namespace shop, the others are not yours"] * 2
    assert insisted.status == 3
    assert (
        insisted.document["problems"][0]
        == "you lack the right to list policies.network.edgefarm.io in all namespaces: ask an administrator for it"
    )


def test_kinds_that_are_not_installed_are_named(edgefarm: Run, tmp_path: Path) -> None:
    def script(path: str, _query: Mapping[str, str]) -> tuple[int, Any]:
        return (404, "404 page not found") if path.endswith("/edgedevices") else _EMPTY

    with scripted(script) as server:
        ended = edgefarm("status", "--kubeconfig", str(kubeconfig(tmp_path / "config", server.url)))
    assert ended.status == 1
    assert "the cluster has no edgedevices.network.edgefarm.io: install the chart edgefarm-network" in ended.out


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (failure(503, "etcd is away"), r"cannot list edgenetworks.* now \(status 503\): etcd is away"),
        (failure(429, "slow down"), "status 429"),
        ((200, "<html>log in</html>"), "not JSON: is there a proxy on the way"),
    ],
)
def test_a_server_that_cannot_answer_is_unavailable(tmp_path: Path, answer: tuple[int, Any], problem: str) -> None:
    with (
        scripted(lambda _path, _query: answer) as server,
        pytest.raises(KubernetesUnavailable, match=problem),
    ):
        _open(kubeconfig(tmp_path / "config", server.url)).list(EDGE_NETWORK)


def test_a_pod_behind_the_proxy_answers_for_itself_and_the_server_refuses_for_itself(tmp_path: Path) -> None:
    asked: list[str] = []

    def script(path: str, query: Mapping[str, str]) -> tuple[int, Any]:
        asked.append(f"{path}?{dict(query)}")
        return failure(403, "forbidden") if "forbidden" in path else (503, {"findings": []})

    with scripted(script) as server:
        kube = _open(kubeconfig(tmp_path / "config", server.url))
        answer = kube.ask_pod("network", "controller-0", 8080, "/diagnostics", {"scope": "pod"})
        with pytest.raises(KubernetesRefused, match="right to get pods/proxy in namespace 'network'"):
            kube.ask_pod("network", "forbidden", 8080, "/diagnostics", {})
    assert (answer.status, answer.body) == (503, {"findings": []})
    assert asked[0] == "/api/v1/namespaces/network/pods/controller-0:8080/proxy/diagnostics?{'scope': 'pod'}"


def test_an_object_is_read_or_none(cluster: Cluster) -> None:
    cluster.network("plant")
    kube = _open(cluster.kubeconfig)
    found = kube.get(NETWORK, cluster.controller, "plant")
    assert found is not None
    assert found["spec"] == {"namespaces": [cluster.namespace]}
    assert kube.get(POD, cluster.namespace, "nobody") is None
    kube.close()


def test_a_tenant_with_the_rights_of_a_namespace_sees_it_and_is_told_what_is_missing(
    cluster: Cluster, api: LocalApiServer, edgefarm: Run, tmp_path: Path
) -> None:
    cluster.policy("sensor")
    namespace, rbac = cluster.namespace, "/apis/rbac.authorization.k8s.io/v1/namespaces"
    rules = [{"apiGroups": [POLICY.group], "resources": ["policies", "streams"], "verbs": ["list"]}]
    cluster.rest.create(f"{rbac}/{namespace}/roles", {"metadata": {"name": "tenant"}, "rules": rules})
    subjects = [{"kind": "ServiceAccount", "name": "tenant", "namespace": namespace}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tenant"}
    binding = {"metadata": {"name": "tenant"}, "roleRef": role, "subjects": subjects}
    cluster.rest.create(f"{rbac}/{namespace}/rolebindings", binding)
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    cluster.rest.create(accounts, {"metadata": {"name": "tenant"}})
    token = cluster.rest.create(f"{accounts}/tenant/token", {"spec": {}})["status"]["token"]
    document = yaml.safe_load(api.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": token}
    document["contexts"][0]["context"]["namespace"] = namespace
    (tmp_path / "config").write_text(yaml.safe_dump(document))
    ended = edgefarm("status", "--kubeconfig", str(tmp_path / "config"), "-o", "json")
    assert ended.status == 3
    assert [item["name"] for item in ended.document["policies"]] == ["sensor"]
    assert (
        ended.document["problems"][0]
        == "you lack the right to list networks.network.edgefarm.io in namespace 'network': ask an administrator for it"
    )
