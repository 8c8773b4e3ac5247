"""Sets up the OpenBao that the reconciler runs: mounts, rights and keys as in every Vault, and the recovery key."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgefarm import names
from edgefarm.errors import VaultRefused, VaultUnavailable
from edgefarm.vault import KubernetesAuth, Vault, VaultSettings
from edgefarm.vault.recovery import RaftState, RecoveryKeys, RecoveryStatus, raft_state
from reconciler.bootstrap import BootstrapSettings, bootstrap
from reconciler.context import Context
from reconciler.controllers.servers.objects import ensure
from reconciler.desired.servers.authority import secret
from reconciler.desired.servers.vault import RECOVERY_KEY, RecoveryStep, recovery_step
from reconciler.desired.servers.vault_config import setup_policy, setup_role
from reconciler.desired.servers.workload import ServerSpec
from reconciler.ports import SECRET, Object

_BAD_REQUEST: Final = 400

#: Makes a client that is not logged in; tests give another one.
Connect = Callable[[VaultSettings], Vault]


class VaultSetup:
    """What the reconciler does in its OpenBao under the role VAULT_SETUP_ROLE. Everything may be repeated."""

    def __init__(self, context: Context, connect: Connect = Vault) -> None:
        self._context = context
        self._connect = connect

    async def raft(self, settings: VaultSettings) -> RaftState:
        """How the replicas are. Raises VaultUnavailable and VaultRefused."""
        vault = self._connect(settings)
        try:
            await asyncio.to_thread(self._log_in, vault)
            return await asyncio.to_thread(raft_state, vault)
        finally:
            vault.close()

    async def run(self, settings: VaultSettings, audience: str, kubernetes_host: str, spec: ServerSpec) -> str:
        """Bring OpenBao into the state that the reconciler needs; a sentence on what is not as it should be, or empty.

        Raises VaultUnavailable and VaultRefused, and what writing a Secret may raise.
        """
        vault = self._connect(settings)
        try:
            await asyncio.to_thread(self._log_in, vault)
            # First: while there is no recovery key, losing this service account's rights would lose OpenBao.
            problem = await self._ensure_recovery_key(RecoveryKeys(vault), spec)
            await asyncio.to_thread(self._bootstrap, vault, audience, kubernetes_host)
            return problem
        finally:
            vault.close()

    def _log_in(self, vault: Vault) -> None:
        vault.login(names.VAULT_SETUP_ROLE, _read_token(self._context.settings.vault_token_file))

    def _bootstrap(self, vault: Vault, audience: str, kubernetes_host: str) -> None:
        """The role's own rights first: those of a new version may be needed for the rest, by the next pass."""
        namespace, policy = self._context.settings.namespace, setup_policy(vault.settings)
        if vault.policy(names.VAULT_SETUP_ROLE) != policy:
            vault.write_policy(names.VAULT_SETUP_ROLE, policy)
        role = setup_role(namespace, audience)
        if vault.role(role.name) != role:
            vault.write_role(role)
        settings = BootstrapSettings(
            kubernetes=KubernetesAuth(host=kubernetes_host, ca_pem=None),
            controller_namespace=namespace,
            controller_service_account=names.CONTROLLER_SERVICE_ACCOUNT,
            audience=audience,
        )
        bootstrap(vault, settings, now=self._context.clock(), random=lambda: secrets.token_hex(16))

    async def _ensure_recovery_key(self, keys: RecoveryKeys, spec: ServerSpec) -> str:
        """Have a recovery key that is in effect and in the Secret.

        It is stored before it is verified, and takes effect when it is: whoever dies in between leaves nothing that
        could not be made anew.
        """
        found = await self._context.kube.get(SECRET, spec.namespace, names.VAULT_RECOVERY_SECRET)
        status = await asyncio.to_thread(keys.status)
        step = recovery_step(status, found is not None)
        if step.verify and found is not None and not await self._verify(keys, _stored_key(found)):
            status = await asyncio.to_thread(keys.status)
            step = recovery_step(status, stored=True, refused=True)
        if step.make:
            await self._make(keys, spec, found, step)
        return step.problem

    async def _make(self, keys: RecoveryKeys, spec: ServerSpec, found: Object | None, step: RecoveryStep) -> None:
        if step.cancel:
            await asyncio.to_thread(keys.cancel)
        key = await asyncio.to_thread(keys.begin)
        owners = () if spec.deployment.keep_data else spec.owners
        data = {RECOVERY_KEY: base64.b64encode(key.encode()).decode()}
        wanted = secret(names.VAULT_RECOVERY_SECRET, spec.namespace, data, owners)
        # One that is there already holds a key that was never verified: OpenBao says that none is in effect.
        await ensure(self._context, SECRET, found, wanted)
        if not await self._verify(keys, key):
            raise VaultUnavailable("somebody else makes recovery keys of OpenBao at the same time: it is tried again")
        self._context.log.info("OpenBao has a recovery key", secret=names.VAULT_RECOVERY_SECRET)

    async def _verify(self, keys: RecoveryKeys, key: str) -> bool:
        status: RecoveryStatus = await asyncio.to_thread(keys.status)
        try:
            await asyncio.to_thread(keys.verify, key, status.nonce)
        except VaultRefused as error:
            if error.status != _BAD_REQUEST:
                raise
            return False
        return True


def _stored_key(found: Object) -> str:
    return base64.b64decode((found.get("data") or {}).get(RECOVERY_KEY, "")).decode()


def _read_token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise VaultUnavailable(
            f"Nothing can be proven to OpenBao, because the service account token {path} cannot be read: "
            f"{error.strerror}."
        ) from error
