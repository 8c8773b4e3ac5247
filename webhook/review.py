"""Reads an AdmissionReview (admission.k8s.io/v1) and writes its answer; knows nothing of HTTP servers.

See https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from edgefarm.errors import InvalidResource, InvalidReview
from webhook.decide import Decision, Deny, Inject, Reason, decide, skip
from webhook.inject import inject
from webhook.pod import Pod, check_shape
from webhook.settings import Injection

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
CONTENT_TYPE: Final = "application/json"

#: Of an answer, up to its response.
_HEAD: Final = b'{"apiVersion":"%b","kind":"%b","response":' % (API_VERSION.encode(), KIND.encode())
#: The API server gives itself the same limit for a name; longer ones are cut in logs.
_NAME_LENGTH: Final = 253


class Request(NamedTuple):
    """An admission request. `pod` is None when it is not about the creation of a pod; `what` then says what it is."""

    uid: str
    namespace: str
    name: str
    dry_run: bool
    pod: Pod | None
    what: str = ""


class Answer(NamedTuple):
    """The decision about a request, and the body that tells the API server."""

    decision: Decision
    body: bytes


def read(body: bytes, content_type: str) -> Request:
    """Parse the body of a request; raise InvalidReview (with an HTTP status) when it cannot be answered."""
    if content_type.partition(";")[0].strip().lower() != CONTENT_TYPE:
        raise InvalidReview(415, f"the content type must be {CONTENT_TYPE}")
    try:
        review = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidReview(400, f"the body is not JSON: {error.msg}") from None
    if not isinstance(review, dict) or review.get("kind") != KIND or review.get("apiVersion") != API_VERSION:
        raise InvalidReview(400, f"the body must be an {KIND} of {API_VERSION}")
    request = review.get("request")
    if not isinstance(request, dict):
        raise InvalidReview(400, f"the {KIND} has no request")
    uid = request.get("uid")
    if not isinstance(uid, str) or not uid:
        raise InvalidReview(400, "the request has no uid")
    what = _other_than_pod_creation(request)
    if what:
        return Request(uid, _text(request, "namespace"), _text(request, "name"), _dry(request), None, what)
    return _pod_request(uid, request)


def answer(request: Request, settings: Injection) -> Answer:
    """Decide about the request and write the AdmissionReview that answers it; the same for a dry run.

    Raises InvalidReview when the pod turns out to be none.
    """
    if request.pod is None:
        decision: Decision = skip(Reason.NOT_FOR_US, what=request.what)
    else:
        decision = decide(request.pod, request.namespace, settings)
    response: dict[str, Any] = {"uid": request.uid, "allowed": not isinstance(decision, Deny)}
    patch = b""
    if isinstance(decision, Deny):
        response["status"] = {"code": 403, "reason": "Forbidden", "message": decision.sentence}
    elif isinstance(decision, Inject) and request.pod is not None:
        try:
            patch = _patch(inject(request.pod, decision.plan, settings))
        except InvalidResource as error:
            raise _no_pod(error) from error
        if decision.warnings:
            response["warnings"] = list(decision.warnings)
    return Answer(decision, b"%b%b%b}}" % (_HEAD, orjson.dumps(response)[:-1], patch))


def _pod_request(uid: str, request: Mapping[str, Any]) -> Request:
    try:
        pod = check_shape(request.get("object"))
    except InvalidResource as error:
        raise _no_pod(error) from error
    metadata = pod.get("metadata", {})
    # A pod made from a bare manifest may name no namespace; the request always does.
    namespace = _text(request, "namespace") or metadata.get("namespace", "")
    if not namespace:
        raise InvalidReview(400, "the request names no namespace")
    name = metadata.get("name") or metadata.get("generateName") or ""
    return Request(uid, namespace[:_NAME_LENGTH], name[:_NAME_LENGTH], _dry(request), pod)


def _no_pod(error: InvalidResource) -> InvalidReview:
    return InvalidReview(400, f"the request's object is not a pod: {error}")


def _other_than_pod_creation(request: Mapping[str, Any]) -> str:
    """What the request is about when it is not about creating a pod, else an empty text."""
    resource = request.get("resource")
    if not isinstance(resource, dict):
        raise InvalidReview(400, "the request names no resource")
    group, plural = _text(resource, "group"), _text(resource, "resource")
    subresource, operation = _text(request, "subResource"), _text(request, "operation")
    if (group, plural, subresource, operation) == ("", "pods", "", "CREATE"):
        return ""
    name = "/".join(part for part in (group, plural, subresource) if part)
    return f"{operation or 'an unknown operation'} of {name or 'an unknown resource'}"[:_NAME_LENGTH]


def _patch(operations: Sequence[Mapping[str, Any]]) -> bytes:
    """Members of the response, as JSON; nothing for no operations."""
    if not operations:
        return b""
    # Base64 needs no escaping: going through a str and the encoder would only copy it twice.
    return b',"patchType":"JSONPatch","patch":"%b"' % binascii.b2a_base64(orjson.dumps(operations), newline=False)


def _text(mapping: Mapping[str, Any], member: str) -> str:
    value = mapping.get(member)
    return value if isinstance(value, str) else ""


def _dry(request: Mapping[str, Any]) -> bool:
    return request.get("dryRun") is True
