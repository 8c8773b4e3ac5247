"""Reads what clients send: paths to targets, query parameters to calls, bodies to objects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import yaml
from starlette.requests import Request

from localcluster.apiserver import protobuf
from localcluster.apiserver.calls import Call
from localcluster.apiserver.failures import ApiError, bad_request
from localcluster.apiserver.resources import Resource
from localcluster.apiserver.store import Json

#: What etcd, and therefore Kubernetes, accepts.
_MAX_BODY: Final = 3 * 1024 * 1024


@dataclass(frozen=True)
class Target:
    """What a path below /api/v1 or /apis/<group>/<version> names."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


def call_of(request: Request, target: Target) -> Call:
    """The call that the query parameters describe; 400 for values that Kubernetes does not know."""
    query = request.query_params
    agent = request.headers.get("user-agent", "unknown").partition("/")[0]
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        raise bad_request(f'dryRun: Unsupported value: "{dry_run}": supported values: "All"')
    return Call(
        target.resource,
        request.state.access.user,
        datetime.now(UTC),
        target.namespace,
        target.name,
        target.subresource,
        dry_run == "All",
        query.get("fieldManager") or agent,
        query.get("force") in ("true", "1"),
        query.get("fieldValidation") or "Warn",
    )


def accepted_shape(request: Request) -> str:
    """`Table`, `PartialObjectMetadata[List]` or empty, as the first Accept entry that can be served says."""
    for entry in request.headers.get("accept", "").split(","):
        media, *parameters = (part.strip() for part in entry.split(";"))
        wanted = dict(parameter.partition("=")[::2] for parameter in parameters)
        if media in ("application/json", "*/*", "application/*"):
            if wanted.get("as") and wanted.get("v", "v1") != "v1":
                continue
            return wanted.get("as", "")
    return ""


async def read_object(request: Request, *, optional: bool = False) -> Json:
    """The body as an object, from JSON, YAML or protobuf; with `optional`, an empty body is an empty object."""
    media = request.headers.get("content-type", "").partition(";")[0].strip()
    content = await read_bytes(request)
    if optional and not content:
        return {}
    if media == protobuf.MEDIA_TYPE:
        return protobuf.decode(content)
    parsed = parse_document(content, yaml_allowed=media == "application/yaml")
    if not isinstance(parsed, dict):
        raise bad_request("the body must be an object")
    return parsed


async def read_bytes(request: Request) -> bytes:
    """The body; 413 when it is larger than Kubernetes accepts."""
    content = await request.body()
    if len(content) > _MAX_BODY:
        raise ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {_MAX_BODY}")
    return content


def parse_document(content: bytes, *, yaml_allowed: bool) -> Any:
    """JSON, or YAML where the content type says so; 400 for anything else."""
    try:
        return yaml.safe_load(content) if yaml_allowed else orjson.loads(content)
    except (yaml.YAMLError, orjson.JSONDecodeError) as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from error


def names_version(body: Any) -> bool:
    """Whether a body or patch insists on a resourceVersion, so that a conflict is the client's to solve."""
    metadata = body.get("metadata") if isinstance(body, dict) else None
    return isinstance(metadata, dict) and bool(metadata.get("resourceVersion"))


def delete_options(request: Request, body: Json) -> Json:
    """DeleteOptions of the body, overridden by the query; 400 for a grace period that is no number."""
    query = request.query_params
    options = dict(body)
    if query.get("gracePeriodSeconds"):
        if not query["gracePeriodSeconds"].isdecimal():
            raise bad_request("gracePeriodSeconds must be a number of seconds")
        options["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
    if query.get("propagationPolicy"):
        options["propagationPolicy"] = query["propagationPolicy"]
    return options
