"""The gate that every request passes: who calls, as whom, and whether that one may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from starlette.datastructures import Headers

from localcluster.apiserver.authorization.attributes import Attributes, attributes_of
from localcluster.apiserver.authorization.rbac import Decision, Rbac, refused
from localcluster.apiserver.failures import bad_request, unauthorized
from localcluster.apiserver.tokens import ISSUER, InvalidToken, Tokens, User

_ANONYMOUS: Final = User("system:anonymous", groups=("system:unauthenticated",))
_AUTHENTICATED: Final = "system:authenticated"
_ACCOUNT: Final = "system:serviceaccount:"
_EXTRA: Final = "impersonate-extra-"


@dataclass(frozen=True)
class Access:
    """What was found out about a request before it was handled."""

    user: User
    wanted: Attributes
    decision: Decision
    #: Who really called, where a request is made in somebody else's name.
    impersonator: User | None = None

    def require(self) -> None:
        """Raise ApiError (403) unless this was allowed."""
        if not self.decision.allowed:
            raise refused(self.user, self.wanted, self.decision.reason)


class Gate:
    """Authenticates and authorizes with the tokens and roles of one cluster."""

    def __init__(self, tokens: Tokens, rbac: Rbac) -> None:
        self._tokens = tokens
        self._rbac = rbac

    def admit(self, method: str, path: str, query: Mapping[str, str], headers: Headers) -> Access:
        """What may be done; 401 for a token that proves nothing, 403 for a name that may not be borrowed."""
        caller = self._authenticate(headers)
        user = self._impersonated(caller, headers)
        wanted = attributes_of(method, path, query)
        return Access(user, wanted, self._rbac.decide(user, wanted), caller if user is not caller else None)

    def _authenticate(self, headers: Headers) -> User:
        given = headers.get("authorization", "")
        if not given:
            return _ANONYMOUS
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise unauthorized()
        try:
            return self._tokens.authenticate(token.strip(), (ISSUER,))[0]
        except InvalidToken as error:
            raise unauthorized() from error

    def _impersonated(self, caller: User, headers: Headers) -> User:
        """The user of the Impersonate headers, each of which the caller must be allowed to use."""
        if not any(key.startswith(b"impersonate-") for key, _ in headers.raw):
            return caller
        name, uid = headers.get("impersonate-user", ""), headers.get("impersonate-uid", "")
        groups = headers.getlist("impersonate-group")
        extra: dict[str, list[str]] = {}
        for key, value in headers.items():
            if key.startswith(_EXTRA):
                extra.setdefault(unquote(key.removeprefix(_EXTRA)), []).append(value)
        if not name:
            raise bad_request("requested impersonation without impersonating a user")
        account = name.removeprefix(_ACCOUNT).split(":") if name.startswith(_ACCOUNT) else []
        if len(account) == 2:
            self._may_be(caller, Attributes("impersonate", "", "", "v1", "serviceaccounts", "", *account))
            groups = groups or ["system:serviceaccounts", f"system:serviceaccounts:{account[0]}"]
        else:
            self._may_be(caller, Attributes("impersonate", "", "", "", "users", name=name))
        for group in headers.getlist("impersonate-group"):
            self._may_be(caller, Attributes("impersonate", "", "", "", "groups", name=group))
        authentication = "authentication.k8s.io"
        if uid:
            self._may_be(caller, Attributes("impersonate", "", authentication, "v1", "uids", name=uid))
        for key, values in extra.items():
            for value in values:
                self._may_be(caller, Attributes("impersonate", "", authentication, "v1", "userextras", key, name=value))
        if name != _ANONYMOUS.name and _AUTHENTICATED not in groups:
            groups.append(_AUTHENTICATED)
        return User(name, uid, tuple(groups), extra)

    def _may_be(self, caller: User, wanted: Attributes) -> None:
        self._rbac.require(caller, wanted)
