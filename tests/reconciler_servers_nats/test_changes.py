"""What the reconciler's NATS waits for, what it refuses to become, and how it goes."""

from __future__ import annotations

from typing import Any

from edgefarm import names
from edgefarm.nats import claims
from edgefarm.nats.claims import AccountLimits, ScopedKey
from edgefarm.nats.templates import SYSTEM_CONTROLLER_TEMPLATE, PermissionTemplate
from reconciler.configuration import parse_configuration
from reconciler.ports import CONFIGMAP, POD, POD_DISRUPTION_BUDGET, SERVICE, STATEFUL_SET
from tests import natskit
from tests.natskit import LocalOperator
from tests.reconciler_servers_nats.installation import Installation

_SMALL: Any = {"storage": {"size": "128Mi"}}


async def test_it_waits_for_vault_and_for_an_operator(installation: Installation) -> None:
    async def waits_for(what: str) -> None:
        async def reached() -> bool:
            return what in installation.servers.problems.get(names.NATS_SERVER, "")

        await installation.until(reached, f"a sentence about {what!r}; {installation.servers.problems}")

    document, installation.hub.document = installation.hub.document, None
    installation.servers.problems[names.VAULT_SERVER] = "it is sealed"
    installation.accept(**_SMALL)
    await waits_for("it needs Vault, which is not ready: it is sealed")
    installation.servers.problems[names.VAULT_SERVER] = ""
    installation.accept(**_SMALL)
    await waits_for("an administrator has to run `edgefarm vault bootstrap` once")
    assert await installation.kube.get(STATEFUL_SET, installation.namespace, names.NATS_SERVER) is None
    installation.hub.document = document
    installation.accept(**_SMALL)
    await installation.ready(1)


async def test_a_server_that_stores_streams_stays_alone_until_they_are_gone(installation: Installation) -> None:
    installation.accept(replicas=1, **_SMALL)
    first = await installation.ready(1)
    account = await installation.account()
    async with await installation.connect(account) as client:
        jetstream = client.client.jetstream()
        await jetstream.add_stream(name="numbers", subjects=["numbers.>"])
        await jetstream.publish("numbers.one", b"1")
        installation.accept(replicas=3, **_SMALL)
        assert "nats.replicas cannot be changed from 1 to 3 while there are streams (1 are stored)" in (
            await installation.told("ConfigurationRefused")
        )
        assert (await installation.stateful_set())["spec"]["replicas"] == 1
        # As if that had been decided before the stream was made.
        decided = {"metadata": {"annotations": {names.ANNOTATION_REPLICAS: "3"}}}
        await installation.kube.patch(STATEFUL_SET, installation.namespace, names.NATS_SERVER, decided)
        message = await installation.told("ConfigurationNotLoaded")
        assert "network-nats-0 does not join the other servers" in message
        assert (await jetstream.stream_info("numbers")).state.messages == 1
        await jetstream.delete_stream("numbers")
    three = await installation.ready(3)
    assert three["network-nats-0"]["metadata"]["uid"] != first["network-nats-0"]["metadata"]["uid"]
    # It would come to the new servers by itself, some seconds later.
    await installation.hub.client.push(account.token())
    async with await installation.connect(account) as client:
        await client.client.jetstream().add_stream(name="numbers", subjects=["numbers.>"], num_replicas=3)


async def test_a_server_of_an_earlier_installation_is_started_again_for_every_change(
    installation: Installation,
) -> None:
    assert installation.hub.document is not None
    installation.hub.document["systemAccountJwt"] = _earlier(installation.hub.keys)
    installation.accept(memoryStorage="64Mi", **_SMALL)
    before = await installation.ready(1)
    installation.accept(memoryStorage="96Mi", **_SMALL)

    async def replaced() -> bool:
        now = await installation.pods()
        return bool(now) and now["network-nats-0"]["metadata"]["uid"] != before["network-nats-0"]["metadata"]["uid"]

    await installation.until(replaced, "another pod")
    await installation.ready(1)


def _earlier(operator: LocalOperator) -> str:
    """The system account as the bootstrap of a version made it that ran no servers."""
    allowed = [subject for subject in SYSTEM_CONTROLLER_TEMPLATE.pub_allow if "CLAIMS" in subject or "LEAFZ" in subject]
    template = PermissionTemplate(pub_allow=tuple(allowed), sub_allow=SYSTEM_CONTROLLER_TEMPLATE.sub_allow)
    body = claims.account_claims(
        name="SYS",
        account=operator.system.public,
        jti=natskit.jti(),
        issued_at=1_700_000_000,
        issuer=operator.signing.public,
        limits=AccountLimits(mem_storage=0, disk_storage=0),
        signing_keys=[ScopedKey(operator.controller.public, "controller", template)],
    )
    return natskit.sign(body, operator.signing)


async def test_a_volume_that_is_lost_costs_accounts_which_the_reconciler_is_shown(installation: Installation) -> None:
    installation.accept(**_SMALL)
    await installation.ready(1)
    account = await installation.account()
    (known,) = await installation.hub.client.lookup(account.public)
    assert known.jwt is not None
    await installation.hub.client.close()
    await installation.lose_volume("network-nats-0")
    await installation.ready(1)

    async def lost() -> bool:
        return [found.jwt for found in await installation.hub.client.lookup(account.public)] == [None]

    await installation.until(lost, "the server has forgotten the account")
    await installation.hub.client.push(account.token())
    async with await installation.connect(account) as client:
        await client.settle()


async def test_a_server_that_is_given_elsewhere_takes_the_place_of_ours_and_its_volume_stays(
    installation: Installation,
) -> None:
    installation.accept(**_SMALL)
    await installation.ready(1)
    await installation.hub.client.close()
    installation.servers.accepted = parse_configuration(
        {"config.yaml": "vault: {address: https://vault.example:8200}\nnats: {urls: [tls://nats.example:4222]}\n"},
        installation.namespace,
    )
    await installation.controller.reconcile(installation.controller.key)

    async def gone() -> bool:
        kinds = (STATEFUL_SET, SERVICE, POD_DISRUPTION_BUDGET, POD)
        left = [each for kind in kinds for each in (await installation.kube.list(kind, installation.namespace))[0]]
        return not left

    await installation.until(gone, "nothing runs any more")
    left, _ = await installation.kube.list(CONFIGMAP, installation.namespace)
    assert names.NATS_SERVER not in {each["metadata"]["name"] for each in left}
    assert await installation.volumes() == {"data-network-nats-0"}
