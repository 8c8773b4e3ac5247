"""Who calls: service account tokens (issued and checked), the administrator's token, and the OIDC documents."""

from __future__ import annotations

import base64
import hashlib
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from localcluster.apiserver.store import Store

ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
_PREFIX: Final = "system:serviceaccount:"


@dataclass(frozen=True)
class User:
    """An authenticated caller."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ("system:authenticated",)
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def info(self) -> dict[str, Any]:
        """The authentication/v1 UserInfo."""
        info: dict[str, Any] = {"username": self.name, "groups": list(self.groups)}
        if self.uid:
            info["uid"] = self.uid
        if self.extra:
            info["extra"] = {key: list(values) for key, values in self.extra.items()}
        return info


class InvalidToken(Exception):
    """The token proves nothing; the message says why and never repeats it."""


@dataclass(frozen=True)
class Binding:
    """What a service account token is made for; `pod` and `node` are raw objects or None."""

    account: Mapping[str, Any]
    pod: Mapping[str, Any] | None = None
    node: Mapping[str, Any] | None = None
    secret: Mapping[str, Any] | None = None


class Tokens:
    """Signs and verifies tokens with a key of its own; looks up what they are bound to in the store."""

    def __init__(self, store: Store, admin_token: str) -> None:
        self._store = store
        self._admin_token = admin_token
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._key_id = base64.urlsafe_b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")

    def issue(self, binding: Binding, audiences: Sequence[str], *, now: int, seconds: int) -> str:
        """A signed token of this service account, valid from `now` for `seconds`."""
        account = binding.account["metadata"]
        claims: dict[str, Any] = {
            "namespace": account["namespace"],
            "serviceaccount": _reference(binding.account),
        }
        for kind, bound in (("pod", binding.pod), ("node", binding.node), ("secret", binding.secret)):
            if bound is not None:
                claims[kind] = _reference(bound)
        payload = {
            "aud": list(audiences),
            "exp": now + seconds,
            "iat": now,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": claims,
            "nbf": now,
            "sub": f"{_PREFIX}{account['namespace']}:{account['name']}",
        }
        return jwt.encode(payload, self._key, algorithm="ES256", headers={"kid": self._key_id})

    def authenticate(self, token: str, audiences: Sequence[str] = (ISSUER,)) -> tuple[User, list[str]]:
        """The caller and those of `audiences` that the token is meant for; raises InvalidToken."""
        if secrets.compare_digest(token.encode(), self._admin_token.encode()):
            return User("admin", "admin", ("system:masters", "system:authenticated")), list(audiences)
        try:
            payload = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=["ES256"],
                issuer=ISSUER,
                options={"verify_aud": False, "require": ["exp", "sub", "aud"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise InvalidToken("invalid bearer token, service account token has expired") from error
        except jwt.InvalidTokenError as error:
            raise InvalidToken("invalid bearer token") from error
        meant = [audience for audience in audiences if audience in payload["aud"]]
        if not meant:
            raise InvalidToken(
                f"token audiences {payload['aud']} is invalid for the target audiences {list(audiences)}"
            )
        return self._user(payload), meant

    def openid_configuration(self, url: str) -> dict[str, Any]:
        """The OIDC discovery document."""
        return {
            "issuer": ISSUER,
            "jwks_uri": f"{url}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def jwks(self) -> dict[str, Any]:
        """The public keys that verify tokens."""
        key = jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{"use": "sig", "kid": self._key_id, "alg": "ES256", **key}]}

    def _user(self, payload: Mapping[str, Any]) -> User:
        claims = payload["kubernetes.io"]
        namespace, account = claims["namespace"], claims["serviceaccount"]
        self._must_exist(("", "serviceaccounts"), namespace, account, "service account")
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={payload['jti']}"]}
        if "pod" in claims:
            self._must_exist(("", "pods"), namespace, claims["pod"], "pod")
            extra["authentication.kubernetes.io/pod-name"] = [claims["pod"]["name"]]
            extra["authentication.kubernetes.io/pod-uid"] = [claims["pod"]["uid"]]
        if "secret" in claims:
            self._must_exist(("", "secrets"), namespace, claims["secret"], "secret")
        if "node" in claims:
            extra["authentication.kubernetes.io/node-name"] = [claims["node"]["name"]]
            if "uid" in claims["node"]:
                extra["authentication.kubernetes.io/node-uid"] = [claims["node"]["uid"]]
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(payload["sub"], account["uid"], groups, extra)

    def _must_exist(self, bucket: tuple[str, str], namespace: str, reference: Mapping[str, str], what: str) -> None:
        found = self._store.get(bucket, namespace, reference["name"])
        if found is None:
            raise InvalidToken(f"{what} {namespace}/{reference['name']} has been deleted")
        if found.content["metadata"]["uid"] != reference["uid"]:
            raise InvalidToken(
                f"{what} UID ({found.content['metadata']['uid']}) does not match claim ({reference['uid']})"
            )


def _reference(obj: Mapping[str, Any]) -> dict[str, str]:
    metadata = obj["metadata"]
    return {"name": metadata["name"], **({"uid": metadata["uid"]} if "uid" in metadata else {})}
