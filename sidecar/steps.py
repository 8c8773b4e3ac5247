"""The steps of a session that take time: requests to Vault and writes to disk. Each ends in exactly one event."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Protocol

from edgefarm.errors import EdgefarmError, InvalidResource, Unavailable, VaultRefused
from sidecar import credentials, refusal, session
from sidecar.access import AccessDocument
from sidecar.credentials import Credentials
from sidecar.settings import Pod, VaultSettings
from sidecar.vault import VaultClient


class Told(Protocol):
    """The settings that the steps need."""

    @property
    def pod(self) -> Pod: ...

    @property
    def vault(self) -> VaultSettings: ...


class Store(Protocol):
    """Where credentials are kept."""

    def save(self, credentials: Credentials, /) -> None: ...


class Steps:
    """Performs one step at a time; not for use by two threads. What a leaf does differently is in `sidecar.leaf`."""

    def __init__(self, settings: Told, vault: VaultClient, store: Store) -> None:
        self._settings = settings
        self._vault = vault
        self._store = store

    def login(self) -> session.Event:
        """Show the pod's token to Vault."""
        try:
            token = self._settings.vault.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            return session.Failed(session.Failure.INVALID, f"the pod's token cannot be read: {error}")
        try:
            return session.LoggedIn(self._vault.login(self._settings.pod.role, token))
        except VaultRefused as error:
            audience = self._settings.vault.audience
            sentence = refusal.explain(self._settings.pod, audience, token, error, time.time(), self.no_grant())
            return session.Failed(session.Failure.DENIED, sentence)
        except Unavailable as error:
            return session.Failed(session.Failure.UNAVAILABLE, str(error))

    def read_access(self) -> session.Event:
        """Read what the reconciler says about our network."""
        try:
            access = self.parse(self._vault.read_document(self._settings.pod.document))
        except VaultRefused as error:
            sentence = f"{self.no_grant()} (Vault: reading the access document: {error})"
            return session.Failed(session.Failure.DENIED, sentence)
        except InvalidResource as error:
            return session.Failed(session.Failure.INVALID, f"the access document cannot be used: {error}")
        except Unavailable as error:
            return session.Failed(session.Failure.UNAVAILABLE, str(error))
        if self._settings.pod.policy not in (None, access.policy):
            return session.Failed(session.Failure.DENIED, refusal.other_policy(self._settings.pod, access.policy))
        return session.AccessRead(access)

    def sign(self, access: AccessDocument) -> session.Event:
        """Make a user key and have its claims signed."""
        try:
            issued = self.issue(access)
        except VaultRefused as error:
            sentence = f"Vault does not sign with the key of Policy {access.policy} ({error})"
            return session.Failed(session.Failure.DENIED, sentence)
        except Unavailable as error:
            return session.Failed(session.Failure.UNAVAILABLE, str(error))
        except EdgefarmError as error:
            return session.Failed(session.Failure.INVALID, str(error))
        return session.Signed(issued)

    def no_grant(self) -> str:
        """What has to exist when Vault knows of no grant."""
        return refusal.missing_grant(self._settings.pod)

    def parse(self, document: Mapping[str, Any]) -> AccessDocument:
        """What the document says; InvalidResource."""
        return AccessDocument.parse(document)

    def issue(self, access: AccessDocument) -> Credentials:
        """Make credentials; what Vault raises passes through."""
        return credentials.issue(
            access,
            self._settings.pod.nats_user,
            now=int(time.time()),
            identifier=os.urandom(16).hex(),
            sign=lambda data: self._vault.sign(access, data),
        )

    def write(self, pending: Credentials) -> session.Event:
        """Put the credentials where the application finds them."""
        try:
            self._store.save(pending)
        except OSError as error:
            return session.Failed(session.Failure.INVALID, f"the credentials cannot be written: {error}")
        return session.Signal.WRITTEN
