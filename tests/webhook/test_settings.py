"""The webhook's environment."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgefarm import __version__
from edgefarm.errors import SettingsError
from localcluster.stack import Authority
from webhook.settings import VARIABLES, Settings

_REQUIRED = {
    "EDGEFARM_SIDECAR_IMAGE": "registry.example/network:1",
    "EDGEFARM_VAULT_ADDR": "https://vault.example:8200",
    "EDGEFARM_NATS_URL": "tls://one.example:4222,tls://two.example:4222",
}


def test_the_required_variables_are_enough() -> None:
    settings = Settings.read(_REQUIRED)
    assert (settings.port, settings.health_port, settings.drain_seconds) == (8443, 8080, 5)
    assert settings.health_host == settings.host == "0.0.0.0"
    assert settings.injection.native is True
    assert settings.injection.audience == "edgefarm-network"
    assert settings.injection.excluded_namespaces == {"kube-system", "network"}


def test_everything_can_be_set(authority: Authority) -> None:
    settings = Settings.read(
        _REQUIRED
        | {
            "EDGEFARM_CA_FILE": str(authority.certificate),
            "EDGEFARM_SIDECAR_NATIVE": "false",
            "EDGEFARM_SIDECAR_EXTRA_ENV": '{"EDGEFARM_DAPRD": "/opt/daprd"}',
            "EDGEFARM_NAMESPACE": "edge",
            "EDGEFARM_WEBHOOK_HOST": "127.0.0.8",
            "EDGEFARM_WEBHOOK_HEALTH_HOST": "127.0.0.9",
            "EDGEFARM_WEBHOOK_DRAIN": "1m",
        }
    )
    assert settings.ca_file == authority.certificate
    assert settings.injection.native is False
    assert settings.injection.extra_env == {"EDGEFARM_DAPRD": "/opt/daprd"}
    assert settings.injection.excluded_namespaces == {"kube-system", "edge"}
    assert settings.drain_seconds == 60
    assert (settings.host, settings.health_host) == ("127.0.0.8", "127.0.0.9")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EDGEFARM_SIDECAR_IMAGE", ""),
        ("EDGEFARM_VAULT_ADDR", "vault.example"),
        ("EDGEFARM_NATS_URL", "tls://one.example,two.example"),
        ("EDGEFARM_SIDECAR_NATIVE", "yes"),
        ("EDGEFARM_SIDECAR_EXTRA_ENV", "A=b"),
        ("EDGEFARM_SIDECAR_EXTRA_ENV", '{"A": 1}'),
        ("EDGEFARM_SIDECAR_EXTRA_ENV", '["A"]'),
        ("EDGEFARM_WEBHOOK_PORT", "65536"),
        ("EDGEFARM_WEBHOOK_HEALTH_PORT", "http"),
        ("EDGEFARM_WEBHOOK_DRAIN", "5"),
        ("EDGEFARM_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.read(_REQUIRED | {name: value})
    [problem] = error.value.problems
    assert problem.startswith(f"{name} ")


def test_help_lists_every_variable_and_version_says_the_version() -> None:
    shown = subprocess.run([sys.executable, "-m", "webhook", "--help"], capture_output=True, text=True, check=True)
    for name, _, meaning in VARIABLES:
        assert name in shown.stdout
        assert meaning in shown.stdout
    version = subprocess.run([sys.executable, "-m", "webhook", "--version"], capture_output=True, text=True, check=True)
    assert __version__ in version.stdout
