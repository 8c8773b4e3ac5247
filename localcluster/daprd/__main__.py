"""Composition root of the daprd stand-in: `python -m localcluster.daprd` with daprd's flags."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Generator

import uvicorn

from localcluster.daprd.api import make_api
from localcluster.daprd.flags import Options, parse
from localcluster.daprd.resources import InitError
from localcluster.daprd.runtime import Runtime


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # signals belong to the runtime


async def _run(options: Options) -> int:
    runtime = Runtime(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, runtime.end, 0, "Received signal; beginning shutdown")
    runtime.log("info", "starting the stand-in for Dapr 1.18 (it has no gRPC API)")
    try:
        sockets = [_listen(address or "0.0.0.0", options.http_port) for address in options.listen_addresses]  # noqa: S104
    except OSError as error:
        runtime.log("fatal", f"Fatal error from runtime: could not listen on {options.http_port}: {error}")
        return 1
    server = _Server(uvicorn.Config(make_api(runtime), log_config=None, access_log=False, lifespan="off"))
    tasks = [asyncio.create_task(server.serve(sockets)), asyncio.create_task(_work(runtime))]
    await runtime.ended.wait()
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    await runtime.close()
    server.should_exit = server.force_exit = True
    await tasks[0]
    return runtime.status


async def _work(runtime: Runtime) -> None:
    try:
        await runtime.load()
        await asyncio.gather(runtime.watch(), runtime.serve_application())
    except InitError as error:
        runtime.end(1, f"Fatal error from runtime: {error}")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


if __name__ == "__main__":
    sys.exit(asyncio.run(_run(parse(sys.argv[1:]))))
