"""What OpenBao's objects are, and what is decided about its pods and its recovery key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgefarm import names
from edgefarm.vault import VaultSettings
from edgefarm.vault.recovery import RaftState, RecoveryStatus
from reconciler.configuration import parse_configuration
from reconciler.desired.servers import vault, workload
from reconciler.desired.servers.vault_config import SelfInit, files, setup_policy
from reconciler.desired.servers.workload import ServerSpec
from reconciler.ports import Object

TEXT = "vault: {deploy: true, replicas: 3}\nnats: {urls: ['tls://hub:4222']}"
INIT = SelfInit(VaultSettings("https://v:8200"), "https://10.0.0.1:443", "hub", "edgefarm-network")


@pytest.fixture
def spec() -> ServerSpec:
    found = vault.server_spec(parse_configuration({"config.yaml": TEXT}, "hub"), "hub", ())
    assert found is not None
    return found


def pod(name: str, digest: str, *, ready: bool = True) -> Object:
    conditions = [{"type": "Ready", "status": str(ready)}]
    annotations = {names.ANNOTATION_DESIRED: digest}
    return {"metadata": {"name": name, "annotations": annotations}, "spec": {}, "status": {"conditions": conditions}}


def test_only_the_first_replica_initialises_and_only_until_that_has_happened() -> None:
    before, after = files("hub", audit=True, self_init=INIT), files("hub", audit=True, self_init=None)
    first, *others = sorted(before)
    assert "initialize" in before[first]
    assert "retry_join" not in before[first]
    assert [before[each] for each in others] == [after[each] for each in others]
    assert "initialize" not in after[first]
    assert after[first].count("retry_join") == 3
    assert "audit" not in "".join(files("hub", audit=False, self_init=None).values())


def test_neither_the_initialisation_nor_the_number_of_replicas_restarts_a_pod(spec: ServerSpec) -> None:
    alone = replace(spec, deployment=replace(spec.deployment, replicas=1))
    other = replace(spec, deployment=replace(spec.deployment, image="openbao:next"))
    digest = workload.template_digest(vault.stateful_set(spec))
    assert digest == workload.template_digest(vault.stateful_set(alone))
    assert digest != workload.template_digest(vault.stateful_set(other))


def test_pods_satisfy_the_restricted_standard(spec: ServerSpec) -> None:
    template = vault.stateful_set(spec)["spec"]["template"]["spec"]
    for container in (*template["containers"], *template["initContainers"]):
        assert container["securityContext"] == workload.container_security()
    assert template["securityContext"]["runAsUser"] == workload.USER
    assert template["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize(("keep", "kept"), [(True, "Retain"), (False, "Delete")])
def test_volumes_stay_unless_the_configuration_says_otherwise(spec: ServerSpec, keep: bool, kept: str) -> None:
    wanted = vault.stateful_set(replace(spec, deployment=replace(spec.deployment, keep_data=keep)))
    policy = {"whenDeleted": kept, "whenScaled": "Retain"}
    assert wanted["spec"]["persistentVolumeClaimRetentionPolicy"] == policy
    assert wanted["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "2Gi"


@pytest.mark.parametrize(
    ("pods", "raft", "chosen"),
    [
        ([pod("v-0", "old"), pod("v-1", "old"), pod("v-2", "old")], RaftState("v-0", 1), "v-1"),
        ([pod("v-0", "old"), pod("v-1", "new"), pod("v-2", "old")], RaftState("v-0", 1), "v-2"),
        ([pod("v-0", "old"), pod("v-1", "new"), pod("v-2", "new")], RaftState("v-0", 1), "v-0"),
        ([pod("v-0", "new"), pod("v-1", "new"), pod("v-2", "new")], RaftState("v-0", 1), None),
        ([pod("v-0", "old"), pod("v-1", "new", ready=False), pod("v-2", "old")], RaftState("v-0", 1), None),
        ([pod("v-0", "old"), pod("v-1", "old")], RaftState("v-0", 1), None),
        ([pod("v-0", "old"), pod("v-1", "old"), pod("v-2", "old")], RaftState("v-0", 0), None),
    ],
)
def test_pods_are_updated_one_by_one_while_raft_can_spare_one(
    pods: list[Object], raft: RaftState, chosen: str | None
) -> None:
    found = vault.next_restart(pods, "new", 3, raft)
    assert (found and found["metadata"]["name"]) == chosen


def test_a_lone_pod_is_updated_although_nobody_takes_over() -> None:
    found = vault.next_restart([pod("v-0", "old")], "new", 1, RaftState("v-0", 0))
    assert found is not None


def test_what_cannot_change_stays_and_is_named(spec: ServerSpec) -> None:
    assert vault.within_what_can_change(spec, None) == (spec, "")
    running = vault.stateful_set(spec)
    assert vault.within_what_can_change(spec, running) == (spec, "")
    less = replace(spec, deployment=replace(spec.deployment, replicas=1, storage_size="9Gi"))
    held, refusal = vault.within_what_can_change(less, running)
    assert held.deployment.replicas == 3
    assert "vault.replicas stays 3" in refusal
    assert "volumes stay 2Gi" in refusal


@pytest.mark.parametrize(
    ("status", "stored", "step"),
    [
        (RecoveryStatus(in_effect=False, pending=False), False, {"make": True}),
        (RecoveryStatus(in_effect=False, pending=False), True, {"make": True}),
        (RecoveryStatus(in_effect=False, pending=True), False, {"make": True, "cancel": True}),
        (RecoveryStatus(in_effect=False, pending=True), True, {"verify": True}),
        (RecoveryStatus(in_effect=True, pending=False), True, {}),
    ],
)
def test_a_recovery_key_is_made_until_one_is_stored_and_in_effect(
    status: RecoveryStatus, stored: bool, step: dict[str, Any]
) -> None:
    assert vault.recovery_step(status, stored) == vault.RecoveryStep(**step)


def test_a_stored_key_that_openbao_refuses_is_replaced_and_a_lost_one_is_told() -> None:
    pending = RecoveryStatus(in_effect=False, pending=True)
    assert vault.recovery_step(pending, stored=True, refused=True) == vault.RecoveryStep(make=True, cancel=True)
    assert "restore it" in vault.recovery_step(RecoveryStatus(in_effect=True, pending=False), stored=False).problem


def test_the_role_for_the_set_up_reaches_no_grant_and_no_other_mount() -> None:
    policy = setup_policy(VaultSettings("https://v:8200"))
    assert "*" not in policy
    assert "edgefarm-kv/data/access" not in policy
    assert '"edgefarm-transit/sign/account' not in policy
