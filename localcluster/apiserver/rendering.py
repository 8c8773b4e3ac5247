"""How objects are shown: whole, as a Table row, or as their metadata only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from starlette.responses import Response

from localcluster.apiserver import tables, watching
from localcluster.apiserver.calls import Call
from localcluster.apiserver.resources import Resource
from localcluster.apiserver.store import Json, Stored

JSON: Final = "application/json"
_RETURNED: Final = frozenset(
    ("", plural) for plural in ("pods", "services", "serviceaccounts", "persistentvolumeclaims")
)


def respond(body: Mapping[str, Any] | Json, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(body), status, media_type=JSON)


def renderer(resource: Resource, shape: str, include: str = "Metadata") -> watching.Render:
    """Shows objects in the shape that the client accepts; empty means whole."""
    if shape == "Table":

        def row(stored: Stored) -> bytes:
            metadata = {"resourceVersion": str(stored.version)}
            shown = [resource.to_served(stored.content)]
            return orjson.dumps(tables.table(resource, shown, datetime.now(UTC), include=include, metadata=metadata))

        return row
    if shape.startswith("PartialObjectMetadata"):
        return lambda stored: orjson.dumps(tables.partial(stored.content))

    def whole(stored: Stored) -> bytes:
        served = resource.to_served(stored.content)
        return stored.raw if served is stored.content else orjson.dumps(served)

    return whole


def deleted(call: Call, obj: Json) -> Json:
    """What Kubernetes answers when an object is gone: the object for some kinds, a Status for most."""
    if call.resource.bucket in _RETURNED:
        return obj
    details: Json = {"name": obj["metadata"]["name"], "kind": call.resource.plural, "uid": obj["metadata"]["uid"]}
    if call.resource.group:
        details["group"] = call.resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
