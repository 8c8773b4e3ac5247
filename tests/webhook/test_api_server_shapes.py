"""Every shape of pod as a server-side dry run: the API server admits what we made of it, or gives our sentence."""

from __future__ import annotations

import copy
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from edgefarm import names
from edgefarm.errors import EdgefarmError
from localcluster.kubernetes import ApiServer, RealApiServer
from tests.webhook.cluster import Cluster, enforces_pod_security, open_cluster, unlabelled
from tests.webhook.conftest import Json, StartWebhook, decision_on, sidecar_of
from tests.webhook.pod_security import violations
from tests.webhook.shapes import ONLY_NATS, SHAPES, container, pod
from webhook.annotations import Mode
from webhook.decide import Deny
from webhook.reasons import Reason

_SIDECAR: Final = container(names.SIDECAR_CONTAINER)
_OURS: Final = (names.SIDECAR_CONTAINER, names.INIT_CONTAINER)


def noted(annotations: dict[str, str], *containers: Json, **spec: Any) -> Json:
    """A labelled pod with annotations."""
    return pod(*containers, metadata={"annotations": annotations}, **spec)


#: Valid pods that the sidecar cannot live with, one for each reason.
DENIED: Final[dict[Reason, Json]] = {
    Reason.INVALID_ANNOTATION: noted({names.ANNOTATION_MODE: "kafka"}),
    Reason.INVALID_NETWORK: pod(metadata={"labels": {names.LABEL_NETWORK: "not.one"}}),
    Reason.INVALID_SERVICE_ACCOUNT: pod(serviceAccountName="team.sensor"),
    Reason.WINDOWS: pod(os={"name": "windows"}),
    Reason.HOST_NETWORK: pod(hostNetwork=True),
    Reason.OTHER_DAPR: noted({"dapr.io/enabled": "true"}),
    Reason.OTHER_INJECTION: noted({names.ANNOTATION_STATUS: '{"network": "bar", "mode": "dapr"}'}, _SIDECAR),
    Reason.NAME_TAKEN: pod(_SIDECAR),
    Reason.PORT_TAKEN: pod(container(ports=[{"containerPort": 3580}])),
    Reason.PATH_TAKEN: noted(
        {names.ANNOTATION_MODE: Mode.NATS},
        container(volumeMounts=[{"name": "data", "mountPath": "/var/run/edgefarm/credentials"}]),
        volumes=[{"name": "data", "emptyDir": {}}],
    ),
}


@pytest.fixture
async def cluster(api_server: ApiServer) -> AsyncIterator[Cluster]:
    async with open_cluster(api_server.kubeconfig) as running:
        yield running


def shaped(title: str, cluster: Cluster, mode: Mode) -> tuple[Json, str]:
    """The shape in a mode and the namespace that it is for: the restricted one wherever Kubernetes admits it there."""
    made = copy.deepcopy(SHAPES[title])
    metadata = made["metadata"]
    metadata["annotations"] = {**(metadata.get("annotations") or {}), names.ANNOTATION_MODE: mode}
    namespace = cluster.namespace if violations(made) else cluster.restricted
    if "namespace" in metadata:
        metadata["namespace"] = namespace
    return made, namespace


def lost(before: Any, after: Any, path: str) -> Iterator[str]:
    """Paths of what was in the pod as it was sent and is not in the stored one, which has more: ours and defaults."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if value or key in after:  # null and what is empty may go
                yield from lost(value, after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list):
        theirs = [item for item in after if not (isinstance(item, dict) and item.get("name") in _OURS)]
        for number, (was, now) in enumerate(itertools.zip_longest(before, theirs[: len(before)])):
            yield from lost(was, now, f"{path}[{number}]")
    elif before != after and before is not None:
        yield path


def as_sent(stored: Json) -> Json:
    """What a user sends who copies a stored pod: `kubectl get -o yaml` without what identifies the object."""
    kept = {key: stored["metadata"][key] for key in ("name", "labels", "annotations")}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": kept, "spec": stored["spec"]}


async def test_kubernetes_admits_every_shape_without_our_label(cluster: Cluster) -> None:
    refused = {}
    for title in SHAPES:
        made, namespace = shaped(title, cluster, Mode.NATS)
        try:
            await cluster.dry_run(unlabelled(made), namespace)
        except EdgefarmError as error:
            refused[title] = str(error)
    assert refused == {}


async def test_the_restricted_namespace_is_one(cluster: Cluster, api_server: ApiServer) -> None:
    assert await enforces_pod_security(cluster) or not isinstance(api_server, RealApiServer)


@pytest.mark.parametrize("native", ["true", "false"], ids=["native", "classic"])
@pytest.mark.parametrize("mode", list(Mode))
async def test_an_injected_pod_of_every_shape_is_admitted_and_a_copy_of_it_stays_as_it_is(
    cluster: Cluster, start_webhook: StartWebhook, mode: Mode, native: str
) -> None:
    await cluster.register(start_webhook(EDGEFARM_SIDECAR_NATIVE=native))
    problems = {}
    for title in SHAPES:
        if title in ONLY_NATS and mode is Mode.DAPR:
            continue
        made, namespace = shaped(title, cluster, mode)
        try:
            first = await cluster.dry_run(made, namespace)
            second = await cluster.dry_run(as_sent(first), namespace)
        except EdgefarmError as error:
            problems[title] = str(error)
            continue
        if names.ANNOTATION_STATUS not in first["metadata"]["annotations"]:
            problems[title] = "was not injected"
        elif gone := list(lost(made["spec"], first["spec"], "spec")):
            problems[title] = f"lost {gone}"
        elif second["spec"] != first["spec"]:
            problems[title] = "a second round over the stored pod changed it"
    assert problems == {}


def test_there_is_a_denied_pod_for_every_reason() -> None:
    skipped = {Reason.INJECTED, Reason.NOT_FOR_US, Reason.MIRROR_POD, Reason.NOT_LABELLED}
    assert DENIED.keys() == set(Reason) - skipped - {Reason.EXCLUDED_NAMESPACE, Reason.OPTED_OUT}


async def test_a_denied_pod_is_refused_with_our_sentence_alone(cluster: Cluster, start_webhook: StartWebhook) -> None:
    await cluster.register(start_webhook())
    for reason, made in DENIED.items():
        decision = decision_on(made, cluster.namespace)
        assert isinstance(decision, Deny)
        assert decision.reason is reason
        await cluster.dry_run(unlabelled(made))
        with pytest.raises(EdgefarmError) as refused:
            await cluster.dry_run(made)
        assert str(refused.value).endswith(f"denied the request: {decision.sentence}")


@pytest.mark.parametrize(
    "made",
    [
        noted({names.ANNOTATION_INJECT: "false"}),
        noted({"kubernetes.io/config.mirror": "0123"}, nodeName="node-1"),
    ],
    ids=["opted out", "mirror pod"],
)
async def test_a_pod_that_is_none_of_our_business_is_stored_without_sidecar(
    cluster: Cluster, start_webhook: StartWebhook, made: Json
) -> None:
    await cluster.register(start_webhook())
    stored = await cluster.dry_run(made)
    assert names.ANNOTATION_STATUS not in stored["metadata"]["annotations"]
    with pytest.raises(AssertionError):
        sidecar_of(stored)
