"""Puts abbot-proto messages into their envelope and takes them out again: the kind says what the body is. Pure.

Request kinds and the kinds of their answers: docs/mesh.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message

from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.errors import InvalidMessage

RequestBody: TypeAlias = (
    pb.ContainerNetworkConfigEnsureRequest
    | pb.ContainerNetworkConfigQueryRequest
    | pb.ContainerNetworkEnsureRequest
    | pb.ContainerNetworkRestoreRequest
    | pb.ContainerNetworkDeleteRequest
    | pb.ContainerNetworkQueryRequest
    | pb.HostNetworkConfigEnsureRequest
    | pb.HostNetworkConfigQueryRequest
)
M = TypeVar("M", bound=Message)
K = TypeVar("K")

#: None is the answer that says no more than "done".
ResponseBody: TypeAlias = (
    pb.ContainerNetworkConfigResponse
    | pb.ContainerNetworkStatusResponse
    | pb.ContainerNetworkStatusListResponse
    | pb.HostNetworkConfigResponse
    | None
)

_REQUESTS: Final[Mapping[pb.RequestType, type[RequestBody]]] = {
    pb.REQ_ENSURE_CTR_NETWORK_CONFIG: pb.ContainerNetworkConfigEnsureRequest,
    pb.REQ_QUERY_CTR_NETWORK_CONFIG: pb.ContainerNetworkConfigQueryRequest,
    pb.REQ_ENSURE_CTR_NETWORK: pb.ContainerNetworkEnsureRequest,
    pb.REQ_RESTORE_CTR_NETWORK: pb.ContainerNetworkRestoreRequest,
    pb.REQ_DELETE_CTR_NETWORK: pb.ContainerNetworkDeleteRequest,
    pb.REQ_QUERY_CTR_NETWORK: pb.ContainerNetworkQueryRequest,
    pb.REQ_ENSURE_HOST_NETWORK_CONFIG: pb.HostNetworkConfigEnsureRequest,
    pb.REQ_QUERY_HOST_NETWORK_CONFIG: pb.HostNetworkConfigQueryRequest,
}
_RESPONSES: Final[Mapping[pb.ResponseType, type[Message]]] = {
    pb.RESP_CTR_NETWORK_CONFIG: pb.ContainerNetworkConfigResponse,
    pb.RESP_CTR_NETWORK_STATUS: pb.ContainerNetworkStatusResponse,
    pb.RESP_CTR_NETWORK_STATUS_LIST: pb.ContainerNetworkStatusListResponse,
    pb.RESP_HOST_NETWORK_CONFIG: pb.HostNetworkConfigResponse,
}


def pack_request(body: RequestBody) -> bytes:
    """The bytes of a Request with this body."""
    return pb.Request(kind=_kind(_REQUESTS, body), body=body.SerializeToString()).SerializeToString()


def unpack_request(data: bytes) -> RequestBody:
    """The body of a Request; InvalidMessage when it is none, or of a kind that we do not know."""
    envelope = _parsed(pb.Request, data, "request")
    kind = _REQUESTS.get(envelope.kind)
    if kind is None:
        raise InvalidMessage(f"the request has the unknown kind {envelope.kind}: see edgefarm/abbotproto/abbot.proto")
    return _parsed(kind, envelope.body, "body of the request")


def pack_response(body: ResponseBody) -> bytes:
    """The bytes of a Response with this body; None: RESP_DONE."""
    if body is None:
        return pb.Response(kind=pb.RESP_DONE).SerializeToString()
    return pb.Response(kind=_kind(_RESPONSES, body), body=body.SerializeToString()).SerializeToString()


def unpack_response(data: bytes) -> ResponseBody:
    """The body of a Response, None for RESP_DONE; InvalidMessage when it is none, or of a kind that we do not know."""
    envelope = _parsed(pb.Response, data, "response")
    if envelope.kind == pb.RESP_DONE:
        return None
    kind = _RESPONSES.get(envelope.kind)
    if kind is None:
        raise InvalidMessage(f"the response has the unknown kind {envelope.kind}: see edgefarm/abbotproto/abbot.proto")
    return _parsed(kind, envelope.body, "body of the response")  # type: ignore[return-value]


def _kind(kinds: Mapping[K, type[Message]], body: Message) -> K:
    return next(kind for kind, message in kinds.items() if isinstance(body, message))


def _parsed(message: type[M], data: bytes, what: str) -> M:
    try:
        return message.FromString(data)
    except DecodeError:
        # The decoder's own words may repeat the bytes, and these may hold a private key.
        raise InvalidMessage(f"the {what} is not the protobuf message that it should be") from None
