"""Answers abbot-proto requests: finds out what is asked for and lets the host's or the containers' network do it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from google.protobuf.message import Message

from abbot.metrics import Metrics
from abbot.ports import STATIC_PROVIDER, ContainerNetwork, HostNetwork
from abbot.worker import Worker
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.abbotproto.envelope import ResponseBody, pack_response, unpack_request
from edgefarm.errors import EdgefarmError, InvalidMessage, NetworkFailed


class RequestCrashed(EdgefarmError):
    """A mistake of ours; the log has the details."""


@dataclass(frozen=True)
class Networks:
    """What requests are about, and the threads in which it happens.

    The host has a thread of its own, so that a slow CNI plugin never delays the change of a path.
    """

    host: HostNetwork
    host_worker: Worker
    containers: ContainerNetwork
    container_worker: Worker


class Requests:
    """Takes the bytes of a Request, gives those of a Response."""

    def __init__(
        self,
        networks: Networks,
        metrics: Metrics,
        log: structlog.stdlib.BoundLogger,
        host_changed: Callable[[], None],
    ) -> None:
        """`host_changed` is called after each change of the host's interfaces."""
        self._networks = networks
        self._metrics = metrics
        self._log = log
        self._host_changed = host_changed
        containers = networks.containers
        self._of_containers: Mapping[type[Message], Callable[[Any], ResponseBody]] = {
            pb.ContainerNetworkConfigEnsureRequest: containers.ensure_config,
            pb.ContainerNetworkConfigQueryRequest: containers.query_config,
            pb.ContainerNetworkEnsureRequest: containers.ensure,
            pb.ContainerNetworkRestoreRequest: containers.restore,
            pb.ContainerNetworkDeleteRequest: containers.delete,
            pb.ContainerNetworkQueryRequest: containers.query,
        }

    async def answer(self, request: bytes) -> bytes:
        """The answer to a request.

        InvalidMessage when it is none that we know, NetworkFailed when it cannot be done, RequestCrashed otherwise.
        """
        kind = "unknown"
        result = "crashed"
        try:
            body = unpack_request(request)
            kind = type(body).__name__.removesuffix("Request")
            response = pack_response(await self._done(body))
            result = "done"
        except InvalidMessage as error:
            result = "invalid"
            self._log.info("request refused", kind=kind, reason=str(error))
            raise
        except EdgefarmError as error:
            result = "failed"
            self._log.warning("request failed", kind=kind, reason=str(error))
            raise NetworkFailed(str(error)) from error
        except asyncio.CancelledError:
            result = "cancelled"
            raise
        except Exception as error:
            # Text of foreign exceptions may repeat what was asked for, and that may be a key: the log masks it.
            self._log.exception("request crashed", kind=kind)
            raise RequestCrashed("abbot made a mistake while it worked on this: see the log of the daemon") from error
        finally:
            self._metrics.request(kind, result)
        return response

    async def _done(self, body: Message) -> ResponseBody:
        networks = self._networks
        if isinstance(body, pb.HostNetworkConfigEnsureRequest):
            return await self._ensured(body)
        if isinstance(body, pb.HostNetworkConfigQueryRequest):
            query = body
            return await networks.host_worker.run(lambda: networks.host.query(query))
        do = self._of_containers[type(body)]
        return await networks.container_worker.run(lambda: do(body))

    async def _ensured(self, body: pb.HostNetworkConfigEnsureRequest) -> ResponseBody:
        if body.provider == STATIC_PROVIDER:
            raise InvalidMessage(
                f"provider {STATIC_PROVIDER!r} is reserved for interfaces of abbot's configuration: use another"
            )
        networks = self._networks
        try:
            return await networks.host_worker.run(lambda: networks.host.ensure(body))
        finally:
            self._host_changed()
