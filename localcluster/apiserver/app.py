"""The HTTP face: routes, authentication and errors as Status objects. What a call means is decided elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, cast

import orjson
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from localcluster.apiserver import discovery, patches, requests, reviews, tables, watching
from localcluster.apiserver.authorization.gate import Gate
from localcluster.apiserver.authorization.rbac import Rbac
from localcluster.apiserver.calls import Call
from localcluster.apiserver.failures import (
    ApiError,
    bad_request,
    method_not_allowed,
    no_such_path,
)
from localcluster.apiserver.fields import Apply
from localcluster.apiserver.kubelet import KubeletClient
from localcluster.apiserver.objects import Objects
from localcluster.apiserver.proxy import Proxy
from localcluster.apiserver.rendering import JSON, deleted, renderer, respond
from localcluster.apiserver.store import Json
from localcluster.apiserver.streaming import StreamedLines
from localcluster.apiserver.tokens import Tokens

_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_PATCHES: Final = {
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
}


class Api:
    """Handles requests with the objects and tokens of one cluster."""

    def __init__(
        self,
        objects: Objects,
        tokens: Tokens,
        rbac: Rbac,
        kubelets: KubeletClient,
        *,
        url: str,
        bookmark_seconds: float,
    ) -> None:
        self._bookmark_seconds = bookmark_seconds
        self._objects = objects
        self._tokens = tokens
        self._rbac = rbac
        self._gate = Gate(tokens, rbac)
        self._kubelets = kubelets
        self._proxy = Proxy(objects.store)
        self._url = url

    def application(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                *(Route(path, self._guarded(self._healthy)) for path in ("/healthz", "/readyz", "/livez")),
                Route("/version", self._guarded(self._version)),
                Route("/.well-known/openid-configuration", self._guarded(self._openid)),
                Route("/openid/v1/jwks", self._guarded(self._jwks)),
                Route("/openapi/v3", self._guarded(self._openapi_index)),
                Route("/openapi/v3/{path:path}", self._guarded(self._openapi)),
                Route("/api", self._guarded(self._core)),
                Route("/apis", self._guarded(self._groups)),
                Route("/apis/{group}", self._guarded(self._group)),
                Route("/api/{version}", self._guarded(self._resources)),
                Route("/apis/{group}/{version}", self._guarded(self._resources)),
                Route("/api/{version}/{path:path}", self._guarded(self._object), methods=_METHODS),
                Route("/apis/{group}/{version}/{path:path}", self._guarded(self._object), methods=_METHODS),
                Route("/{path:path}", self._guarded(self._nothing), methods=_METHODS),
            ]
        )

    def _guarded(self, handler: Any) -> Any:
        """Let only those in who may, and turn whatever goes wrong into a Status."""

        async def handle(request: Request) -> Response:
            try:
                access = self._gate.admit(request.method, request.url.path, request.query_params, request.headers)
                request.state.access = access
                access.require()
                return cast(Response, await handler(request))
            except ApiError as error:
                request.state.failure = error.status()
                return respond(request.state.failure, error.code)
            except Exception:  # noqa: BLE001 the boundary of a request
                structlog.get_logger().exception("request failed", path=request.url.path, method=request.method)
                failure = ApiError(
                    500, "InternalError", "Internal error occurred: see the log of localcluster's API server"
                )
                request.state.failure = failure.status()
                return respond(request.state.failure, 500)

        return handle

    async def _healthy(self, _request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _version(self, _request: Request) -> Response:
        return respond(discovery.VERSION)

    async def _openid(self, _request: Request) -> Response:
        return respond(self._tokens.openid_configuration(self._url))

    async def _jwks(self, _request: Request) -> Response:
        return respond(self._tokens.jwks())

    async def _core(self, _request: Request) -> Response:
        return respond(discovery.core_versions(self._url.partition("//")[2]))

    async def _groups(self, _request: Request) -> Response:
        return respond(discovery.groups(self._objects.registry))

    async def _group(self, request: Request) -> Response:
        return respond(_found(discovery.group(self._objects.registry, request.path_params["group"])))

    async def _resources(self, request: Request) -> Response:
        group, version = request.path_params.get("group", ""), request.path_params["version"]
        return respond(_found(discovery.resources(self._objects.registry, group, version)))

    async def _openapi_index(self, _request: Request) -> Response:
        return respond(discovery.openapi_index(self._objects.registry, self._objects.definitions))

    async def _openapi(self, request: Request) -> Response:
        steps = request.path_params["path"].split("/")
        group, version = (steps[1], steps[2]) if len(steps) == 3 else ("", steps[-1])
        objects = self._objects
        return respond(_found(discovery.openapi(objects.registry, objects.definitions, group, version)))

    async def _nothing(self, _request: Request) -> Response:
        raise no_such_path()

    async def _object(self, request: Request) -> Response:
        target = self._target(request)
        call = requests.call_of(request, target)
        response = await self._dispatch(request, call)
        for warning in dict.fromkeys(call.warnings):
            text = warning.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
            response.headers.append("Warning", f'299 - "{text}"')
        return response

    def _target(self, request: Request) -> requests.Target:
        group, version = request.path_params.get("group", ""), request.path_params["version"]
        steps = [step for step in request.path_params["path"].split("/") if step]
        namespace = ""
        if steps[4:5] == ["proxy"]:
            steps = steps[:5]  # what follows is a path of the pod
        if len(steps) > 2 and steps[0] == "namespaces" and not (len(steps) == 3 and steps[2] in ("status", "finalize")):
            namespace, steps = steps[1], steps[2:]
        resource = self._objects.registry.find(group, version, steps[0]) if 1 <= len(steps) <= 3 else None
        if resource is None or bool(namespace) > resource.namespaced:
            raise no_such_path()
        steps += [""] * (3 - len(steps))
        if steps[2] and steps[2] not in resource.subresources:
            raise no_such_path()
        return requests.Target(resource, namespace, steps[1], steps[2])

    async def _dispatch(self, request: Request, call: Call) -> Response:
        if call.resource.virtual:
            if request.method != "POST" or call.name:
                raise method_not_allowed()
            return respond(reviews.answer(call, await requests.read_object(request), self._tokens, self._rbac), 201)
        if call.name and call.resource.namespaced and not call.namespace:
            raise no_such_path()
        if call.subresource == "proxy":
            return await self._proxy.forward(request, call)
        if call.subresource not in ("", "status"):
            return await self._subresource(request, call)
        if not call.name:
            match request.method:
                case "GET":
                    return self._list(request, call)
                case "POST":
                    if call.resource.namespaced and not call.namespace:
                        raise method_not_allowed()
                    created = await self._objects.create(call, await requests.read_object(request))
                    request.state.created = created["metadata"]["name"]
                    return self._shown(request, call, created, 201)
                case "DELETE":
                    return await self._delete_collection(request, call)
            raise method_not_allowed()
        match request.method:
            case "GET" if request.query_params.get("watch") in ("1", "true"):
                return self._watch(request, call)
            case "GET":
                found = self._objects.get(call)
                return self._shown(request, call, call.resource.to_served(found.content))
            case "PUT":
                body = await requests.read_object(request)
                explicit = requests.names_version(body)
                changed = await self._objects.change(call, lambda _old: body, explicit_version=explicit)
                return self._shown(request, call, changed)
            case "PATCH":
                return await self._patch(request, call)
            case "DELETE" if not call.subresource:
                options = requests.delete_options(request, await requests.read_object(request, optional=True))
                last, gone = await self._objects.delete(call, options)
                return respond(deleted(call, last) if gone else last)
        raise method_not_allowed()

    async def _patch(self, request: Request, call: Call) -> Response:
        media = request.headers.get("content-type", "").partition(";")[0].strip()
        if media not in _PATCHES or (media.startswith("application/strategic") and call.resource.custom):
            message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(
                sorted(_PATCHES)
            )
            raise ApiError(415, "UnsupportedMediaType", message)
        patch = requests.parse_document(await requests.read_bytes(request), yaml_allowed=media.endswith("yaml"))
        if media == "application/apply-patch+yaml":
            return await self._apply(request, call, patch)

        def patched(old: Json | None) -> Json:
            assert old is not None
            return _patched(old, patch, media)

        explicit = requests.names_version(patch)
        changed = await self._objects.change(call, patched, explicit_version=explicit)
        return self._shown(request, call, changed)

    async def _apply(self, request: Request, call: Call, applied: Any) -> Response:
        if not isinstance(applied, dict):
            raise bad_request("an applied configuration must be an object")
        if not request.query_params.get("fieldManager"):
            raise bad_request(
                'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
            )
        ownership = Apply(call, applied, self._objects.list_keys(call.resource))
        present = self._objects.store.get(call.resource.bucket, call.namespace, call.name)
        if present is None and not call.subresource:
            # As in Kubernetes, who may only patch cannot create in this way.
            self._rbac.require(call.user, replace(request.state.access.wanted, verb="create"))
            created = await self._objects.create(call, ownership.merged(None), ownership)
            return self._shown(request, call, created, 201)
        changed = await self._objects.change(call, ownership.merged, ownership)
        return self._shown(request, call, changed)

    async def _delete_collection(self, request: Request, call: Call) -> Response:
        options = requests.delete_options(request, await requests.read_object(request, optional=True))
        page = self._page(request, call)
        for stored in page.items:
            metadata = stored.content["metadata"]
            one = Call(
                call.resource,
                call.user,
                call.now,
                metadata.get("namespace", ""),
                metadata["name"],
                dry_run=call.dry_run,
            )
            try:
                await self._objects.delete(one, options)
            except ApiError as error:
                if error.code != 404:
                    raise
        return respond({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})

    async def _subresource(self, request: Request, call: Call) -> Response:
        found = self._objects.get(call)
        body = {} if request.method == "GET" else await requests.read_object(request)
        match (call.subresource, request.method):
            case ("token", "POST"):
                made = reviews.request_token(call, body, found.content, self._objects.store, self._tokens)
                return respond(made, 201)
            case ("eviction", "POST"):
                await self._objects.delete(call, body.get("deleteOptions") or {})
                return respond({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, 201)
            case ("binding", "POST"):
                await self._objects.bind(call, (body.get("target") or {}).get("name", ""))
                return respond({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, 201)
            case ("log", "GET"):
                return await self._kubelets.log(found.content, request.query_params)
            case ("finalize", "PUT"):
                return respond(found.content)
            case ("scale", "GET"):
                return respond(reviews.scale_of(found.content, call.resource))
            case ("scale", "PUT" | "PATCH"):
                return respond(reviews.scale_of(await self._scale(call, request.method, body), call.resource))
        raise method_not_allowed()

    async def _scale(self, call: Call, method: str, body: Json) -> Json:
        def scaled(old: Json | None) -> Json:
            assert old is not None
            scale = reviews.scale_of(old, call.resource)
            return reviews.with_replicas(old, body if method == "PUT" else patches.merge_patch(scale, body))

        return await self._objects.change(call, scaled)

    def _page(self, request: Request, call: Call) -> watching.Page:
        query = dict(request.query_params)
        return watching.list_page(
            self._objects.store, watching.Selection.parse(call.resource, call.namespace, query), query
        )

    def _list(self, request: Request, call: Call) -> Response:
        if request.query_params.get("watch") in ("1", "true"):
            return self._watch(request, call)
        page = self._page(request, call)
        resource = call.resource
        shape = requests.accepted_shape(request)
        if shape == "Table":
            objects = [resource.to_served(stored.content) for stored in page.items]
            include = request.query_params.get("includeObject", "Metadata")
            return respond(tables.table(resource, objects, call.now, include=include, metadata=page.metadata))
        kind, api_version = f"{resource.kind}List", resource.api_version
        if shape == "PartialObjectMetadataList":
            kind, api_version = shape, "meta.k8s.io/v1"
        render = renderer(resource, shape)
        head = orjson.dumps({"kind": kind, "apiVersion": api_version, "metadata": page.metadata})
        items = b",".join(render(stored) for stored in page.items)
        return Response(head[:-1] + b',"items":[' + items + b"]}", media_type=JSON)

    def _watch(self, request: Request, call: Call) -> Response:
        query = dict(request.query_params)
        selection = watching.Selection.parse(call.resource, call.namespace, query, call.name)
        options = watching.WatchOptions.parse(query, self._bookmark_seconds)
        render = renderer(call.resource, requests.accepted_shape(request), query.get("includeObject", "Metadata"))
        return StreamedLines(watching.watch(self._objects.store, selection, options, render))

    def _shown(self, request: Request, call: Call, obj: Json, status: int = 200) -> Response:
        shape = requests.accepted_shape(request)
        if shape == "Table":
            include = request.query_params.get("includeObject", "Metadata")
            metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return respond(tables.table(call.resource, [obj], call.now, include=include, metadata=metadata), status)
        return respond(tables.partial(obj) if shape == "PartialObjectMetadata" else obj, status)


def _patched(old: Json, patch: Any, media: str) -> Json:
    if media == "application/json-patch+json":
        return patches.json_patch(old, patch)
    if not isinstance(patch, dict):
        raise bad_request("a patch must be an object")
    if media == "application/merge-patch+json":
        return cast(Json, patches.merge_patch(old, patch))
    try:
        return cast(Json, patches.strategic_merge(old, patch))
    except (AttributeError, KeyError, TypeError) as error:
        raise bad_request("a directive or a list in the strategic merge patch has the wrong type") from error


def _found(document: Json | None) -> Json:
    if document is None:
        raise no_such_path()
    return document
