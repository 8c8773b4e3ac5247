"""The chart's roles give what its programs use, and nothing else: held against the audit log of an installation."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgefarm import names
from localcluster.demo.helm.platform import HelmOptions, HelmPlatform, missing
from tests.chart.life import EVERYTHING, Life
from tests.chart.rendering import NAMES, objects, values_of
from tests.chart.rights import Right, Use, implied, rights_in, unused, uses_in
from tests.reconciler.nack_schema import nack_definitions

pytestmark = pytest.mark.timeout(240)

NAMESPACE = names.CONTROLLER_NAMESPACE
CONTROLLER, VAULT = "network-controller", "network-vault"

#: Rights that this life has no use for, each with what uses it. One that was used must leave this list.
NOT_TRIED = {
    Right(True, "events.k8s.io", "events", "", "patch"): "a repeated Event is written again after half an hour",
    Right(False, "jetstream.nats.io", "accounts", "", "patch"): "the hub's addresses change while NACK is used",
    Right(False, "", "pods", f"{names.NATS_SERVER}-0", "delete"): "one server of NATS becomes three",
    **{
        Right(False, "", "pods", f"{names.VAULT_SERVER}-{number}", "delete"): "as network-vault-0, with three replicas"
        for number in (1, 2)
    },
}
#: Rights that are used when something happens before a watch has shown it: in some lives only.
BY_CHANCE = {
    Right(False, "", "pods", "", "get"): "two pods speak for one EdgeDevice at the same time",
    Right(True, names.GROUP, "streams", "", "get"): "a stream's owner is unknown: asked before its data is deleted",
    Right(False, "jetstream.nats.io", "streams", "", "get"): "a stream for NACK is there already",
}


@dataclass(frozen=True)
class Lived:
    """What was given and what was done."""

    rights: set[Right]
    uses: list[Use]

    def of(self, account: str) -> list[Use]:
        return [use for use in self.uses if use.account == account]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """An installation that has done everything."""
    if why := missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("rights")
    log = folder / "audit.log"
    asyncio.run(_live(folder / "installation", log))
    return Lived(rights_in(objects(EVERYTHING)), list(uses_in(log, NAMESPACE)))


async def _live(folder: Path, log: Path) -> None:
    options = HelmOptions(daprd=Path("/bin/true"), nodes=1, audit_log=log, values=EVERYTHING)
    async with HelmPlatform(folder, options) as platform:
        await platform.start_cluster()
        await platform.kube.apply(nack_definitions())
        await platform.install_previous()
        await platform.servers_are_ready()
        await platform.product_is_ready()
        await Life(platform).live()


def test_every_right_of_the_reconciler_is_used(lived: Lived) -> None:
    left = unused(lived.rights, [use for use in lived.of(CONTROLLER) if use.allowed], NAMESPACE)
    assert sorted(map(str, left - NOT_TRIED.keys() - BY_CHANCE.keys())) == []
    assert sorted(map(str, NOT_TRIED.keys() - left)) == [], "these are used or not given: take them off the list"
    assert sorted(map(str, BY_CHANCE.keys() - lived.rights)) == [], "these are not given: take them off the list"


def test_nothing_that_a_program_does_is_refused(lived: Lived) -> None:
    assert sorted({str(use) for use in lived.uses if not use.allowed}) == []


def test_only_reconciler_and_openbao_use_the_api(lived: Lived) -> None:
    assert {use.account for use in lived.uses} == {CONTROLLER, VAULT}
    assert {(use.verb, use.group, use.resource) for use in lived.of(VAULT)} == {
        ("create", "authentication.k8s.io", "tokenreviews")
    }


@pytest.mark.parametrize("name", NAMES)
def test_no_right_is_given_twice(name: str) -> None:
    rights = rights_in(objects(values_of(name)))
    assert sorted(map(str, implied(rights))) == []
