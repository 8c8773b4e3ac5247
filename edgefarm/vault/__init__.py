"""Client of Vault or OpenBao and the only importer of hvac: synchronous, thread-safe, every request has a timeout."""

from edgefarm.vault.client import Vault
from edgefarm.vault.setup import KubernetesAuth, VaultSetup
from edgefarm.vault.transport import RequestHook
from edgefarm.vault.values import KeyVersion, Role, TransitKey, VaultSettings, role_parameters

__all__ = [
    "KeyVersion",
    "KubernetesAuth",
    "RequestHook",
    "Role",
    "TransitKey",
    "Vault",
    "VaultSettings",
    "VaultSetup",
    "role_parameters",
]
