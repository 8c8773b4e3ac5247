"""Sets up Vault for edgefarm-network once, with an administrator's token: mounts, the reconciler's grant, the operator.

Every step looks first and writes only what is missing, and nothing is published before it is stored, so that a run
may end at any line and be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from edgefarm import names
from edgefarm.errors import InvalidCredential, VaultRefused, VaultUnavailable
from edgefarm.nats import claims, jwt, nkeys, serverconfig
from edgefarm.vault import KubernetesAuth, TransitKey, Vault, VaultSetup
from reconciler.controller_grant import controller_policy, controller_role

#: A new KV mount is busy with itself for some milliseconds.
_KV_ATTEMPTS: Final = 100
_KV_PAUSE_SECONDS: Final = 0.1
#: These keys are identities, known to servers by their public key: the first version counts, whatever came later.
_IDENTITY_VERSION: Final = 1

#: Told what is being done, one short line each.
Progress = Callable[[str], None]


@dataclass(frozen=True)
class BootstrapSettings:
    """What an administrator decides. Namespace, account and audience are those of the reconciler's own token."""

    kubernetes: KubernetesAuth
    controller_namespace: str
    controller_service_account: str
    audience: str = names.DEFAULT_AUDIENCE
    operator_name: str = "edgefarm"


@dataclass(frozen=True)
class BootstrapResult:
    """The public facts of the operator, as stored in the KV document `names.OPERATOR_DOCUMENT`."""

    operator: str
    operator_jwt: str
    system_account: str
    system_account_jwt: str
    signing_keys: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The KV document."""
        return {
            "operator": self.operator,
            "operatorJwt": self.operator_jwt,
            "systemAccount": self.system_account,
            "systemAccountJwt": self.system_account_jwt,
            "signingKeys": list(self.signing_keys),
        }

    def nats_config(self, resolver_dir: str) -> str:
        """The part of the main NATS servers' configuration that makes them trust the operator."""
        return serverconfig.hub_config(
            operator_jwt=self.operator_jwt,
            system_account=self.system_account,
            system_account_jwt=self.system_account_jwt,
            resolver_dir=resolver_dir,
        )


@dataclass(frozen=True)
class _Keys:
    """The transit keys that exist once per installation."""

    operator: TransitKey
    signing: tuple[TransitKey, ...]
    system_account: TransitKey
    system_controller: TransitKey
    system_leaf: TransitKey


def bootstrap(
    vault: Vault,
    settings: BootstrapSettings,
    *,
    now: datetime,
    random: Callable[[], str],
    progress: Progress = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
) -> BootstrapResult:
    """Bring Vault into the state that the reconciler needs, and return the operator's public facts.

    `vault` holds an administrator's token; `random` gives unguessable, never repeated text (for `jti`);
    `pause` waits that many seconds. A second run finds the same facts and writes nothing, except the auth configuration
    when that holds a reviewer token. Raises VaultUnavailable (run it again) and VaultRefused.
    """
    setup = VaultSetup(vault)
    progress("mounts")
    setup.ensure_mounts()
    _await_documents(setup, pause)
    progress("Kubernetes auth")
    setup.configure_auth(settings.kubernetes)
    progress("the reconciler's policy and role")
    _grant_controller(vault, settings)
    progress("keys")
    keys = _ensure_keys(vault)
    progress("operator and system account")
    return _ensure_operator(vault, keys, lambda: _issue(vault, keys, settings.operator_name, now=now, random=random))


def _await_documents(setup: VaultSetup, pause: Callable[[float], None]) -> None:
    for _ in range(_KV_ATTEMPTS):
        if setup.documents_ready():
            return
        pause(_KV_PAUSE_SECONDS)
    raise VaultUnavailable("the new KV mount does not become ready: run the bootstrap again in a minute")


def _grant_controller(vault: Vault, settings: BootstrapSettings) -> None:
    text = controller_policy(vault.settings)
    if vault.policy(names.CONTROLLER_ROLE) != text:
        vault.write_policy(names.CONTROLLER_ROLE, text)
    role = controller_role(
        namespace=settings.controller_namespace,
        service_account=settings.controller_service_account,
        audience=settings.audience,
    )
    if vault.role(role.name) != role:
        vault.write_role(role)


