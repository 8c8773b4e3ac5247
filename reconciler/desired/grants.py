"""Decides about grants in Vault: role, policy and access document of each service account, and what has to go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from edgefarm import names
from edgefarm.api.network import CredentialTimes
from edgefarm.grants import grant_policy
from edgefarm.vault import Role, TransitKey
from reconciler.configuration import Configuration, VaultConfiguration
from reconciler.desired.account import account_public

#: Seconds; a sidecar logs in for each renewal and needs the token for one read and one signature.
TOKEN_TTL: Final = 600
_LAYOUT: Final = 1


@dataclass(frozen=True)
class SigningKey:
    """The version of a transit key that signs now, with its public nkey."""

    transit_key: str
    version: int
    public: str


@dataclass(frozen=True)
class AccessTimes:
    """How often a sidecar renews its credentials, and how long they are valid."""

    renew_every: timedelta
    lifetime: timedelta

    @classmethod
    def of(cls, wanted: CredentialTimes, configuration: Configuration) -> AccessTimes:
        """The network's own times, else the cluster's. Renewal is never later than two thirds of the lifetime."""
        default = configuration.credentials
        lifetime = wanted.lifetime or default.lifetime
        return cls(min(wanted.renew_every or default.renew_every, lifetime * 2 / 3), lifetime)


@dataclass(frozen=True)
class Grant:
    """One service account's access to a network: all that Vault holds for it. `policy` is the Vault policy's text."""

    role: Role
    policy: str
    path: str
    document: Mapping[str, Any]


@dataclass(frozen=True)
class Holder:
    """A service account, and the Policy by which it gets into the network; for a leaf its EdgeNetwork."""

    network: str
    namespace: str
    service_account: str
    policy: str

    @property
    def role(self) -> str:
        """Name of the Vault role."""
        return names.grant_role(self.network, self.namespace, self.service_account)

    @property
    def path(self) -> str:
        """Path of the access document."""
        return names.access_document(self.network, self.namespace, self.service_account)


class GrantMaker:
    """Makes the grants of one network, which differ in holder and key only.

    `leaf` are members of the access document: where pods find the leaf of their node.
    """

    def __init__(
        self, account: str, times: CredentialTimes, configuration: Configuration, leaf: Mapping[str, Any]
    ) -> None:
        self._account = account
        self._vault: VaultConfiguration = configuration.vault
        self._hub = list(configuration.nats.client_urls)
        self._leaf = leaf
        self._times = AccessTimes.of(times, configuration)

    def grant(self, holder: Holder, key: SigningKey) -> Grant:
        """What Vault shall hold for one service account."""
        return Grant(
            role=Role(
                name=holder.role,
                namespace=holder.namespace,
                service_account=holder.service_account,
                audience=self._vault.audience,
                policies=(names.vault_policy(holder.role),),
                token_ttl=TOKEN_TTL,
            ),
            policy=grant_policy(self._vault.server, key.transit_key, holder.path),
            path=holder.path,
            document={
                "version": _LAYOUT,
                "network": holder.network,
                "policy": holder.policy,
                "account": self._account,
                "signingKey": key.public,
                "transitKey": key.transit_key,
                "keyVersion": key.version,
                "hub": self._hub,
                **self._leaf,
                "renewEverySeconds": max(1, int(self._times.renew_every.total_seconds())),
                "lifetimeSeconds": int(self._times.lifetime.total_seconds()),
            },
        )


@dataclass(frozen=True)
class VaultGrants:
    """What Vault holds for one network, by name and path."""

    roles: Mapping[str, Role]
    policies: Mapping[str, str]
    documents: Mapping[str, Mapping[str, Any]]

    def role_names(self) -> tuple[str, ...]:
        """Roles of which anything is left: the role itself or its policy."""
        return tuple(sorted({*self.roles, *map(_role_of_policy, self.policies)}))

    def without(self, roles: Collection[str]) -> VaultGrants:
        """What is left after these roles and their policies were deleted."""
        return VaultGrants(
            {name: role for name, role in self.roles.items() if name not in roles},
            {name: text for name, text in self.policies.items() if _role_of_policy(name) not in roles},
            self.documents,
        )


@dataclass(frozen=True)
class GrantWrites:
    """What must be written: Vault policies by name, roles, documents by path."""

    policies: Mapping[str, str]
    roles: tuple[Role, ...]
    documents: Mapping[str, Mapping[str, Any]]


def grant_writes(grants: Iterable[Grant], found: VaultGrants) -> GrantWrites:
    """What is missing or different in Vault."""
    policies, roles, documents = {}, [], {}
    for grant in grants:
        policy = names.vault_policy(grant.role.name)
        if found.policies.get(policy) != grant.policy:
            policies[policy] = grant.policy
        if found.roles.get(grant.role.name) != grant.role:
            roles.append(grant.role)
        if found.documents.get(grant.path) != grant.document:
            documents[grant.path] = grant.document
    return GrantWrites(policies, tuple(roles), documents)


@dataclass(frozen=True)
class Departures:
    """Service accounts that no longer get credentials by the Policy they had.

    `roles` lose their Vault policy and role before anything else happens, so that nothing new is signed. `keys` have
    other holders, so they are made anew: what the departed hold is signed by the old key, and only its removal from the
    account ends that. `documents` go last, because until then they tell an interrupted pass what is left to do.
    """

    roles: tuple[str, ...]
    keys: tuple[str, ...]
    documents: tuple[str, ...]


def departures(found: VaultGrants, keys_in_use: Mapping[str, str], keys: Mapping[str, TransitKey]) -> Departures:
    """Compare what Vault holds with who shall sign with what.

    `keys_in_use` maps the path of each wanted access document to the transit key of its Policy; `keys` are all transit
    keys of the network's Policies.
    """
    wanted = set(keys_in_use.values())
    departed, compromised = set(), set()
    for path, document in found.documents.items():
        key = str(document.get("transitKey"))
        if keys_in_use.get(path) == key:
            continue
        departed.add(_role_of(path))
        if key in wanted and key in keys and _is_version_of(document.get("signingKey"), keys[key]):
            compromised.add(key)
    there = set(found.role_names())
    departed |= there - {_role_of(path) for path in keys_in_use}
    return Departures(
        roles=tuple(sorted(departed & there)),
        keys=tuple(sorted(compromised)),
        documents=tuple(sorted(found.documents.keys() - keys_in_use.keys())),
    )


def _is_version_of(public: object, key: TransitKey) -> bool:
    return any(public == account_public(version.public_key) for version in key.versions.values())


def _role_of(path: str) -> str:
    """The role that belongs to an access document; both are made of the same three names."""
    return ".".join(path.split("/")[1:])


def _role_of_policy(policy: str) -> str:
    return policy.removeprefix(names.vault_policy(""))


def orphaned_keys(network: str, found: Iterable[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """Scoped keys of this network that no Policy, no EdgeNetwork and no NACK needs."""
    prefixes, nack = (names.policy_key_prefix(network), names.leaf_key_prefix(network)), names.nack_key(network)
    return tuple(sorted({name for name in found if name == nack or name.startswith(prefixes)} - set(wanted)))
