"""Admission webhooks: which ones match a request, in which order they are asked, and what their answers mean."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from localcluster.apiserver import patches
from localcluster.apiserver.calls import Call, labels_of
from localcluster.apiserver.cel_rules import holds
from localcluster.apiserver.failures import ApiError
from localcluster.apiserver.selectors import matches_label_selector
from localcluster.apiserver.store import Json, Store
from localcluster.apiserver.webhook_client import CallFailed, WebhookClient

_GROUP: Final = "admissionregistration.k8s.io"
_MUTATING: Final = (_GROUP, "mutatingwebhookconfigurations")
_VALIDATING: Final = (_GROUP, "validatingwebhookconfigurations")


@dataclass(frozen=True)
class Attempt:
    """A write that is to be admitted. `old` is None for CREATE, `new` is None for DELETE."""

    call: Call
    operation: str
    old: Json | None


class Admission:
    """Asks the webhooks that the stored configurations name."""

    def __init__(self, store: Store, client: WebhookClient) -> None:
        self._store = store
        self._client = client

    async def mutate(self, attempt: Attempt, obj: Json, complete: Callable[[Json], None]) -> Json:
        """The object after all mutating webhooks; `complete` applies in-tree plugins and defaults to a changed one."""
        hooks = [hook for hook in self._hooks(_MUTATING) if self._matches(hook, attempt, obj)]
        seen: list[bytes] = []
        start = _canonical(obj)
        for hook in hooks:
            obj = await self._mutate_by(hook, attempt, obj, complete)
            seen.append(_canonical(obj))
        if _canonical(obj) != start:
            for hook, left in zip(hooks, seen, strict=True):
                if hook.get("reinvocationPolicy") == "IfNeeded" and left != _canonical(obj):
                    obj = await self._mutate_by(hook, attempt, obj, complete)
        return obj

    async def validate(self, attempt: Attempt, obj: Json | None) -> None:
        """Ask all validating webhooks at once; the first refusal (in order) is raised."""
        subject = obj if obj is not None else attempt.old
        assert subject is not None
        hooks = [hook for hook in self._hooks(_VALIDATING) if self._matches(hook, attempt, subject)]
        asked: list[Awaitable[Json | None]] = [self._ask(hook, attempt, obj) for hook in hooks]
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer

    async def _mutate_by(self, hook: Json, attempt: Attempt, obj: Json, complete: Callable[[Json], None]) -> Json:
        if not self._matches(hook, attempt, obj):
            return obj
        patch = await self._ask(hook, attempt, obj)
        if not patch:
            return obj
        try:
            changed = patches.json_patch(obj, patch["operations"])
        except ApiError as error:
            raise _internal(hook, str(error)) from error
        if changed != obj:
            complete(changed)
        return changed

    async def _ask(self, hook: Json, attempt: Attempt, obj: Json | None) -> Json | None:
        """The patch of an allowing answer (as `{"operations": [...]}`), None for none; raises what a refusal means."""
        call = attempt.call
        if call.dry_run and hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            message = f'admission webhook "{hook["name"]}" does not support dry run'
            raise ApiError(400, "BadRequest", message)
        review = _review(attempt, obj)
        try:
            answer = await self._client.post(hook["clientConfig"], review, hook.get("timeoutSeconds", 10))
            response = _checked(answer, review["request"]["uid"])
        except CallFailed as error:
            if hook.get("failurePolicy") == "Ignore":
                return None
            raise _internal(hook, str(error)) from error
        call.warnings.extend(str(warning) for warning in response.get("warnings") or ())
        if not response.get("allowed"):
            raise _denied(hook["name"], response.get("status") or {})
        if not response.get("patch"):
            return None
        return {"operations": orjson.loads(base64.b64decode(response["patch"]))}

    def _hooks(self, bucket: tuple[str, str]) -> Iterator[Json]:
        for configuration in self._store.select(bucket):
            yield from configuration.content.get("webhooks") or ()

    def _matches(self, hook: Mapping[str, Any], attempt: Attempt, obj: Json) -> bool:
        call = attempt.call
        # The configurations are exempt, so that a broken webhook can always be removed.
        if call.resource.group == _GROUP or call.resource.virtual:
            return False
        if not any(_rule_matches(rule, attempt) for rule in hook.get("rules") or ()):
            return False
        subjects = [candidate for candidate in (obj, attempt.old) if candidate is not None]
        selector = hook.get("objectSelector")
        if not any(matches_label_selector(selector, labels_of(candidate)) for candidate in subjects):
            return False
        if not self._namespace_matches(hook.get("namespaceSelector"), call, obj):
            return False
        conditions = hook.get("matchConditions") or ()
        variables = {"object": obj, "oldObject": attempt.old, "request": _request(attempt, "")}
        return all(holds(condition["expression"], variables) for condition in conditions)

    def _namespace_matches(self, selector: Mapping[str, Any] | None, call: Call, obj: Json) -> bool:
        if call.resource.bucket == ("", "namespaces"):
            return matches_label_selector(selector, labels_of(obj))
        if not call.resource.namespaced:
            return True
        namespace = self._store.get(("", "namespaces"), "", call.namespace)
        return matches_label_selector(selector, labels_of(namespace.content) if namespace else {})


def _rule_matches(rule: Mapping[str, Any], attempt: Attempt) -> bool:
    resource = attempt.call.resource
    path = f"{resource.plural}/{attempt.call.subresource}" if attempt.call.subresource else resource.plural
    wildcards = {"*/*", path}
    if attempt.call.subresource:
        wildcards |= {f"{resource.plural}/*", f"*/{attempt.call.subresource}"}
    else:
        wildcards |= {"*", f"{resource.plural}/*"}
    scope = {"Namespaced": resource.namespaced, "Cluster": not resource.namespaced}.get(rule.get("scope", "*"), True)
    return (
        scope
        and bool({"*", attempt.operation} & set(rule.get("operations") or ()))
        and bool({"*", resource.group} & set(rule.get("apiGroups") or ()))
        and bool({"*", resource.version} & set(rule.get("apiVersions") or ()))
        and bool(wildcards & set(rule.get("resources") or ()))
    )


def _request(attempt: Attempt, uid: str) -> Json:
    call = attempt.call
    resource = call.resource
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    where = {"group": resource.group, "version": resource.version, "resource": resource.plural}
    options = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}[attempt.operation]
    request: Json = {
        "uid": uid,
        "kind": kind,
        "resource": where,
        "requestKind": kind,
        "requestResource": where,
        "operation": attempt.operation,
        "userInfo": call.user.info(),
        "dryRun": call.dry_run,
        "options": {"kind": options, "apiVersion": "meta.k8s.io/v1"},
    }
    if call.name:
        request["name"] = call.name
    if call.namespace:
        request["namespace"] = call.namespace
    if call.subresource:
        request["subResource"] = request["requestSubResource"] = call.subresource
    return request


def _review(attempt: Attempt, obj: Json | None) -> Json:
    request = _request(attempt, str(uuid.uuid4()))
    request |= {"object": obj, "oldObject": attempt.old}
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def _checked(answer: Any, uid: str) -> Json:
    if not isinstance(answer, dict) or not isinstance(answer.get("response"), dict):
        raise CallFailed("webhook response contained no response field")
    if answer.get("kind") != "AdmissionReview" or answer.get("apiVersion") != "admission.k8s.io/v1":
        got = f"{answer.get('apiVersion')}, Kind={answer.get('kind')}"
        raise CallFailed(f"expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {got}")
    response: Json = answer["response"]
    if response.get("uid") != uid:
        raise CallFailed(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
    if response.get("patch") and response.get("patchType") != "JSONPatch":
        raise CallFailed(f"webhook returned response.patch but response.patchType is {response.get('patchType')!r}")
    return response


def _denied(name: str, status: Mapping[str, Any]) -> ApiError:
    denied = f'admission webhook "{name}" denied the request'
    why = status.get("message") or status.get("reason")
    message = f"{denied}: {why}" if why else f"{denied} without explanation"
    return ApiError(max(int(status.get("code") or 0), 400), str(status.get("reason") or ""), message)


def _internal(hook: Mapping[str, Any], why: str) -> ApiError:
    message = f'Internal error occurred: failed calling webhook "{hook["name"]}": failed to call webhook: {why}'
    return ApiError(500, "InternalError", message, {"causes": [{"message": message.partition(": ")[2]}]})


def _canonical(obj: Json) -> bytes:
    return orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)
