"""The resources that answer at once and store nothing: tokens, token reviews, access reviews, evictions and scales."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from localcluster.apiserver.authorization.access_reviews import review_access, review_rules
from localcluster.apiserver.authorization.rbac import Rbac
from localcluster.apiserver.calls import Call, timestamp
from localcluster.apiserver.failures import Cause, bad_request, conflict, invalid, not_found
from localcluster.apiserver.resources import Resource, builtin
from localcluster.apiserver.store import Json, Store
from localcluster.apiserver.tokens import ISSUER, Binding, InvalidToken, Tokens

_MIN_SECONDS: Final = 600
_MAX_SECONDS: Final = 2**32
_TOKEN_REQUEST: Final = Resource("authentication.k8s.io", "v1", "tokenrequests", "TokenRequest")


def answer(call: Call, body: Json, tokens: Tokens, rbac: Rbac) -> Json:
    """The review with its status."""
    match call.resource.kind:
        case "TokenReview":
            status = _review_token(body.get("spec") or {}, tokens)
        case "SelfSubjectReview":
            status = {"userInfo": call.user.info()}
        case "SelfSubjectRulesReview":
            status = review_rules(call, body, rbac)
        case _:
            status = review_access(call, body, rbac)
    return {
        "metadata": {"creationTimestamp": None},
        **body,
        "kind": call.resource.kind,
        "apiVersion": call.resource.api_version,
        "status": status,
    }


def request_token(call: Call, body: Json, account: Json, store: Store, tokens: Tokens) -> Json:
    """Answer a TokenRequest for a service account; bound objects must exist and be the ones meant."""
    spec = body.get("spec") or {}
    seconds = 3600 if spec.get("expirationSeconds") is None else int(spec["expirationSeconds"])
    causes = []
    if seconds < _MIN_SECONDS:
        hint = "may not specify a duration less than 10 minutes"
        causes.append(Cause.invalid("spec.expirationSeconds", seconds, hint))
    if seconds > _MAX_SECONDS:
        hint = "may not specify a duration larger than 2^32 seconds"
        causes.append(Cause.invalid("spec.expirationSeconds", seconds, hint))
    if causes:
        raise invalid(_TOKEN_REQUEST, "", causes)
    audiences = list(spec.get("audiences") or [ISSUER])
    binding = _bind(call, account, spec.get("boundObjectRef"), store)
    token = tokens.issue(binding, audiences, now=int(call.now.timestamp()), seconds=seconds)
    metadata = {key: account["metadata"][key] for key in ("name", "namespace")}
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": metadata | {"creationTimestamp": timestamp(call.now)},
        "spec": {
            "audiences": audiences,
            "expirationSeconds": seconds,
            "boundObjectRef": spec.get("boundObjectRef"),
        },
        "status": {
            "token": token,
            "expirationTimestamp": timestamp(call.now + timedelta(seconds=seconds)),
        },
    }


def scale_of(obj: Json, resource: Resource) -> Json:
    """The autoscaling/v1 Scale of a workload."""
    metadata = {
        key: obj["metadata"][key]
        for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if key in obj["metadata"]
    }
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": obj["spec"].get("replicas", 0)},
        "status": {
            "replicas": (obj.get("status") or {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        },
    }


def with_replicas(obj: Json, scale: Json) -> Json:
    """The workload with the replicas (and the expected version) of a Scale."""
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    version = (scale.get("metadata") or {}).get("resourceVersion") or obj["metadata"]["resourceVersion"]
    metadata = {**obj["metadata"], "resourceVersion": version}
    return {**obj, "metadata": metadata, "spec": {**obj["spec"], "replicas": replicas}}


def _review_token(spec: Json, tokens: Tokens) -> Json:
    token = spec.get("token")
    if not token:
        raise bad_request("token is required for TokenReview in authentication")
    try:
        user, audiences = tokens.authenticate(token, tuple(spec.get("audiences") or (ISSUER,)))
    except InvalidToken as error:
        return {"user": {}, "error": str(error)}
    return {"authenticated": True, "user": user.info(), "audiences": audiences}


def _bind(call: Call, account: Json, reference: Any, store: Store) -> Binding:
    if not reference:
        return Binding(account)
    kinds = {"Pod": ("", "pods"), "Secret": ("", "secrets"), "Node": ("", "nodes")}
    bucket = kinds.get(reference.get("kind", ""))
    if bucket is None:
        raise bad_request(f"cannot bind token to object of kind {reference.get('kind')}")
    namespace = "" if reference["kind"] == "Node" else call.namespace
    resource = builtin(*bucket)
    bound = store.get(bucket, namespace, reference.get("name", ""))
    if bound is None:
        raise not_found(resource, reference.get("name", ""))
    uid = bound.content["metadata"]["uid"]
    if reference.get("uid") not in (None, "", uid):
        why = f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record. "
        raise conflict(resource, reference["name"], why + "The object might have been deleted and then recreated")
    if reference["kind"] == "Secret":
        return Binding(account, secret=bound.content)
    if reference["kind"] == "Node":
        return Binding(account, node=bound.content)
    spec = bound.content["spec"]
    if spec.get("serviceAccountName") != account["metadata"]["name"]:
        name = account["metadata"]["name"]
        why = f'cannot bind token for serviceaccount "{name}" to pod running with different serviceaccount name.'
        raise bad_request(why)
    return Binding(account, pod=bound.content, node=_node(spec.get("nodeName"), store))


def _node(name: str | None, store: Store) -> Json | None:
    if not name:
        return None
    found = store.get(("", "nodes"), "", name)
    return found.content if found else {"metadata": {"name": name}}