def _ensure_keys(vault: Vault) -> _Keys:
    return _Keys(
        operator=vault.ensure_key(names.OPERATOR_KEY),
        signing=tuple(vault.ensure_key(name) for name in names.OPERATOR_SIGNING_KEYS),
        system_account=vault.ensure_key(names.SYSTEM_ACCOUNT_KEY),
        system_controller=vault.ensure_key(names.SYSTEM_CONTROLLER_KEY),
        system_leaf=vault.ensure_key(names.SYSTEM_LEAF_KEY),
    )


def _ensure_operator(vault: Vault, keys: _Keys, issue: Callable[[], BootstrapResult]) -> BootstrapResult:
    found = _read_operator(vault, keys)
    if found is not None:
        return found
    made = issue()
    try:
        vault.write_document(names.OPERATOR_DOCUMENT, made.document(), create_only=True)
    except VaultRefused:
        # Another run was quicker: what it stored may be in a server's configuration already.
        found = _read_operator(vault, keys)
        if found is None:
            raise
        return found
    return made


def _read_operator(vault: Vault, keys: _Keys) -> BootstrapResult | None:
    document = vault.read_document(names.OPERATOR_DOCUMENT)
    if document is None:
        return None
    where = f"the document {names.OPERATOR_DOCUMENT!r} in {vault.settings.kv_mount!r}"
    try:
        found = BootstrapResult(
            operator=str(document["operator"]),
            operator_jwt=str(document["operatorJwt"]),
            system_account=str(document["systemAccount"]),
            system_account_jwt=str(document["systemAccountJwt"]),
            signing_keys=tuple(document["signingKeys"]),
        )
        issuers = jwt.decode(found.operator_jwt)["iss"], jwt.decode(found.system_account_jwt)["iss"]
    except (KeyError, TypeError, InvalidCredential) as error:
        raise VaultRefused(f"{where} cannot be read ({error}): delete it to make a new operator") from error
    operator, signing = _operator_public(keys.operator), tuple(_operator_public(key) for key in keys.signing)
    same = (
        (found.operator, found.signing_keys) == (operator, signing)
        and found.system_account == _account_public(keys.system_account)
        and issuers[0] == operator
        and issuers[1] in signing
    )
    if not same:
        raise VaultRefused(
            f"{where} does not belong to the keys in {vault.settings.transit_mount!r}: restore the keys that were "
            "lost, or delete the document to make a new operator, which every NATS server must then be given"
        )
    return found


def _issue(
    vault: Vault, keys: _Keys, operator_name: str, *, now: datetime, random: Callable[[], str]
) -> BootstrapResult:
    operator, issuer = _operator_public(keys.operator), _operator_public(keys.signing[0])
    signing_keys = tuple(_operator_public(key) for key in keys.signing)
    system_account = _account_public(keys.system_account)
    issued_at = int(now.timestamp())
    operator_claims = claims.operator_claims(
        name=operator_name,
        operator=operator,
        signing_keys=signing_keys,
        system_account=system_account,
        jti=random(),
        issued_at=issued_at,
    )
    system_claims = claims.system_account_claims(
        name=names.SYSTEM_ACCOUNT,
        account=system_account,
        controller_key=_account_public(keys.system_controller),
        leaf_key=_account_public(keys.system_leaf),
        jti=random(),
        issued_at=issued_at,
        issuer=issuer,
    )
    return BootstrapResult(
        operator=operator,
        operator_jwt=_sign(vault, keys.operator, operator_claims),
        system_account=system_account,
        system_account_jwt=_sign(vault, keys.signing[0], system_claims),
        signing_keys=signing_keys,
    )


def _sign(vault: Vault, key: TransitKey, body: dict[str, Any]) -> str:
    payload = jwt.signing_input(body)
    return jwt.assemble(payload, vault.sign(key.name, _IDENTITY_VERSION, payload))


def _operator_public(key: TransitKey) -> str:
    return nkeys.encode_public(nkeys.Prefix.OPERATOR, key.versions[_IDENTITY_VERSION].public_key)


def _account_public(key: TransitKey) -> str:
    return nkeys.encode_public(nkeys.Prefix.ACCOUNT, key.versions[_IDENTITY_VERSION].public_key)
