"""Keys, documents and grants in Vault, as the reconciler uses them; no decisions."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final

from edgefarm.errors import VaultRefused
from edgefarm.vault.transport import Operation, RequestHook, Transport
from edgefarm.vault.values import (
    Role,
    TransitKey,
    VaultSettings,
    decode_key,
    decode_role,
    decode_signature,
    encode_role,
)

_LOGIN: Final = Operation("log in", "POST")
_READ_KEY: Final = Operation("read transit key", "GET")
_LIST_KEYS: Final = Operation("list transit keys", "LIST")
_WRITE_KEY: Final = Operation("write transit key", "POST", write=True)
_ROTATE_KEY: Final = Operation("rotate transit key", "POST", write=True)
_CONFIGURE_KEY: Final = Operation("configure transit key", "POST", write=True)
_DELETE_KEY: Final = Operation("delete transit key", "DELETE", write=True)
_SIGN: Final = Operation("sign", "POST")
_READ_DOCUMENT: Final = Operation("read document", "GET")
_LIST_DOCUMENTS: Final = Operation("list documents", "LIST")
_WRITE_DOCUMENT: Final = Operation("write document", "POST", write=True)
_DELETE_DOCUMENT: Final = Operation("delete document", "DELETE", write=True)
_READ_ROLE: Final = Operation("read role", "GET")
_LIST_ROLES: Final = Operation("list roles", "LIST")
_WRITE_ROLE: Final = Operation("write role", "POST", write=True)
_DELETE_ROLE: Final = Operation("delete role", "DELETE", write=True)
_READ_POLICY: Final = Operation("read policy", "GET")
_LIST_POLICIES: Final = Operation("list policies", "LIST")
_WRITE_POLICY: Final = Operation("write policy", "POST", write=True)
_DELETE_POLICY: Final = Operation("delete policy", "DELETE", write=True)


class Vault:
    """A client for one Vault with one login. Any number of threads may use it at once.

    Every method sends at most the requests it names and raises VaultUnavailable (try again later) or VaultRefused
    (`status` 403: no permission, or the token has expired: log in again; 400: Vault's own reason in the message).
    """

    def __init__(
        self, settings: VaultSettings, *, token: str | None = None, on_request: RequestHook | None = None
    ) -> None:
        self.settings = settings
        self.transport = Transport(settings, token, on_request)
        self._transit = settings.transit_mount
        self._kv = settings.kv_mount
        self._auth = f"auth/{settings.auth_mount}"

    @property
    def requests(self) -> Counter[str]:
        """A copy of how many requests of each kind were sent, e.g. {"write transit key": 2}."""
        return self.transport.requests

    @property
    def writes(self) -> int:
        """How many requests that change what Vault holds were sent (signing and logging in are none)."""
        return self.transport.writes

    def close(self) -> None:
        """Close the pooled connections."""
        self.transport.close()

    # -- login ---------------------------------------------------------------------------------------------------

    def login(self, role: str, service_account_jwt: str) -> timedelta:
        """Prove a Kubernetes service account, use the token from now on, and return how long it is valid.

        Vault names no reason when it refuses (403), so that strangers learn nothing about roles; it answers the same
        when it cannot reach the Kubernetes API server that reviews tokens.
        """
        try:
            answer = self.transport.send(_LOGIN, f"{self._auth}/login", {"role": role, "jwt": service_account_jwt})
        except VaultRefused as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            raise VaultRefused(
                f"Vault at {self.settings.address} refused the login as role {role!r}: the token has expired, the role "
                "is not for its service account, namespace and audience, or Vault cannot ask the Kubernetes API server",
                error.status,
            ) from None
        auth = (answer or {}).get("auth") or {}
        try:
            lease = timedelta(seconds=int(auth["lease_duration"]))
            self.transport.use_token(str(auth["client_token"]))
        except (KeyError, TypeError, ValueError):
            raise VaultRefused(
                f"Vault at {self.settings.address} has no login for Kubernetes at {self._auth!r}", 404
            ) from None
        return lease

    # -- keys ----------------------------------------------------------------------------------------------------

    def key(self, name: str) -> TransitKey | None:
        """The public side of a key, or None. One request."""
        data = self.transport.read(_READ_KEY, f"{self._transit}/keys/{name}")
        return None if data is None else decode_key(name, data)

    def keys(self) -> list[str]:
        """Names of all keys, sorted. One request."""
        return self._names(_LIST_KEYS, f"{self._transit}/keys")

    def ensure_key(self, name: str) -> TransitKey:
        """The key, made when it is missing: one request when it exists, two when not."""
        return self.key(name) or self.create_key(name)

    def create_key(self, name: str) -> TransitKey:
        """Make an ed25519 key that cannot be exported; an existing key is left as it is and returned.

        One request with OpenBao 2.x, which answers with the key; two with a Vault that answers with nothing.
        """
        # Not exportable is Vault's default; the reconciler's policy allows no other parameter than the type.
        answer = self.transport.send(_WRITE_KEY, f"{self._transit}/keys/{name}", {"type": "ed25519"})
        return self._key_written(name, answer)

    def rotate_key(self, name: str) -> TransitKey:
        """Add a new version, which becomes the latest; older versions still sign when they are named."""
        return self._key_written(name, self.transport.send(_ROTATE_KEY, f"{self._transit}/keys/{name}/rotate", {}))

    def delete_key(self, name: str) -> None:
        """Delete a key with all versions, for good. An absent key is fine."""
        path = f"{self._transit}/keys/{name}"
        try:
            self.transport.send(_CONFIGURE_KEY, f"{path}/config", {"deletion_allowed": True})
            self.transport.send(_DELETE_KEY, path)
        except VaultRefused:
            # Vault answers 400 for an absent key, as it does for real problems.
            if self.key(name) is not None:
                raise

    def sign(self, name: str, version: int, data: bytes) -> bytes:
        """The raw ed25519 signature (64 bytes) of `data` by one version of a key."""
        body = {"input": base64.b64encode(data).decode(), "key_version": version}
        answer = self.transport.read(_SIGN, f"{self._transit}/sign/{name}", body) or {}
        return decode_signature(str(answer.get("signature")), version)

    def _key_written(self, name: str, answer: Mapping[str, Any] | None) -> TransitKey:
        if answer and answer.get("data"):
            return decode_key(name, answer["data"])
        key = self.key(name)
        if key is None:
            raise VaultRefused(
                f"Vault did not keep the transit key {name!r}: is {self._transit!r} a transit mount?", 404
            )
        return key

    # -- documents -----------------------------------------------------------------------------------------------

    def read_document(self, path: str) -> dict[str, Any] | None:
        """The latest version of a document, or None."""
        data = self.transport.read(_READ_DOCUMENT, f"{self._kv}/data/{path}")
        if data is None:
            return None
        document = data.get("data")
        if not isinstance(document, dict):
            raise VaultRefused(f"the document {path!r} in {self._kv!r} cannot be read: is it a KV version 2 mount?")
        return document

    def write_document(self, path: str, data: Mapping[str, Any], *, create_only: bool = False) -> None:
        """Write a new version of a document; with `create_only` Vault refuses (400) when there is one already."""
        options = {"options": {"cas": 0}} if create_only else {}
        answer = self.transport.send(_WRITE_DOCUMENT, f"{self._kv}/data/{path}", {"data": dict(data), **options})
        self._must_exist(answer, self._kv)

    def delete_document(self, path: str) -> None:
        """Delete a document with all versions and metadata, for good. An absent one is fine."""
        self.transport.send(_DELETE_DOCUMENT, f"{self._kv}/metadata/{path}")

    def list_documents(self, folder: str) -> list[str]:
        """Full paths of all documents below a folder ("" is the whole mount), sorted. One request per folder.

        Recursive: everything under sub-folders is included, the folders themselves are not.
        """
        found: list[str] = []
        folders = [folder.strip("/")]
        while folders:
            parent = folders.pop()
            prefix = f"{parent}/" if parent else ""
            for name in self._names(_LIST_DOCUMENTS, f"{self._kv}/metadata/{prefix}"):
                (folders if name.endswith("/") else found).append(prefix + name.rstrip("/"))
        return sorted(found)

    # -- grants --------------------------------------------------------------------------------------------------

    def role(self, name: str) -> Role | None:
        """A role of our auth mount, or None."""
        data = self.transport.read(_READ_ROLE, f"{self._auth}/role/{name}")
        return None if data is None else decode_role(name, data)

    def roles(self) -> list[str]:
        """Names of all roles of our auth mount, sorted."""
        return self._names(_LIST_ROLES, f"{self._auth}/role")

    def write_role(self, role: Role) -> None:
        """Make a role be exactly this."""
        self._must_exist(
            self.transport.send(_WRITE_ROLE, f"{self._auth}/role/{role.name}", encode_role(role)), self._auth
        )

    def delete_role(self, name: str) -> None:
        """Delete a role; tokens given out through it live on until they expire. An absent one is fine."""
        self.transport.send(_DELETE_ROLE, f"{self._auth}/role/{name}")

    def policy(self, name: str) -> str | None:
        """The text of a Vault policy as it was written, or None."""
        data = self.transport.read(_READ_POLICY, f"sys/policies/acl/{name}")
        if data is None:
            return None
        if not isinstance(data.get("policy"), str):
            raise VaultRefused(f"Vault's description of policy {name!r} cannot be read")
        return str(data["policy"])

    def policies(self) -> list[str]:
        """Names of all Vault policies, sorted; not only ours."""
        return self._names(_LIST_POLICIES, "sys/policies/acl")

    def write_policy(self, name: str, text: str) -> None:
        """Write a Vault policy (HCL or JSON text); tokens that carry it change at once."""
        self.transport.send(_WRITE_POLICY, f"sys/policies/acl/{name}", {"policy": text})

    def delete_policy(self, name: str) -> None:
        """Delete a Vault policy; tokens that carry it lose its rights at once. An absent one is fine."""
        self.transport.send(_DELETE_POLICY, f"sys/policies/acl/{name}")

    def _names(self, operation: Operation, path: str) -> list[str]:
        found = (self.transport.read(operation, path) or {"keys": []}).get("keys")
        if not isinstance(found, list):
            raise VaultRefused(f"Vault's list at {path!r} cannot be read")
        return sorted(map(str, found))

    def _must_exist(self, answer: Mapping[str, Any] | None, mount: str) -> None:
        if answer is None:
            raise VaultRefused(f"Vault at {self.settings.address} has nothing mounted at {mount!r}", 404)
