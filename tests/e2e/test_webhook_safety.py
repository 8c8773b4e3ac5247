"""The webhook in a running installation: it cannot lock the cluster, and its certificate looks after itself."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509

from edgefarm import names
from edgefarm.errors import EdgefarmError
from localcluster.chart import selector
from localcluster.client import DEPLOYMENTS, PODS, SECRETS, SERVICE_ACCOUNTS, Client, Json, Resource, has_condition
from localcluster.platform import Platform

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTROLLER = names.CONTROLLER_NAMESPACE
WEBHOOKS = Resource("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations")
RECONCILER, WEBHOOK = "network-controller", "network-webhook"
RECONCILERS = selector("controller")


def pod(name: str, *, labelled: bool) -> Json:
    labels = {"app": name} | ({names.LABEL_NETWORK: "safe"} if labelled else {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "app", "image": "example.org/app:1"}]},
    }


def deployment(name: str) -> Json:
    """Makes one labelled pod."""
    template = pod(name, labelled=True)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": template["metadata"]["labels"]}, "spec": template["spec"]},
        },
    }


async def until(condition: Callable[[], Any], what: str, seconds: float = 40.0) -> None:
    """Wait until the coroutine function `condition` returns something true."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.1)


async def scale(kube: Client, name: str, replicas: int) -> None:
    """Scale a Deployment of the product and wait until its ready pods are as many."""
    await kube.patch(DEPLOYMENTS, name, {"spec": {"replicas": replicas}}, CONTROLLER)

    def is_scaled(obj: Json | None) -> bool:
        status = (obj or {}).get("status", {})
        return bool(status.get("readyReplicas", 0) == replicas == status.get("replicas", 0))

    await kube.wait_for(DEPLOYMENTS, name, CONTROLLER, until=is_scaled, timeout=60)


async def pods_of(kube: Client, labels: str, namespace: str) -> list[Json]:
    found, _ = await kube.list(PODS, namespace, labels=labels)
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


async def trusted(kube: Client) -> set[int]:
    """Serial numbers of the authorities in caBundle."""
    webhook = await kube.get(WEBHOOKS, names.WEBHOOK_CONFIGURATION)
    bundle = base64.b64decode(webhook["webhooks"][0]["clientConfig"].get("caBundle") or "")
    return {certificate.serial_number for certificate in x509.load_pem_x509_certificates(bundle)} if bundle else set()


async def versions(kube: Client) -> list[str]:
    """What changes with every write to the certificate's objects."""
    objects = [await kube.get(SECRETS, name, CONTROLLER) for name in (names.WEBHOOK_SECRET, names.WEBHOOK_CA_SECRET)]
    objects.append(await kube.get(WEBHOOKS, names.WEBHOOK_CONFIGURATION))
    return [obj["metadata"]["resourceVersion"] for obj in objects]


async def admits(kube: Client) -> bool:
    """Whether a labelled pod is admitted now (dry run: nothing is stored)."""
    try:
        await kube.request("POST", PODS.path("default"), body=pod("probe", labelled=True), params={"dryRun": "All"})
    except EdgefarmError:
        return False
    return True


async def test_with_no_webhook_left_everything_but_labelled_pods_starts_and_those_follow(platform: Platform) -> None:
    kube = platform.kube
    await kube.wait_for(SERVICE_ACCOUNTS, "default", "kube-system", until=lambda obj: obj is not None)
    await scale(kube, WEBHOOK, 0)
    await until(lambda: _negate(admits(kube)), "an API server that cannot reach the webhook")
    await kube.apply([deployment("waits")])
    # Whoever could be needed to mend the cluster still starts, with the label or without.
    await kube.create(PODS, pod("plain", labelled=False), "default")
    await kube.create(PODS, pod("system", labelled=True), "kube-system")
    [reconciler] = await pods_of(kube, RECONCILERS, CONTROLLER)
    await kube.delete(PODS, reconciler["metadata"]["name"], CONTROLLER)
    await kube.wait_for(DEPLOYMENTS, RECONCILER, CONTROLLER, until=has_condition("Available"), timeout=60)
    await until(lambda: _other(kube, reconciler), "a new reconciler")
    assert await pods_of(kube, "app=waits", "default") == []
    await scale(kube, WEBHOOK, 1)  # its own pod starts although nobody answers for it
    await until(lambda: pods_of(kube, "app=waits", "default"), "the pod that had to wait", 90)
    [late] = await pods_of(kube, "app=waits", "default")
    assert names.ANNOTATION_STATUS in late["metadata"]["annotations"]
    # These namespaces outlive the test where the cluster is not its own.
    await kube.delete(DEPLOYMENTS, "waits", "default")
    await kube.delete(PODS, "plain", "default")
    await kube.delete(PODS, "system", "kube-system")


