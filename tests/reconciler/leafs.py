"""Leafs of a test's network, made from nothing but what Vault tells a leaf: real nats-servers at the world's hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from edgefarm import names
from edgefarm.nats.leafconfig import LeafServer, ListenerTls, Storage, Uplink
from edgefarm.vault import Vault
from localcluster.process import free_port
from tests.leafkit import Leaf
from tests.natskit import write_creds
from tests.reconciler.world import World, sign_user


class Place(Protocol):
    """A network in a world."""

    @property
    def network(self) -> str: ...

    @property
    def world(self) -> World: ...


def leaf_document(site: Place, edge: str) -> dict[str, Any]:
    """The access document of an EdgeNetwork's leafs, read by one of them."""
    vault = leaf_login(site, edge)
    try:
        document = vault.read_document(
            names.access_document(site.network, names.CONTROLLER_NAMESPACE, names.leaf_workload(edge))
        )
        assert document is not None
        return document
    finally:
        vault.close()


def leaf_login(site: Place, edge: str) -> Vault:
    """Vault as the leafs' service account sees it; to be closed."""
    account, namespace = names.leaf_workload(edge), names.CONTROLLER_NAMESPACE
    vault = Vault(site.world.admin.settings)
    vault.login(names.grant_role(site.network, namespace, account), site.world.reviewer.token(namespace, account))
    return vault


def make_leaf(site: Place, folder: Path, edge: str, node: str) -> Leaf:
    """A leaf on a node that is not running yet; calling it again is a new login into the same folders."""
    folder.mkdir(parents=True, exist_ok=True)
    document, world = leaf_document(site, edge), site.world
    vault = leaf_login(site, edge)
    try:
        domain = names.leaf_domain(site.network, node)
        network = sign_user(vault, document, name=names.leaf_user(site.network, domain))
        system = sign_user(vault, {**document, **document["system"]})
    finally:
        vault.close()
    certificate, key = world.authority.issue(f"leaf-{node}", ["127.0.0.1"])
    server = LeafServer(
        domain=domain,
        host="127.0.0.1",
        client_port=free_port(),
        monitor_port=free_port(),
        pid_file=str(folder / "nats.pid"),
        operator_jwt=document["server"]["operatorJwt"],
        system_account=document["system"]["account"],
        system_account_jwt=document["server"]["systemAccountJwt"],
        accounts_folder=str(folder / "accounts"),
        storage=_storage(folder, document["server"]),
        uplink=Uplink(
            urls=tuple(document["hub"]),
            account=document["account"],
            credentials=str(write_creds(folder / "network.creds", network)),
            system_credentials=str(write_creds(folder / "system.creds", system)),
            ca_file=str(world.authority.certificate),
        ),
        tls=ListenerTls(str(certificate), str(key)),
    )
    return Leaf(folder, server)


def _storage(folder: Path, limits: Mapping[str, int]) -> Storage:
    return Storage(str(folder / "jetstream"), limits["fileStorage"], limits["memoryStorage"])
