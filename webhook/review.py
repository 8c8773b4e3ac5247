"""Reads an AdmissionReview (admission.k8s.io/v1) and writes its answer; knows nothing of HTTP servers.

See https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Generic, NamedTuple, Required, TypedDict, TypeVar

import msgspec
import pybase64

from edgefarm.errors import InvalidResource, InvalidReview
from webhook.decide import Decision, Deny, Inject, Reason, decide, skip
from webhook.inject import inject
from webhook.pod import Pod, check_shape, problem_and_path
from webhook.settings import Injection
from webhook.template import encoded_additions

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
CONTENT_TYPE: Final = "application/json"

#: The API server gives itself the same limit for a name; longer ones are cut in logs.
_NAME_LENGTH: Final = 253

_Object = TypeVar("_Object")


class _Resource(TypedDict, total=False):
    group: str | None
    resource: str | None


class _Admission(TypedDict, Generic[_Object], total=False):
    uid: Required[Annotated[str, msgspec.Meta(min_length=1)]]
    resource: Required[_Resource]
    subResource: str | None
    operation: str | None
    namespace: str | None
    name: str | None
    dryRun: bool | None
    object: _Object


class _Review(TypedDict, Generic[_Object]):
    """An AdmissionReview about an object of some type."""

    apiVersion: str
    kind: str
    request: _Admission[_Object]


_OF_PODS: Final = msgspec.json.Decoder(_Review[Pod])
_OF_ANYTHING: Final = msgspec.json.Decoder(_Review[Any])


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
    if content_type != CONTENT_TYPE and content_type.partition(";")[0].strip().lower() != CONTENT_TYPE:
        raise InvalidReview(415, f"the content type must be {CONTENT_TYPE}")
    try:
        return _read(body)
    except msgspec.ValidationError as error:
        problem, path = problem_and_path(error)
        where = f"{path}: " if path else ""
        raise InvalidReview(400, f"the body must be an {KIND} of {API_VERSION}: {where}{problem}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidReview(400, f"the body is not JSON: {error}") from None


def answer(request: Request, settings: Injection) -> Answer:
    """Decide about the request and write the AdmissionReview that answers it; the same for a dry run."""
    if request.pod is None:
        decision: Decision = skip(Reason.NOT_FOR_US, what=request.what)
    else:
        decision = decide(request.pod, request.namespace, settings)
    response: dict[str, Any] = {"uid": request.uid, "allowed": not isinstance(decision, Deny)}
    if isinstance(decision, Deny):
        response["status"] = {"code": 403, "reason": "Forbidden", "message": decision.sentence}
    elif isinstance(decision, Inject) and request.pod is not None:
        operations = inject(request.pod, decision.plan, settings, encoded_additions)
        if operations:
            response["patchType"] = "JSONPatch"
            # Base64 needs no escaping. The encoder would write bytes as base64 by itself, but not with SIMD.
            response["patch"] = msgspec.Raw(b'"%b"' % pybase64.b64encode(msgspec.json.encode(operations)))
        if decision.warnings:
            response["warnings"] = decision.warnings
    return Answer(decision, msgspec.json.encode({"apiVersion": API_VERSION, "kind": KIND, "response": response}))


def _read(body: bytes) -> Request:
    """The request in a review; raises the decoder's errors."""
    pod: Pod | None = None
    try:
        review: _Review[Any] = _OF_PODS.decode(body)
        pod = review["request"].get("object")
    except msgspec.ValidationError:
        # Seldom: it is about something else than a pod, or wrong. The second look tells which.
        review = _OF_ANYTHING.decode(body)
    if review["kind"] != KIND or review["apiVersion"] != API_VERSION:
        raise InvalidReview(400, f"the body must be an {KIND} of {API_VERSION}")
    request = review["request"]
    namespace, dry_run = request.get("namespace") or "", request.get("dryRun") is True
    what = _other_than_pod_creation(request)
    if what:
        return Request(request["uid"], namespace, request.get("name") or "", dry_run, None, what)
    if pod is None:
        try:
            pod = check_shape(request.get("object"))
        except InvalidResource as error:
            raise InvalidReview(400, f"the request's object is not a pod: {error}") from None
    metadata = pod.get("metadata", {})
    # A pod made from a bare manifest may name no namespace; the request always does.
    namespace = namespace or metadata.get("namespace") or ""
    if not namespace:
        raise InvalidReview(400, "the request names no namespace")
    name = metadata.get("name") or metadata.get("generateName") or ""
    return Request(request["uid"], namespace[:_NAME_LENGTH], name[:_NAME_LENGTH], dry_run, pod)


def _other_than_pod_creation(request: _Admission[Any]) -> str:
    """What the request is about when it is not about creating a pod, else an empty text."""
    resource = request["resource"]
    group, plural = resource.get("group") or "", resource.get("resource") or ""
    subresource, operation = request.get("subResource") or "", request.get("operation") or ""
    if (group, plural, subresource, operation) == ("", "pods", "", "CREATE"):
        return ""
    name = "/".join(part for part in (group, plural, subresource) if part)
    return f"{operation or 'an unknown operation'} of {name or 'an unknown resource'}"[:_NAME_LENGTH]
