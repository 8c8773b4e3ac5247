"""Serves abbot.NetworkManager in gRPC on a unix socket: the only importer of grpc."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from abbot.client import MAX_FRAME
from edgefarm.errors import EdgefarmError, InvalidMessage, NetworkFailed

SERVICE: Final = "abbot.NetworkManager"
METHOD: Final = "Process"

Answer = Callable[[bytes], Awaitable[bytes]]


class GrpcServer:
    """Hands the bytes of each call to `answer`, which raises an EdgefarmError with a sentence for the client."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", MAX_FRAME), ("grpc.max_send_message_length", MAX_FRAME)]
        )
        # Without serializers the messages stay bytes: they are read in one place for both sockets.
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._process)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))

    async def start(self, path: Path) -> None:
        """Listen; OSError when that cannot be."""
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {path}") from error
        await self._server.start()

    async def close(self, grace: float) -> None:
        """Stop listening; calls that have begun get `grace` seconds."""
        await self._server.stop(grace)

    async def _process(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            return await self._answer(request)
        except EdgefarmError as error:
            await context.abort(_status(error), str(error))
            raise AssertionError("abort raises") from error


def _status(error: EdgefarmError) -> grpc.StatusCode:
    if isinstance(error, InvalidMessage):
        return grpc.StatusCode.INVALID_ARGUMENT
    return grpc.StatusCode.FAILED_PRECONDITION if isinstance(error, NetworkFailed) else grpc.StatusCode.INTERNAL
