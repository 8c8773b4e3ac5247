"""Ways to break exactly one thing that the reconciler looks at, by the code of the finding that must come of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from edgefarm import names
from edgefarm.errors import VaultUnavailable
from edgefarm.findings import Code
from edgefarm.vault import KubernetesAuth, Vault, VaultSettings
from edgefarm.vault.health import seal_status
from edgefarm.vault.transport import Operation
from localcluster.process import LocalProcess, accepts, free_port
from localcluster.stack import NatsServer, find_program
from reconciler.bootstrap import BootstrapSettings, bootstrap
from reconciler.controllers.accounts import Accounts
from reconciler.ports import EDGE_NETWORK, NETWORK, POD, POLICY, SERVICE_ACCOUNT, STREAM
from tests.natskit import eventually
from tests.reconciler_diagnostics.clinic import (
    DOCUMENT,
    FACTORY,
    NET,
    NODE_NAME,
    OFFICE,
    ROLE,
    Clinic,
    labelled_pod,
)

_CONTROLLER: Final = names.CONTROLLER_NAMESPACE
Breaking = Callable[[Clinic], AsyncIterator[None]]
Query = Mapping[str, str]
INSTALLATION: Final[Query] = {"scope": "installation"}
NETWORK_QUERY: Final[Query] = {"scope": "network", "name": NET}


@dataclass(frozen=True)
class Break:
    """How it is broken (and mended when the context ends), what is asked then, and what else follows from it."""

    broken: Callable[[Clinic], AbstractAsyncContextManager[None]]
    query: Query
    consequences: frozenset[Code] = frozenset()


BREAKS: Final[dict[Code, Break]] = {}


def breaks(code: Code, query: Query, *consequences: Code) -> Callable[[Breaking], Breaking]:
    """Register a generator that breaks something, and mends it when it goes on."""

    def register(breaking: Breaking) -> Breaking:
        BREAKS[code] = Break(contextlib.asynccontextmanager(breaking), query, frozenset(consequences))
        return breaking

    return register


def _pod(name: str) -> Query:
    return {"scope": "pod", "name": name, "namespace": FACTORY}


# -- servers ---------------------------------------------------------------------------------------------------------


@breaks(Code.VAULT_UNREACHABLE, INSTALLATION)
async def vault_is_somewhere_else(clinic: Clinic) -> AsyncIterator[None]:
    with _vault(clinic, address="https://127.0.0.1:1"):
        yield


@breaks(Code.VAULT_SEALED, INSTALLATION)
async def vault_is_sealed(clinic: Clinic) -> AsyncIterator[None]:
    """One that does not unseal itself: a development server."""
    folder, port = clinic.world.folder / "sealed", free_port()
    folder.mkdir()
    command = [find_program("bao"), "server", "-dev", "-dev-tls", f"-dev-tls-cert-dir={folder}", "-dev-no-store-token"]
    command += [f"-dev-listen-address=127.0.0.1:{port}", "-dev-root-token-id=root"]
    process = LocalProcess.start("bao", command, log=folder / "bao.log", env={"HOME": str(folder)})
    process.wait_until(lambda: accepts("127.0.0.1", port), "listening")
    server = VaultSettings(f"https://127.0.0.1:{port}", next(folder.glob("*ca.pem")).read_text())
    administrator = Vault(server, token="root")
    await eventually(lambda: _is_unsealed(administrator), "unsealed", within=20)
    administrator.transport.send(Operation("seal", "PUT"), "sys/seal", {})
    administrator.close()
    with _vault(clinic, address=server.address, ca_pem=server.ca_pem):
        yield
    process.stop()


@breaks(Code.VAULT_LOGIN_REFUSED, INSTALLATION)
async def the_reconcilers_role_is_gone(clinic: Clinic) -> AsyncIterator[None]:
    role = clinic.admin.role(names.CONTROLLER_ROLE)
    assert role is not None
    clinic.admin.delete_role(names.CONTROLLER_ROLE)
    yield
    clinic.admin.write_role(role)


@breaks(Code.VAULT_SETUP_OUTDATED, INSTALLATION)
async def the_reconcilers_policy_lacks_a_right(clinic: Clinic) -> AsyncIterator[None]:
    text = clinic.admin.policy(names.CONTROLLER_ROLE)
    assert text is not None
    rules = json.loads(text)["path"]
    older = {path: rule for path, rule in rules.items() if names.MESH_KEYS_FOLDER not in path.split("/")}
    clinic.admin.write_policy(names.CONTROLLER_ROLE, json.dumps({"path": older}))
    yield
    clinic.admin.write_policy(names.CONTROLLER_ROLE, text)


@breaks(Code.NATS_UNREACHABLE, INSTALLATION)
async def nats_is_stopped(clinic: Clinic) -> AsyncIterator[None]:
    clinic.world.hub.stop()
    yield
    clinic.world.restart_hub()


@breaks(Code.NATS_REFUSES_CONTROLLER, INSTALLATION)
async def nats_obeys_another_operator(clinic: Clinic) -> AsyncIterator[None]:
    world = clinic.world
    mounts = f"other-{secrets.token_hex(3)}"
    settings = dataclasses.replace(
        world.admin.settings, auth_mount=f"{mounts}-a", transit_mount=f"{mounts}-t", kv_mount=f"{mounts}-k"
    )
    policy = world.admin.policy(names.CONTROLLER_ROLE)
    assert policy is not None
    administrator = Vault(settings, token=world.openbao.root_token)
    auth = KubernetesAuth(host=world.reviewer.url, ca_pem=world.reviewer.ca_pem)
    other = bootstrap(
        administrator,
        BootstrapSettings(auth, _CONTROLLER, "network-controller"),
        now=datetime.now(UTC),
        random=lambda: secrets.token_hex(16),
    )
    administrator.close()
    world.admin.write_policy(names.CONTROLLER_ROLE, policy)
    port = int(world.hub.url.rpartition(":")[2])
    leaf_port = int(world.hub.leaf_url.rpartition(":")[2])
    world.hub.stop()
    folder = world.folder / "other-hub"
    stranger = NatsServer.start(
        folder, world.authority, auth=other.nats_config(str(folder / "accounts")), port=port, leaf_port=leaf_port
    )
    yield
    stranger.stop()
    world.restart_hub()


# -- a network -------------------------------------------------------------------------------------------------------


@breaks(Code.NETWORK_ABSENT, {"scope": "network", "name": "nowhere"})
async def nobody_made_the_network(_clinic: Clinic) -> AsyncIterator[None]:
    yield


@breaks(Code.NETWORK_NOT_READY, {"scope": "network", "name": "unfinished"})
async def the_default_policy_is_missing(clinic: Clinic) -> AsyncIterator[None]:
    spec = {"namespaces": [OFFICE], "defaultNetworkPolicy": {"ref": "absent"}}
    async with clinic.having(NETWORK, _CONTROLLER, "unfinished", spec):
        yield


@breaks(Code.POLICY_NOT_READY, NETWORK_QUERY)
async def a_policy_is_in_a_namespace_that_the_network_does_not_list(clinic: Clinic) -> AsyncIterator[None]:
    async with clinic.having(POLICY, OFFICE, "stranger", {"network": NET, "allowpub": ["a"]}):
        yield


@breaks(Code.KEY_MISSING, NETWORK_QUERY)
async def a_key_is_deleted(clinic: Clinic) -> AsyncIterator[None]:
    clinic.admin.delete_key(names.policy_key(NET, FACTORY, "sensor"))
    yield


@breaks(Code.ACCOUNT_MISSING, NETWORK_QUERY)
async def the_account_is_deleted(clinic: Clinic) -> AsyncIterator[None]:
    await Accounts(clinic.context).delete([await _account(clinic)])
    yield


@breaks(Code.ACCOUNT_DIFFERS, NETWORK_QUERY)
async def an_old_account_is_pushed(clinic: Clinic) -> AsyncIterator[None]:
    account, system = await _account(clinic), clinic.reconciler.system
    (before,) = await system.lookup(account)
    assert before.jwt is not None
    patch = {"spec": {"allowpub": ["sensor.>", "more"]}}
    await clinic.reconciler.kube.patch(POLICY, FACTORY, "sensor", patch)
    await clinic.reconciler.converge()
    await system.push(before.jwt)
    yield
    await clinic.reconciler.kube.patch(POLICY, FACTORY, "sensor", {"spec": {"allowpub": ["sensor.>"]}})


@breaks(Code.ROLE_MISSING, NETWORK_QUERY)
async def a_role_is_deleted(clinic: Clinic) -> AsyncIterator[None]:
    clinic.admin.delete_role(ROLE)
    yield


@breaks(Code.ROLE_DIFFERS, NETWORK_QUERY)
async def the_policy_of_a_role_is_changed(clinic: Clinic) -> AsyncIterator[None]:
    clinic.admin.write_policy(names.vault_policy(ROLE), 'path "somewhere/else" { capabilities = ["read"] }')
    yield


@breaks(Code.DOCUMENT_MISSING, NETWORK_QUERY)
async def a_document_is_deleted(clinic: Clinic) -> AsyncIterator[None]:
    clinic.admin.delete_document(DOCUMENT)
    yield


@breaks(Code.DOCUMENT_DIFFERS, NETWORK_QUERY)
async def a_document_is_changed(clinic: Clinic) -> AsyncIterator[None]:
    document = clinic.admin.read_document(DOCUMENT)
    assert document is not None
    clinic.admin.write_document(DOCUMENT, {**document, "hub": ["tls://elsewhere:4222"]})
    yield


@breaks(Code.JETSTREAM_OFF, {"scope": "network", "name": "greedy"}, Code.NETWORK_NOT_READY)
async def the_hub_has_not_the_storage(clinic: Clinic) -> AsyncIterator[None]:
    spec = {"namespaces": [OFFICE], "limits": {"filestorage": "900Ti"}}
    async with clinic.having(NETWORK, _CONTROLLER, "greedy", spec):
        yield


@breaks(Code.EDGE_NETWORK_NOT_READY, NETWORK_QUERY)
async def the_name_of_the_leafs_account_is_taken(clinic: Clinic) -> AsyncIterator[None]:
    edge = {"network": NET, "nodeSelector": {"none": "such"}}
    async with (
        clinic.having(SERVICE_ACCOUNT, _CONTROLLER, names.leaf_workload("taken"), {}),
        clinic.having(EDGE_NETWORK, _CONTROLLER, "taken", edge),
    ):
        yield


@breaks(Code.LEAF_ABSENT, NETWORK_QUERY)
async def a_node_has_no_leaf(clinic: Clinic) -> AsyncIterator[None]:
    async with clinic.edge("hall"):
        yield


@breaks(Code.LEAF_NOT_CONNECTED, NETWORK_QUERY)
async def a_leaf_is_cut_off(clinic: Clinic) -> AsyncIterator[None]:
    """The pod is ready, but nothing of it reaches the hub."""
    labels = {
        names.LABEL_OF_NETWORK: NET,
        names.LABEL_TYPE: names.TYPE_LEAF,
        names.LABEL_EDGE_NETWORK: "yard",
    }
    kube = clinic.reconciler.kube
    async with clinic.edge("yard"):
        spec = {"nodeName": NODE_NAME, "containers": [{"name": "nats", "image": "nats:1"}]}
        await clinic.make(POD, _CONTROLLER, "leaf-0", spec, labels=labels)
        status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        await kube.patch(POD, _CONTROLLER, "leaf-0", status, subresource="status")
        await clinic.reconciler.converge()
        yield
        await kube.delete(POD, _CONTROLLER, "leaf-0")


@breaks(Code.STREAM_NOT_READY, NETWORK_QUERY)
async def a_stream_has_nowhere_to_be_stored(clinic: Clinic) -> AsyncIterator[None]:
    spec = {"name": "READINGS", "location": "main", "link": {"stream": "NOWHERE"}}
    async with clinic.having(STREAM, FACTORY, "readings", spec):
        yield


# -- a pod -----------------------------------------------------------------------------------------------------------


@breaks(Code.POD_ABSENT, _pod("nobody"))
async def nobody_made_the_pod(_clinic: Clinic) -> AsyncIterator[None]:
    yield


@breaks(Code.POD_NOT_INJECTED, _pod("bare"))
async def the_pod_has_no_sidecar(clinic: Clinic) -> AsyncIterator[None]:
    async with clinic.having_pod("bare", labelled_pod("bare", sidecar=False)):
        yield


@breaks(Code.NAMESPACE_NOT_IN_NETWORK, {**_pod("guest"), "namespace": OFFICE})
async def the_network_does_not_list_the_pods_namespace(clinic: Clinic) -> AsyncIterator[None]:
    async with clinic.having_pod("guest", labelled_pod("guest", namespace=OFFICE)):
        yield


@breaks(Code.NO_GRANT, _pod("stranger"))
async def no_policy_covers_the_service_account(clinic: Clinic) -> AsyncIterator[None]:
    async with clinic.having_pod("stranger", labelled_pod("stranger", account="stranger")):
        yield


@breaks(Code.OTHER_POLICY, _pod("picky"))
async def the_pod_wants_another_policy(clinic: Clinic) -> AsyncIterator[None]:
    pod = labelled_pod("picky", annotations={names.ANNOTATION_POLICY: "viewer"})
    async with clinic.having_pod("picky", pod):
        yield


@breaks(Code.TOKEN_AUDIENCE, _pod("deaf"))
async def the_token_is_for_somebody_else(clinic: Clinic) -> AsyncIterator[None]:
    async with clinic.having_pod("deaf", labelled_pod("deaf", audience="another")):
        yield


# -- the reconciler itself -------------------------------------------------------------------------------------------


@breaks(Code.RECONCILER_WAITING, INSTALLATION)
async def there_is_no_configuration(clinic: Clinic) -> AsyncIterator[None]:
    good, clinic.reconciler.configuration = clinic.reconciler.configuration, None
    yield
    clinic.reconciler.configuration = good


@contextlib.contextmanager
def _vault(clinic: Clinic, **server: Any) -> Iterator[None]:
    """A configuration that names another server."""
    good = clinic.reconciler.configuration
    assert good is not None
    vault = dataclasses.replace(good.vault, server=dataclasses.replace(good.vault.server, **server))
    clinic.reconciler.configuration = dataclasses.replace(good, vault=vault)
    yield
    clinic.reconciler.configuration = good


def _is_unsealed(vault: Vault) -> bool:
    try:
        return not seal_status(vault).sealed
    except VaultUnavailable:
        return False


async def _account(clinic: Clinic) -> str:
    obj = await clinic.reconciler.kube.get(NETWORK, _CONTROLLER, NET)
    assert obj is not None
    return str(obj["status"]["account"])
