"""The ConfigMap `network`: what is read from it, and what is refused with which sentence."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import yaml

from edgefarm.errors import InvalidResource
from localcluster.stack import Authority
from reconciler.configuration import Configuration, parse_configuration
from reconciler.configuration_source import ConfigurationSource
from reconciler.metrics import Metrics
from tests.runtime.fakes import LOG, configmap

SMALLEST: dict[str, Any] = {
    "vault": {"address": "https://vault.example:8200"},
    "nats": {"urls": ["tls://nats.example:4222"]},
}


def parse(value: Any) -> Configuration:
    return parse_configuration({"config.yaml": value if isinstance(value, str) else yaml.safe_dump(value)})


def test_the_smallest_configuration_has_sensible_defaults() -> None:
    configuration = parse(SMALLEST)
    assert configuration.vault.server.auth_mount == "edgefarm-kubernetes"
    assert configuration.vault.audience == "edgefarm-network"
    assert configuration.nats.client_urls == ("tls://nats.example:4222",)
    assert configuration.credentials.lifetime == timedelta(days=30)
    assert configuration.keys.overlap == timedelta(days=31)
    assert configuration.webhook.issue_certificate
    assert (configuration.streams.driver, configuration.streams.replicas) == ("native", 1)
    assert configuration.resync == timedelta(minutes=10)


def test_everything_can_be_said(authority: Authority) -> None:
    pem = authority.pem
    configuration = parse(
        {
            "vault": {
                "deploy": False,
                "address": "https://vault.example:8200/",
                "caBundle": pem,
                "authMount": "a",
                "transitMount": "t",
                "kvMount": "k",
                "namespace": "team",
                "audience": "aud",
            },
            "nats": {
                "deploy": False,
                "urls": ["nats://one:4222"],
                "clientUrls": ["tls://two:4222"],
                "caBundle": pem,
            },
            "credentials": {"renewEvery": "10s", "lifetime": "15s"},
            "keys": {"rotateEvery": "1m", "overlap": "16s"},
            "webhook": {"issueCertificate": False, "hosts": ["127.0.0.1", "0:0:0:0:0:0:0:1", "webhook.example"]},
            "streams": {"driver": "nack", "replicas": 3},
            "resync": "30s",
        }
    )
    assert configuration.vault.server.address == "https://vault.example:8200"
    assert configuration.vault.server.ca_pem == pem
    assert configuration.nats.client_urls == ("tls://two:4222",)
    assert configuration.credentials.renew_every == timedelta(seconds=10)
    assert configuration.webhook.hosts == ("127.0.0.1", "::1", "webhook.example")
    assert (configuration.streams.driver, configuration.streams.replicas) == ("nack", 3)
    assert configuration.resync == timedelta(seconds=30)


@pytest.mark.parametrize(
    ("change", "field", "sentence"),
    [
        ({"vault": {"deploy": True}}, "vault.address", "leave it out"),
        ({"nats": {"deploy": True}}, "nats.urls", "leave it out"),
        ({"vault": {"address": "http://vault.example"}}, "vault.address", "https://"),
        ({"vault": {"address": 5}}, "vault.address", "must be a string"),
        ({"vault": {"adress": "https://x"}}, "vault.adress", "not known"),
        ({"vault": {"caBundle": "hello"}}, "vault.caBundle", "PEM"),
        ({"vault": "here"}, "vault", "must be an object"),
        ({"nats": {"urls": []}}, "nats.urls", "is required"),
        ({"nats": {"urls": ["http://nats.example"]}}, "nats.urls[0]", "nats:// or tls://"),
        ({"nats": {"urls": ["tls://nats.example:99999"]}}, "nats.urls[0]", "no valid port"),
        ({"nats": {"urls": "tls://nats.example"}}, "nats.urls", "list of strings"),
        ({"nats": {"clientUrls": ["tls://"]}}, "nats.clientUrls[0]", "is not a URL"),
        ({"credentials": {"renewEvery": "21d"}}, "credentials.renewEvery", "two thirds"),
        ({"credentials": {"renewEvery": "soon"}}, "credentials.renewEvery", "is not a duration"),
        ({"credentials": {"lifetime": "31d"}}, "keys.overlap", "longer than credentials.lifetime (31d)"),
        ({"keys": {"overlap": "0s"}}, "keys.overlap", "longer than zero"),
        ({"webhook": {"issueCertificate": "yes"}}, "webhook.issueCertificate", "true or false"),
        ({"webhook": {"hosts": ["not a host"]}}, "webhook.hosts[0]", "neither a DNS name nor"),
        ({"streams": {"replicas": 6}}, "streams.replicas", "must be a whole number from 1 to 5"),
        ({"streams": {"driver": "own"}}, "streams.driver", "write native or nack"),
        ({"resync": 5}, "resync", "is not a duration"),
        (
            {"unknown": {}},
            "unknown",
            "not known; known here: credentials, keys, leaf, mesh, nats, resync, streams, vault, webhook",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_to_write(change: dict[str, Any], field: str, sentence: str) -> None:
    merged = {**SMALLEST}
    for name, value in change.items():
        merged[name] = {**SMALLEST.get(name, {}), **value} if isinstance(value, dict) else value
    with pytest.raises(InvalidResource) as caught:
        parse(merged)
    assert caught.value.field == field
    assert sentence in str(caught.value)


@pytest.mark.parametrize("data", [{}, {"config.yaml": "[1"}, {"config.yaml": "- 1"}, {"config.yaml": "hello"}])
def test_data_that_is_no_configuration_at_all_is_refused_under_the_key(data: dict[str, str]) -> None:
    with pytest.raises(InvalidResource, match=r"^data\.config\.yaml: "):
        parse_configuration(data)


def test_a_password_in_a_url_is_refused_without_repeating_it() -> None:
    with pytest.raises(InvalidResource) as caught:
        parse({**SMALLEST, "vault": {"address": "ftp://user:hunter2@vault.example"}})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["  address: 'https://user:hunter2@vault", "  address: https://user:hunter2: x", "  address: *hunter2: y"]
)
def test_text_that_is_no_yaml_is_refused_with_its_line_and_without_repeating_it(line: str) -> None:
    with pytest.raises(InvalidResource, match=r"is not YAML: .* in line \d") as caught:
        parse_configuration({"config.yaml": f"vault:\n{line}\n"})
    assert "https://" not in str(caught.value)
    assert "user:" not in str(caught.value)


class Applied(list[Configuration]):
    """What came into force."""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def source(metrics: Metrics) -> tuple[ConfigurationSource, Applied]:
    source, applied = ConfigurationSource(metrics, log=LOG), Applied()
    source.on_applied(applied.append)
    return source, applied


def state(metrics: Metrics) -> str:
    lines = metrics.render().decode().splitlines()
    (line,) = (each for each in lines if each.startswith("edgefarm_configuration_state") and each.endswith(" 1.0"))
    return line.split('"')[1]


def written(value: Any) -> dict[str, Any]:
    return configmap("network", **{"config.yaml": yaml.safe_dump(value)})


def test_the_last_good_configuration_stays_in_force(
    metrics: Metrics, source: tuple[ConfigurationSource, Applied]
) -> None:
    keeper, applied = source
    assert (keeper.current, keeper.summary, state(metrics)) == (None, "waiting for ConfigMap network", "waiting")
    keeper.changed(None, written(SMALLEST))
    assert (len(applied), keeper.summary, state(metrics)) == (1, "configured", "valid")
    keeper.changed(None, written({"unknown": 1}))
    assert keeper.current == applied[0]
    assert "the last good one stays in force" in keeper.summary
    assert state(metrics) == "invalid"
    keeper.changed(None, None)
    assert keeper.current == applied[0]
    keeper.changed(None, written({**SMALLEST, "resync": "1m"}))
    assert [each.resync for each in applied] == [timedelta(minutes=10), timedelta(minutes=1)]
    assert state(metrics) == "valid"


def test_a_rewritten_but_equal_configuration_changes_nothing(source: tuple[ConfigurationSource, Applied]) -> None:
    keeper, applied = source
    keeper.changed(None, written(SMALLEST))
    keeper.changed(None, written({**SMALLEST, "resync": "10m"}))
    assert len(applied) == 1


def test_a_first_configuration_that_is_wrong_says_so_and_is_waited_for(
    source: tuple[ConfigurationSource, Applied],
) -> None:
    keeper, applied = source
    keeper.changed(None, written({"vault": {}}))
    assert not applied
    assert "waiting for a valid one" in keeper.summary
