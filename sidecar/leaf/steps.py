"""The steps of a leaf's session: those of any sidecar, with two users instead of one."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from edgefarm.errors import InvalidCredential, InvalidResource
from edgefarm.nats import jwt
from sidecar.access import AccessDocument
from sidecar.credentials import Credentials
from sidecar.leaf.access import LeafAccess
from sidecar.leaf.credentials import Names, issue_leaf
from sidecar.leaf.settings import LeafSettings
from sidecar.leaf.store import LeafStore
from sidecar.steps import Steps
from sidecar.vault import VaultClient


class LeafSteps(Steps):
    """Performs one step at a time; not for use by two threads."""

    def __init__(self, settings: LeafSettings, vault: VaultClient, store: LeafStore) -> None:
        super().__init__(settings, vault, store)
        self._signer = vault
        self._names = Names(settings.user, settings.domain)
        self._pod = settings.pod

    def no_grant(self) -> str:
        """Leafs are granted by their EdgeNetwork, not by a Policy."""
        return (
            f"no EdgeNetwork of network {self._pod.network} has leafs that run as service account "
            f"{self._pod.service_account} in namespace {self._pod.namespace}: the leaf needs an EdgeNetwork whose "
            "condition Ready is true"
        )

    def parse(self, document: Mapping[str, Any]) -> AccessDocument:
        """What the document says; InvalidResource, also for JWTs that nats-server could not be started with."""
        access = LeafAccess.parse(document)
        for member, token in (
            ("operatorJwt", access.server.operator_jwt),
            ("systemAccountJwt", access.server.system_account_jwt),
        ):
            try:
                jwt.decode(token)
            except InvalidCredential as error:
                raise InvalidResource(f"server.{member}", f"cannot be used: {error}") from error
        return access

    def issue(self, access: AccessDocument) -> Credentials:
        """Make both users; what Vault raises passes through."""
        assert isinstance(access, LeafAccess)  # `parse` makes no others
        return issue_leaf(
            access,
            self._names,
            now=int(time.time()),
            identifier=lambda: os.urandom(16).hex(),
            sign=self._signer.sign,
        )
