"""Generated pods: what holds for the made shapes holds for pods that nobody thought of."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefarm import names
from edgefarm.errors import InvalidResource
from tests.webhook.conftest import SETTINGS, env_of, operations_for
from tests.webhook.pod_checks import check_injection, check_valid
from tests.webhook.strategies import containers, labels, optional, pods, texts
from webhook.decide import Inject, decide
from webhook.inject import inject
from webhook.pod import check_shape, is_ours

Json = dict[str, Any]

#: More by setting, for a long run.
EXAMPLES = int(os.environ.get("EDGEFARM_HYPOTHESIS_EXAMPLES", "2000"))
#: Seconds; a long run takes long.
pytestmark = pytest.mark.timeout(max(300, EXAMPLES))
_platforms = st.builds(
    lambda native, ca: replace(SETTINGS, native=native, ca_bundle=ca), st.booleans(), st.sampled_from([None, "PEM"])
)
_many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not os.environ.get("EDGEFARM_HYPOTHESIS_EXAMPLES"),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
_fewer = settings(_many, max_examples=max(EXAMPLES // 20, 50))


@_many
@given(pods(), _platforms)
def test_every_pod_is_injected_right(pod: Json, platform: Any) -> None:
    check_valid(pod)
    check_injection(pod, platform)


@_fewer
@given(pods(), _platforms, st.data())
def test_a_container_that_comes_between_two_rounds_gets_what_the_others_have(
    pod: Json, platform: Any, data: st.DataObject
) -> None:
    first: Json = jsonpatch.apply_patch(pod, operations_for(pod, platform))
    late = {"name": "late", **data.draw(containers)}
    for member in ("ports", "volumeMounts"):
        late.pop(member, None)
    kind = data.draw(st.sampled_from([kind for kind in ("containers", "initContainers") if first["spec"].get(kind)]))
    first["spec"][kind].insert(data.draw(st.integers(0, len(first["spec"][kind]))), late)
    second = jsonpatch.apply_patch(copy.deepcopy(first), operations_for(first, platform))
    assert operations_for(second, platform) == []
    check_valid(second)
    wanted = next(item for item in second["spec"]["containers"] if not is_ours(item) and item["name"] != late["name"])
    ours = env_of(wanted).keys() - {entry["name"] for entry in _before(pod, wanted).get("env") or []}
    [now] = [item for item in second["spec"][kind] if item["name"] == late["name"]]
    assert ours <= env_of(now).keys()
    volumes = {mount["name"] for mount in wanted.get("volumeMounts") or []}
    if names.VOLUME_CREDENTIALS in volumes:
        assert names.VOLUME_CREDENTIALS in {mount["name"] for mount in now["volumeMounts"]}


def _before(pod: Json, container: Json) -> Json:
    found: Json = next((item for item in pod["spec"]["containers"] if item["name"] == container["name"]), {})
    return found


_anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 70000), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
_odd_lists = st.one_of(_anything, st.lists(st.fixed_dictionaries({"name": st.one_of(labels, _anything)}), max_size=2))
_odd_annotations = st.dictionaries(
    st.sampled_from(
        [
            names.ANNOTATION_MODE,
            names.ANNOTATION_PORT,
            names.ANNOTATION_STATUS,
            names.ANNOTATION_CPU_LIMIT,
            names.ANNOTATION_DAPR_MAX_BODY_SIZE,
            "dapr.io/enabled",
        ]
    ),
    texts,
)
_odd_metadata = optional(
    labels=st.just({names.LABEL_NETWORK: "foo"}), annotations=st.one_of(_anything, _odd_annotations)
)
_read = (
    "initContainers",
    "volumes",
    "securityContext",
    "nodeSelector",
    "os",
    "hostNetwork",
    "resources",
    "serviceAccountName",
    "restartPolicy",
)
_odd_spec = st.fixed_dictionaries(
    {"containers": st.just([{"name": "app"}])}, optional={member: st.one_of(_anything, _odd_lists) for member in _read}
)


@_fewer
@given(
    st.fixed_dictionaries({"metadata": st.one_of(_anything, _odd_metadata), "spec": st.one_of(_anything, _odd_spec)})
)
def test_what_is_no_pod_is_refused_or_answered_but_never_a_crash(raw: Json) -> None:
    try:
        pod = check_shape(raw)
    except InvalidResource:
        return
    decision = decide(pod, "team-a", SETTINGS)
    if isinstance(decision, Inject):
        jsonpatch.apply_patch(raw, inject(pod, decision.plan, SETTINGS))
