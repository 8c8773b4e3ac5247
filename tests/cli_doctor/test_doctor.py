"""`edgefarm doctor` on an installation whose objects are broken one by one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgefarm.findings import Code, fine, warning, wrong
from localcluster.kubeconfig import write_kubeconfig
from tests.cli_doctor.breaks import BREAKS
from tests.cli_doctor.conftest import Told
from tests.cli_doctor.ward import DEPLOYMENTS, FACTORY, NET, REGISTRATION, Pages, Ward

Doctor = Callable[..., Told]
_RUNNING = {"state": {"running": {"startedAt": "2026-03-01T12:00:00Z"}}, "ready": True, "started": True}


def test_nothing_is_found_where_all_is_well(doctor: Doctor) -> None:
    told = doctor()
    assert told.codes("error", "warning", "unknown") == set()
    assert told.status == 0
    assert told.document["healthy"] is True


@pytest.mark.parametrize("code", BREAKS, ids=str)
def test_what_is_broken_is_found_and_nothing_else(doctor: Doctor, ward: Ward, code: Code) -> None:
    case = BREAKS[code]
    with case.broken(ward):
        told = doctor(*case.arguments)
    assert code in told.bad
    assert told.bad - case.consequences == {code}
    assert told.status == (1 if told.codes("error") else 0)
    (finding, *_) = (each for each in told.document["findings"] if each["code"] == code and each["status"] != "ok")
    assert finding["advice"]
    assert finding["runbook"] == f"docs/runbooks/findings.md#{code}"


def test_an_api_server_that_is_away_is_the_only_finding(doctor: Doctor, ward: Ward, tmp_path: Path) -> None:
    away = tmp_path / "kubeconfig"
    write_kubeconfig(away, "https://127.0.0.1:1", ward.rest.ca, "token")
    told = doctor(kubeconfig=away)
    assert told.status == 3
    assert [each["code"] for each in told.document["findings"]] == [Code.API_UNREACHABLE]


def test_who_may_not_ask_the_reconciler_is_told_which_right_is_missing(doctor: Doctor, ward: Ward) -> None:
    told = doctor(kubeconfig=ward.as_reader())
    assert told.status == 3
    assert told.bad == set()
    (finding,) = (each for each in told.document["findings"] if each["status"] == "unknown")
    assert finding["code"] == Code.RECONCILER_MAY_NOT_BE_ASKED
    assert "pods/proxy" in finding["message"]


def test_what_the_reconciler_finds_is_passed_on(doctor: Doctor, pages: Pages) -> None:
    pages.tell(fine(Code.VAULT_SEALED, "Vault", "ok"), wrong(Code.ROLE_MISSING, "grant x", "it is missing", "wait"))
    told = doctor("network", "plant")
    assert told.status == 1
    assert told.bad == {Code.ROLE_MISSING}
    assert pages.asked == ["/diagnostics?scope=network&name=plant"]


def test_a_pod_in_order_is_followed_to_the_word_of_its_sidecar(doctor: Doctor, ward: Ward) -> None:
    ward.pages.pages["/readyz"] = (200, "ready: credentials until tomorrow\n")
    with ward.pod("sensor-0", sidecar=_RUNNING):
        told = doctor("pod", "sensor-0", "-n", FACTORY)
    assert told.status == 0
    assert told.document["findings"][-1]["message"] == "ready: credentials until tomorrow"
    assert any("scope=pod&name=sensor-0&namespace=factory" in path for path in ward.pages.asked)


def test_a_pod_from_before_the_webhook_is_told_so_once(doctor: Doctor, ward: Ward) -> None:
    ward.pages.tell(wrong(Code.POD_NOT_INJECTED, "Pod", "the reconciler sees it, too", "create it again"))
    with ExitStack() as made:
        with ward.without(REGISTRATION):
            made.enter_context(ward.pod("sensor-0"))
        told = doctor("pod", "sensor-0", "-n", FACTORY)
    assert [each["code"] for each in told.document["findings"] if each["status"] == "error"] == [Code.POD_NOT_INJECTED]


def test_a_pod_that_does_not_exist_is_not_looked_for_behind_the_api_server(doctor: Doctor, pages: Pages) -> None:
    told = doctor("pod", "nobody", "-n", FACTORY)
    assert told.bad == {Code.POD_ABSENT}
    assert pages.asked == []


def test_a_webhook_that_was_scaled_to_nothing_is_the_only_thing_wrong(doctor: Doctor, ward: Ward) -> None:
    path = f"{DEPLOYMENTS}/network-webhook"
    with ExitStack() as broken:
        broken.enter_context(ward.changed(path, {"spec": {"replicas": 0}}))
        broken.enter_context(
            ward.changed(path, {"status": {"replicas": 0, "readyReplicas": 0, "availableReplicas": 0}}, status=True)
        )
        broken.enter_context(BREAKS[Code.WEBHOOK_UNREACHABLE].broken(ward))
        told = doctor()
    assert told.bad == {Code.WEBHOOK_NOT_RUNNING}
    assert told.codes("unknown") == {Code.WEBHOOK_UNREACHABLE}
    (finding,) = (each for each in told.document["findings"] if each["status"] == "error")
    assert finding["advice"] == "`kubectl -n network scale deployment network-webhook --replicas=2`"


def test_one_replica_of_two_is_doubtful(doctor: Doctor, ward: Ward) -> None:
    path = f"{DEPLOYMENTS}/network-controller"
    with ward.changed(path, {"status": {"availableReplicas": 1}}, status=True):
        told = doctor()
    assert told.codes("warning") == {Code.RECONCILER_ABSENT}
    assert told.status == 0


def test_without_a_reconciler_a_network_is_told_of_in_its_own_words(doctor: Doctor, ward: Ward) -> None:
    with BREAKS[Code.RECONCILER_ABSENT].broken(ward), BREAKS[Code.RECONCILER_NOT_LEADING].broken(ward):
        known, absent = doctor("network", NET), doctor("network", "nowhere")
    assert known.bad == {Code.RECONCILER_ABSENT}
    assert known.codes("unknown") == {Code.RECONCILER_NOT_LEADING, Code.RECONCILER_NOT_ANSWERING}
    assert Code.NETWORK_NOT_READY in known.codes("ok")
    assert absent.bad == {Code.RECONCILER_ABSENT, Code.NETWORK_ABSENT}


def test_a_policy_that_is_not_in_effect_is_found_without_asking_for_its_network(doctor: Doctor, ward: Ward) -> None:
    with ward.policy("lost", reason="NetworkNotFound"):
        told = doctor()
    assert told.bad == {Code.POLICY_NOT_READY}


def test_a_namespace_that_does_not_exist_is_named(doctor: Doctor) -> None:
    told = doctor("pod", "sensor-0", "-n", "nowhere")
    assert told.bad == {Code.POD_ABSENT}
    (finding,) = (each for each in told.document["findings"] if each["status"] == "unknown")
    assert finding["message"] == "there is no such namespace"


def test_what_could_not_be_looked_at_is_not_called_healthy(doctor: Doctor, ward: Ward) -> None:
    assert doctor(kubeconfig=ward.as_reader()).document["healthy"] is False


def test_warnings_count_where_that_is_asked_for(doctor: Doctor, pages: Pages) -> None:
    pages.tell(warning(Code.PEER_STALE, "EdgeDevice a to b", "it is not reached", "look there"))
    assert doctor("device", "a").status == 0
    assert doctor("device", "a", "--strict").status == 1


def test_people_get_a_line_for_each_finding_and_what_to_do(doctor: Doctor, pages: Pages) -> None:
    pages.tell(wrong(Code.VAULT_SEALED, "Vault https://vault", "it is sealed", "unseal it " + "soon " * 30))
    lines = doctor(form="table").out.splitlines()
    assert "✗ Vault https://vault: it is sealed" in lines
    assert any(line.startswith("    → unseal it") for line in lines)
    assert "      docs/runbooks/findings.md#vault-sealed" in lines
    assert lines[-1].endswith("checks: 1 wrong")
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("arguments", [("pod",), ("network", ""), ("cluster", "x")])
def test_wrong_usage_says_what_may_be_written(doctor: Doctor, arguments: tuple[str, ...]) -> None:
    assert doctor(*arguments).status == 2
