"""postStart hooks, as the kubelet runs them: one container after the other."""

from __future__ import annotations

from localcluster.client import PODS, Client
from tests.noderunner.workloads import SLEEP, Nodes, container, eventually, is_ready, pod, pod_with, status_of


def _hook(script: str) -> dict[str, object]:
    return {"postStart": {"exec": {"command": ["python", "-c", script]}}}


async def test_the_next_container_starts_only_when_the_hook_of_the_first_has_ended(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    # The hook waits for what its own container does meanwhile.
    waits = "import os, time\nwhile not os.path.exists('/shared/go'): time.sleep(0.05)"
    first = container(
        f"print('runs', flush=True); open('/shared/go', 'w').close(); {SLEEP}",
        "first",
        lifecycle=_hook(f"{waits}\nopen('/shared/hooked', 'w').close()"),
        volumeMounts=mounts,
    )
    second = container(f"import os; print(os.path.exists('/shared/hooked'), flush=True); {SLEEP}", volumeMounts=mounts)
    await kube.create(PODS, pod("hooked", first, second, volumes=[{"name": "shared", "emptyDir": {}}]), namespace)
    await pod_with(kube, namespace, "hooked", is_ready)
    await eventually(lambda: nodes.log(namespace, "hooked"), "the second container prints")
    assert nodes.log(namespace, "hooked") == "True\n"


async def test_a_container_whose_hook_fails_is_killed_and_the_others_still_start(
    kube: Client, namespace: str, nodes: Nodes
) -> None:
    first = container(SLEEP, "first", lifecycle=_hook("raise SystemExit('the hook failed')"))
    await kube.create(PODS, pod("failing", first, container(f"print('runs', flush=True); {SLEEP}")), namespace)
    await pod_with(kube, namespace, "failing", lambda obj: status_of(obj, "first").get("restartCount", 0) >= 1)
    await eventually(lambda: nodes.log(namespace, "failing") == "runs\n", "the second container runs")
