"""Reads and writes of objects: the order in which Kubernetes completes, admits, checks and stores them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from localcluster.apiserver import (
    builtin_schemas,
    cluster_ips,
    defaults,
    definitions,
    lifecycle,
    policies,
    service_accounts,
    storage,
    structural,
    validation,
)
from localcluster.apiserver.admission import Admission, Attempt
from localcluster.apiserver.authorization.escalation import check_grant
from localcluster.apiserver.authorization.rbac import Rbac
from localcluster.apiserver.calls import Call, timestamp
from localcluster.apiserver.failures import (
    Cause,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
)
from localcluster.apiserver.fields import ListKeys, Ownership, builtin_list_keys
from localcluster.apiserver.resources import Registry, Resource, builtin
from localcluster.apiserver.store import Changed, Json, Store, Stored

_NAMESPACES: Final = ("", "namespaces")
_PODS: Final = ("", "pods")
_CLAIMS: Final = ("", "persistentvolumeclaims")
_CRDS: Final = ("apiextensions.k8s.io", "customresourcedefinitions")
#: How often a write without a resourceVersion is tried again when another write comes between.
_ATTEMPTS: Final = 5
_SYSTEM_FIELDS: Final = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")

#: Schema violations after which Kubernetes does not evaluate CEL rules, and what it says then.
_BLOCKING: Final = frozenset(
    f"FieldValue{what}" for what in ("Required", "TypeInvalid", "NotSupported", "TooLong", "TooMany")
)
_NOT_CHECKED: Final = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)

#: Makes the new object of the present one (None: there is none).
Change = Callable[[Json | None], Json]


class Objects:
    """All reads and writes of stored objects."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        admission: Admission,
        rights: Rbac,
        addresses: cluster_ips.ClusterIPs,
    ) -> None:
        self.store = store
        self.registry = registry
        self.definitions = definitions.Definitions(registry)
        self.lifecycle = lifecycle.Lifecycle(store, registry, self.definitions)
        self._admission = admission
        self._rights = rights
        self._addresses = addresses

    def list_keys(self, resource: Resource) -> ListKeys:
        """How lists of a resource merge under server-side apply."""
        return structural.list_keys(self.definitions.of(resource).schema) if resource.custom else builtin_list_keys

    async def bind(self, call: Call, node: str) -> None:
        """Assign a pod to a node, as a scheduler does."""

        def bound(old: Json | None) -> Json:
            assert old is not None
            return {**old, "spec": {**old["spec"], "nodeName": node}}

        await self.change(call, bound)

    def get(self, call: Call) -> Stored:
        """The object, or 404."""
        found = self.store.get(call.resource.bucket, call.namespace, call.name)
        if found is None:
            raise not_found(call.resource, call.name)
        return found

    async def create(self, call: Call, body: Json, ownership: Ownership | None = None) -> Json:
        """Store a new object and return it (with `dry_run`, only return it)."""
        resource = call.resource
        obj = self._decoded(call, body)
        metadata = obj["metadata"]
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        for key in (*_SYSTEM_FIELDS, "selfLink"):
            metadata.pop(key, None)
        self._require_namespace(call)
        if resource.has_status and resource.bucket != _NAMESPACES:
            obj.pop("status", None)
        call = replace(call, name=metadata.get("name", ""))
        self._complete(call, obj)
        self._admit_in_tree(call, obj)
        (ownership or Ownership(call, self.list_keys(resource))).record(obj, None)
        attempt = Attempt(call, "CREATE", None)
        obj = await self._admission.mutate(attempt, obj, lambda changed: self._recomplete(call, changed))
        metadata = obj["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"][:58] + service_accounts.random_suffix()
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = timestamp(call.now)
        if resource.generation:
            metadata["generation"] = 1
        self._complete(call, obj)
        if resource.bucket == _PODS:
            defaults.begin_pod_status(obj)
        self._check(call, obj, None)
        check_grant(self._rights, call, obj, None)
        await self._admission.validate(attempt, obj)
        if self.store.get(resource.bucket, call.namespace, metadata["name"]) is not None:
            raise already_exists(resource, metadata["name"])
        self._allocate(call, obj)
        if call.dry_run:
            return obj
        self._require_namespace(call)
        stored = self.store.put(resource.bucket, self._stored_form(resource, obj), None)
        self.lifecycle.written(resource, stored, call.now)
        return resource.to_served(stored.content)

    async def change(
        self, call: Call, make: Change, ownership: Ownership | None = None, *, explicit_version: bool = False
    ) -> Json:
        """Replace an object by what `make` makes of it; retried when others write meanwhile."""
        for _ in range(_ATTEMPTS):
            present = self.get(call)
            try:
                return await self._change_once(
                    call, present, make, ownership or Ownership(call, self.list_keys(call.resource))
                )
            except Changed:
                if explicit_version:
                    break
        raise conflict(call.resource, call.name)

    async def _change_once(self, call: Call, present: Stored, make: Change, ownership: Ownership) -> Json:
        resource = call.resource
        old = resource.to_served(present.copy())
        obj = self._decoded(call, make(resource.to_served(present.copy())))
        self._check_version(call, obj, old)
        metadata = obj["metadata"]
        for key in _SYSTEM_FIELDS:
            metadata.pop(key, None)
            if key in old["metadata"]:
                metadata[key] = old["metadata"][key]
        obj = self._merge_subresource(call, obj, old)
        self._complete(call, obj)
        if not call.subresource and resource.bucket == cluster_ips.SERVICES:
            cluster_ips.keep(obj, old)
        ownership.record(obj, old)
        attempt = Attempt(call, "UPDATE", old)
        obj = await self._admission.mutate(attempt, obj, lambda changed: self._recomplete(call, changed))
        if resource.generation and call.subresource != "status" and _intent(resource, obj) != _intent(resource, old):
            obj["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        self._check(call, obj, old)
        check_grant(self._rights, call, obj, old)
        await self._admission.validate(attempt, obj)
        obj["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        self._allocate(call, obj)
        if call.dry_run:
            return obj
        if _without_times(obj) == _without_times(old):
            return old
        content = self._stored_form(resource, obj)
        if self.lifecycle.is_finished(resource, content):
            return resource.to_served(self.lifecycle.remove(resource, present, content).content)
        stored = self.store.put(resource.bucket, content, present)
        self.lifecycle.written(resource, stored, call.now)
        return resource.to_served(stored.content)

    async def delete(self, call: Call, options: Json) -> tuple[Json, bool]:
        """Delete or begin to delete; the object and whether it is gone."""
        for _ in range(_ATTEMPTS):
            present = self.get(call)
            self._check_preconditions(call, present.content, options.get("preconditions") or {})
            await self._admission.validate(Attempt(call, "DELETE", call.resource.to_served(present.content)), None)
            if call.dry_run:
                return call.resource.to_served(present.content), True
            try:
                stored, gone = self.lifecycle.delete(call, present, options)
                return call.resource.to_served(stored.content), gone
            except Changed:
                continue
        raise conflict(call.resource, call.name)

    def _decoded(self, call: Call, body: Json) -> Json:
        """The body with kind, version, name and namespace as the path says; 400 where they contradict."""
        resource = call.resource
        if body.get("kind", resource.kind) != resource.kind or body.get("apiVersion", "") not in (
            "",
            resource.api_version,
        ):
            given = f"{body.get('apiVersion')}, Kind={body.get('kind')}"
            wanted = f"{resource.api_version}, Kind={resource.kind}"
            raise bad_request(f"the object provided is unrecognized (must be of type {wanted}): got {given}")
        obj = {"kind": resource.kind, "apiVersion": resource.api_version, **body}
        obj |= {"kind": resource.kind, "apiVersion": resource.api_version}
        metadata = obj["metadata"] = self._metadata(call, obj)
        if resource.namespaced:
            if metadata.get("namespace") not in (None, "", call.namespace):
                raise bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            metadata["namespace"] = call.namespace
        else:
            metadata.pop("namespace", None)
        if call.name and metadata.setdefault("name", call.name) != call.name:
            given, wanted = metadata["name"], call.name
            raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({wanted})")
        return obj

    def _metadata(self, call: Call, obj: Json) -> Json:
        """A copy of the metadata without nulls and unknown fields; 400 for wrong types."""
        given = obj.get("metadata") or {}
        if not isinstance(given, dict):
            raise bad_request(f"{_handled_as(call.resource)}: metadata must be an object")
        metadata = dict(given)
        known = builtin_schemas.metadata_schema()
        self._prune(call, known, metadata, "metadata")
        structural.apply_defaults(known, metadata)
        wrong = structural.violations(builtin_schemas.metadata_validator(), metadata)
        if wrong:
            raise bad_request(f"{_handled_as(call.resource)}: metadata.{wrong[0].field}: {wrong[0].text}")
        return metadata

    def _require_namespace(self, call: Call) -> None:
        if not call.resource.namespaced:
            return
        namespace = self.store.get(_NAMESPACES, "", call.namespace)
        if namespace is None:
            raise not_found(builtin("", "namespaces"), call.namespace)
        if "deletionTimestamp" in namespace.content["metadata"]:
            why = f"unable to create new content in namespace {call.namespace} because it is being terminated"
            raise forbidden(call.resource, call.name, why)

    def _complete(self, call: Call, obj: Json) -> None:
        """Prune and default in place; unknown fields warn or fail as the caller asked."""
        resource = call.resource
        if resource.custom:
            schema = self.definitions.of(resource).schema
            self._prune(call, schema, obj)
            structural.apply_defaults(schema, obj)
            return
        known = builtin_schemas.schema_of(resource)
        if known is not None:
            self._prune(call, known, obj)
            structural.apply_defaults(known, obj)
            wrong = structural.violations(builtin_schemas.validator_of(resource), obj)
            if wrong:
                raise bad_request(f"{_handled_as(resource)}: {wrong[0].field}: {wrong[0].text}")
        defaults.set_defaults(resource, obj)

    def _prune(self, call: Call, schema: structural.Schema, obj: Json, path: str = "") -> None:
        unknown = list(structural.prune(schema, obj, path, root=not path))
        if unknown and call.field_validation == "Strict":
            listed = ", ".join(f'unknown field "{field}"' for field in unknown)
            raise bad_request(f"{_handled_as(call.resource)}: strict decoding error: {listed}")
        if call.field_validation == "Warn":
            call.warnings.extend(f'unknown field "{field}"' for field in unknown)

    def _admit_in_tree(self, call: Call, obj: Json) -> None:
        if call.resource.bucket == _PODS and not call.subresource:
            service_accounts.admit(obj, self.store)
            policies.admit_priority(obj, self.store)
            defaults.admit_pod_tolerations(obj)
        elif call.resource.bucket == _CLAIMS and not call.subresource:
            storage.admit_claim(obj, self.store)

    def _recomplete(self, call: Call, obj: Json) -> None:
        """A webhook changed the object: defaults and in-tree plugins see it again."""
        quiet = replace(call, field_validation="Ignore", warnings=[])
        self._complete(quiet, obj)
        if "uid" not in obj["metadata"]:
            self._admit_in_tree(quiet, obj)

    def _allocate(self, call: Call, obj: Json) -> None:
        # With nothing awaited between this and the write, no other Service gets the same address.
        if call.resource.bucket == cluster_ips.SERVICES and not call.subresource:
            self._addresses.allocate(obj)

    def _check_version(self, call: Call, obj: Json, old: Json) -> None:
        given, present = obj["metadata"].get("resourceVersion"), old["metadata"]["resourceVersion"]
        if given and given != present:
            raise conflict(call.resource, call.name)
        if not given and not call.resource.unconditional_update:
            hint = "must be specified for an update"
            raise invalid(
                call.resource,
                call.name,
                [Cause("metadata.resourceVersion", "FieldValueInvalid", f"Invalid value: 0: {hint}")],
            )
        uid = obj["metadata"].get("uid")
        if uid and uid != old["metadata"]["uid"]:
            text = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
            raise conflict(call.resource, call.name, text)

    def _check_preconditions(self, call: Call, obj: Json, wanted: Json) -> None:
        for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            if wanted.get(field) not in (None, obj["metadata"][field]):
                text = (
                    f"Precondition failed: {label} in precondition: {wanted[field]}, "
                    f"{label} in object meta: {obj['metadata'][field]}"
                )
                raise conflict(call.resource, call.name, text)

    def _merge_subresource(self, call: Call, obj: Json, old: Json) -> Json:
        """Through `status` only the status changes, through the object itself everything else."""
        if call.subresource == "status":
            merged = {**old, "metadata": dict(old["metadata"])}
            merged["metadata"]["managedFields"] = obj["metadata"].get("managedFields", [])
            merged.pop("status", None)
            if "status" in obj:
                merged["status"] = obj["status"]
            if call.resource.bucket in (("", "nodes"), _PODS):
                # Kubelets label and annotate through the status.
                for key in ("labels", "annotations"):
                    if key in obj["metadata"]:
                        merged["metadata"][key] = obj["metadata"][key]
            return merged
        if call.resource.has_status:
            obj.pop("status", None)
            if "status" in old:
                obj["status"] = old["status"]
        return obj

    def _check(self, call: Call, obj: Json, old: Json | None) -> None:
        resource = call.resource
        causes = validation.check_metadata(resource, obj)
        if old is not None and "deletionTimestamp" in old["metadata"]:
            before = old["metadata"].get("finalizers") or []
            added = [f for f in obj["metadata"].get("finalizers") or [] if f not in before]
            if added:
                hint = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
                causes.append(Cause.forbidden("metadata.finalizers", hint))
        if resource.bucket == _CRDS:
            causes += definitions.problems(obj)
        if resource.custom:
            compiled = self.definitions.of(resource)
            wrong = structural.violations(compiled.validator, obj)
            causes += wrong
            if not any(cause.reason in _BLOCKING for cause in wrong):
                causes += compiled.rules.violations(obj, old)
            elif not compiled.rules.empty:
                causes.append(Cause.invalid("<nil>", None, _NOT_CHECKED))
        elif call.subresource != "status":
            causes += validation.check(resource, obj, old)
        if causes:
            raise invalid(resource, obj["metadata"].get("name", ""), causes)

    def _stored_form(self, resource: Resource, obj: Json) -> Json:
        version = resource.api_version
        if resource.custom or resource.renames:
            version = self.lifecycle.storage_version(resource)
        return resource.to_stored(obj, version)


def _handled_as(resource: Resource) -> str:
    return f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'


def _intent(resource: Resource, obj: Json) -> Json:
    """What counts for metadata.generation: what the user asks for."""
    ignored = {"metadata", "status"} if resource.has_status or not resource.custom else {"metadata"}
    return {key: value for key, value in obj.items() if key not in ignored}


def _without_times(obj: Json) -> Json:
    """The object without what a write that changes nothing would change."""
    metadata = {**obj["metadata"], "resourceVersion": ""}
    metadata["managedFields"] = [
        {key: value for key, value in entry.items() if key != "time"} for entry in metadata.get("managedFields") or ()
    ]
    return {**obj, "metadata": metadata}