async def test_a_lost_authority_is_replaced_under_load_without_a_failed_admission(platform: Platform) -> None:
    kube = platform.kube
    await until(lambda: admits(kube), "a working webhook")
    before, served = await trusted(kube), await _served(kube)
    stop, outcomes = asyncio.Event(), list[bool]()

    async def load() -> None:
        while not stop.is_set():
            outcomes.append(await admits(kube))

    loads = [asyncio.create_task(load()) for _ in range(3)]
    await kube.delete(SECRETS, names.WEBHOOK_CA_SECRET, CONTROLLER)
    await until(lambda: _changed(_served(kube), served), "a new certificate")
    address, port = await _address(kube)
    secret = await _served(kube)
    await until(lambda: _serves(address, port, secret), "the webhook to serve it")
    exchanged = len(outcomes)

    async def more() -> bool:
        return len(outcomes) > exchanged + 5

    await until(more, "admissions with the new certificate")
    stop.set()
    await asyncio.gather(*loads)
    assert len(outcomes) > 10
    assert all(outcomes)
    assert before < await trusted(kube)  # the old authority stays trusted while replicas may still show its signature


@pytest.mark.parametrize("bundle", [None, "other"], ids=["removed", "replaced"])
async def test_a_changed_bundle_is_mended_within_seconds(platform: Platform, bundle: str | None) -> None:
    kube, before = platform.kube, await trusted(platform.kube)
    value = None if bundle is None else base64.b64encode(platform.authority.pem.encode()).decode()
    webhook = await kube.get(WEBHOOKS, names.WEBHOOK_CONFIGURATION)
    webhook["webhooks"][0]["clientConfig"]["caBundle"] = value
    await kube.replace(WEBHOOKS, names.WEBHOOK_CONFIGURATION, webhook)
    await until(lambda: _equal(trusted(kube), before), "the former bundle", 10)
    await until(lambda: admits(kube), "a working webhook", 10)


async def test_two_reconcilers_leave_the_certificate_alone_also_when_the_leader_changes(platform: Platform) -> None:
    kube = platform.kube
    await scale(kube, RECONCILER, 2)
    before = await versions(kube)
    for reconciler in await pods_of(kube, RECONCILERS, CONTROLLER):  # one of them leads
        await kube.delete(PODS, reconciler["metadata"]["name"], CONTROLLER)
        await until(lambda gone=reconciler: _other(kube, gone), "a successor")  # type: ignore[misc]
        await kube.wait_for(DEPLOYMENTS, RECONCILER, CONTROLLER, until=has_condition("Available"), timeout=60)
    # That the new leader has passed over the certificate shows in a drift that it mends.
    webhook = await kube.get(WEBHOOKS, names.WEBHOOK_CONFIGURATION)
    bundle = await trusted(kube)
    webhook["webhooks"][0]["clientConfig"]["caBundle"] = None
    await kube.replace(WEBHOOKS, names.WEBHOOK_CONFIGURATION, webhook)
    await until(lambda: _equal(trusted(kube), bundle), "the former bundle")
    after = await versions(kube)
    assert after[:2] == before[:2]
    await scale(kube, RECONCILER, 1)
    assert await versions(kube) == after


async def _negate(wait: Any) -> bool:
    return not await wait


async def _equal(wait: Any, wanted: object) -> bool:
    return bool(await wait == wanted)


async def _changed(wait: Any, former: object) -> bool:
    return not await _equal(wait, former)


async def _other(kube: Client, former: Json) -> bool:
    """Whether all of the reconciler's pods are ready and `former` is not among them."""
    found, _ = await kube.list(PODS, CONTROLLER, labels=RECONCILERS)
    ready = [obj for obj in found if has_condition("Ready")(obj)]
    return bool(ready) and all(obj["metadata"]["uid"] != former["metadata"]["uid"] for obj in found)


async def _served(kube: Client) -> str:
    secret = await kube.get(SECRETS, names.WEBHOOK_SECRET, CONTROLLER)
    return base64.b64decode(secret["data"]["tls.crt"]).decode()


async def _address(kube: Client) -> tuple[str, int]:
    webhook = await kube.get(WEBHOOKS, names.WEBHOOK_CONFIGURATION)
    host, _, port = webhook["webhooks"][0]["clientConfig"]["url"].split("/")[2].partition(":")
    return host, int(port)


async def _serves(host: str, port: int, certificate: str) -> bool:
    """Whether new connections get this certificate."""
    shown = await asyncio.to_thread(ssl.get_server_certificate, (host, port), timeout=5)
    return x509.load_pem_x509_certificate(shown.encode()) == x509.load_pem_x509_certificate(certificate.encode())
