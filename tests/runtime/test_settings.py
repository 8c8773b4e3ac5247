"""The reconciler's environment."""

from __future__ import annotations

from datetime import timedelta

import pytest

from edgefarm.errors import SettingsError
from reconciler.settings import read_settings

POD = {
    "EDGEFARM_POD_NAME": "controller-0",
    "EDGEFARM_SERVICE_ACCOUNT_DIR": "/var/run/secrets/kubernetes.io/serviceaccount",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "EDGEFARM_VAULT_TOKEN_FILE": "/var/run/secrets/edgefarm.io/token",
}


def test_a_pod_needs_four_variables_and_has_defaults_for_the_rest() -> None:
    settings = read_settings(POD)
    assert settings.namespace == "network"
    assert (settings.kubernetes.host, settings.kubernetes.port) == ("10.0.0.1", 443)
    assert (settings.health_port, settings.workers, settings.log_level) == (8080, 16, "info")
    assert settings.election.lease_duration == timedelta(seconds=15)


def test_every_missing_variable_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({})
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "EDGEFARM_POD_NAME",
        "EDGEFARM_SERVICE_ACCOUNT_DIR",
        "EDGEFARM_VAULT_TOKEN_FILE",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EDGEFARM_WORKERS", "0"),
        ("EDGEFARM_HEALTH_PORT", "http"),
        ("EDGEFARM_LOG_LEVEL", "loud"),
        ("KUBERNETES_SERVICE_HOST", ""),
        ("EDGEFARM_LEASE_RENEW_DEADLINE", "20s"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read_settings({**POD, name: value})
