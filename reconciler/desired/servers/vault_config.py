"""Writes the configuration of OpenBao: its files, and what it shall do when it initialises itself.

The text has placeholders `${NAME}` for what differs from pod to pod, of the variables in `VARIABLES`.
https://openbao.org/docs/configuration/ and https://openbao.org/docs/configuration/self-init/
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from edgefarm import names
from edgefarm.vault import Role, VaultSettings
from edgefarm.vault.values import encode_role
from reconciler.bootstrap_rights import bootstrap_rights
from reconciler.configuration import VAULT_PORT

#: Where replicas speak raft to each other, with certificates that OpenBao makes itself.
CLUSTER_PORT: Final = 8201
#: What a pod's environment says: its address, as it stands in URLs, and where its volumes are.
VARIABLES: Final = ("POD_IP", "DATA_DIR", "RUN_DIR", "SEAL_DIR", "TLS_DIR")
#: So many replicas there may ever be: a lone one already knows where the others would be, so that none restarts.
_MOST_REPLICAS: Final = 3
#: Identifies the key of the seal in what OpenBao stores.
_SEAL_KEY_ID: Final = "1"
#: Seconds: the login lasts as long as a pass may take.
_SETUP_TOKEN_TTL: Final = 300
_CERTIFICATE: Final = 'tls_cert_file = "${TLS_DIR}/tls.crt"\n  tls_key_file = "${TLS_DIR}/tls.key"'


@dataclass(frozen=True)
class SelfInit:
    """What the first replica needs to know to initialise OpenBao: our mounts, how it reaches the Kubernetes API (URL),
    and whose tokens of which audience it may take for the reconciler's."""

    settings: VaultSettings
    kubernetes_host: str
    namespace: str
    audience: str


def files(namespace: str, *, audit: bool, self_init: SelfInit | None) -> dict[str, str]:
    """The configuration of each possible replica, by file name. `self_init` until OpenBao has been initialised."""
    replicas = [names.server_replica(names.VAULT_SERVER, ordinal) for ordinal in range(_MOST_REPLICAS)]
    texts = {}
    for replica in replicas:
        initialises = self_init if replica == replicas[0] else None
        # Who initialises has nobody to join. Who may not never begins anew: it joins, or waits.
        joins = "" if initialises else "".join(map(_join, (_host(each, namespace) for each in replicas)))
        parts = [
            server_text(replica, namespace, joins),
            _AUDIT if audit else "",
            initialises and initialise(initialises),
        ]
        texts[f"{replica}.hcl"] = "\n".join(part for part in parts if part)
    return texts


def server_text(replica: str, namespace: str, joins: str = "") -> str:
    """What a replica is: storage, listener, seal and addresses."""
    host = _host(replica, namespace)
    return f"""\
storage "raft" {{
  path = "${{DATA_DIR}}/raft"
  node_id = {_quoted(replica)}
  performance_multiplier = 1
{joins}}}
listener "tcp" {{
  address = "${{POD_IP}}:{VAULT_PORT}"
  cluster_address = "${{POD_IP}}:{CLUSTER_PORT}"
  {_CERTIFICATE}
}}
seal "static" {{
  current_key_id = {_quoted(_SEAL_KEY_ID)}
  current_key = "file://${{SEAL_DIR}}/key"
}}
api_addr = "https://{host}:{VAULT_PORT}"
cluster_addr = "https://{host}:{CLUSTER_PORT}"
pid_file = "${{RUN_DIR}}/bao.pid"
log_format = "json"
"""


#: In the working directory, because OpenBao wants one and the same name on all replicas.
_AUDIT: Final = """\
audit "file" "file" {
  description = "every request and answer, secrets as digests"
  options {
    file_path = "audit.log"
    mode = "0600"
  }
}
"""


def initialise(init: SelfInit) -> str:
    """The stanza by which OpenBao initialises itself at its first start, with a root token that it revokes at once."""
    auth = init.settings.auth_mount
    requests: dict[str, tuple[str, dict[str, Any]]] = {
        "policy": (f"sys/policies/acl/{names.VAULT_SETUP_ROLE}", {"policy": setup_policy(init.settings)}),
        "auth": (f"sys/auth/{auth}", {"type": "kubernetes"}),
        "kubernetes": (
            f"auth/{auth}/config",
            {"kubernetes_host": init.kubernetes_host, "disable_iss_validation": True},
        ),
        "role": (f"auth/{auth}/role/{names.VAULT_SETUP_ROLE}", encode_role(setup_role(init.namespace, init.audience))),
    }
    text = "".join(_request(name, path, data) for name, (path, data) in requests.items())
    return f'initialize "edgefarm" {{\n{text}}}\n'


def setup_role(namespace: str, audience: str) -> Role:
    """The role by which the reconciler sets OpenBao up."""
    return Role(
        name=names.VAULT_SETUP_ROLE,
        namespace=namespace,
        service_account=names.CONTROLLER_SERVICE_ACCOUNT,
        audience=audience,
        policies=(names.VAULT_SETUP_ROLE,),
        token_ttl=_SETUP_TOKEN_TTL,
    )


def setup_policy(settings: VaultSettings) -> str:
    """The Vault policy of that role: what `reconciler.bootstrap` needs, this policy and role in later versions, the
    recovery key, and a look at the replicas."""
    manage = ("create", "read", "update")
    rules: dict[str, tuple[str, ...]] = {
        **bootstrap_rights(settings),
        f"auth/{settings.auth_mount}/role/{names.VAULT_SETUP_ROLE}": manage,
        f"sys/policies/acl/{names.VAULT_SETUP_ROLE}": manage,
        "sys/storage/raft/autopilot/state": ("read",),
        "sys/rotate/recovery/init": (*manage, "delete", "sudo"),
        "sys/rotate/recovery/verify": (*manage, "sudo"),
    }
    paths = {path: {"capabilities": capabilities} for path, capabilities in rules.items()}
    return json.dumps({"path": paths}, indent=2, sort_keys=True)


def _join(host: str) -> str:
    return f"""\
  retry_join {{
    leader_api_addr = "https://{host}:{VAULT_PORT}"
    leader_ca_cert_file = "${{TLS_DIR}}/ca.crt"
    leader_tls_servername = {_quoted(host)}
  }}
"""


def _request(name: str, path: str, data: dict[str, Any]) -> str:
    members = "".join(f"      {member} = {_quoted(value)}\n" for member, value in data.items())
    return (
        f'  request {_quoted(name)} {{\n    operation = "update"\n    path = {_quoted(path)}\n'
        f"    data = {{\n{members}    }}\n  }}\n"
    )


def _host(replica: str, namespace: str) -> str:
    return names.server_replica_host(names.VAULT_SERVER, replica, namespace)


def _quoted(value: Any) -> str:
    """HCL takes JSON's strings, numbers, booleans and lists of these."""
    return json.dumps(value)
