"""`abbot daemon`: opens the networks, restores them, serves requests, repairs, and ends in time."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final

import structlog

from abbot import sockets
from abbot.client import raw_socket
from abbot.forwarding import ensure_forwarding
from abbot.frames import FrameServer
from abbot.health import HealthServer
from abbot.liveness import Cadence
from abbot.metrics import CONTENT_TYPE, Metrics
from abbot.networks import open_networks
from abbot.prober import Prober
from abbot.requests import Networks, Requests
from abbot.server import GrpcServer
from abbot.settings import Settings, read_settings
from edgefarm import __version__
from edgefarm.errors import EdgefarmError, SettingsError
from edgefarm.pages import Page
from edgefarm.telemetry import configure_logging

#: Seconds for requests that have begun when SIGTERM comes, and then for the end of the host's network.
_REQUEST_GRACE: Final = 5.0
_CLOSE_TIMEOUT: Final = 10.0
_DATA_MODE: Final = 0o700
_LOCK: Final = "daemon.lock"


def run(config: str | None, environ: Mapping[str, str]) -> int:
    """Run until SIGTERM; the exit status (1: cannot start or go on, 2: used or configured wrongly)."""
    try:
        settings = read_settings(config, environ)
        with _alone(settings.data_dir):
            return asyncio.run(_run(settings))
    except SettingsError as error:
        for problem in error.problems:
            sys.stderr.write(f"abbot: {problem}\n")
        return 2
    except (EdgefarmError, OSError) as error:
        sys.stderr.write(f"abbot: cannot start: {error}\n")
        return 1


async def _run(settings: Settings) -> int:
    log = configure_logging("abbot", settings.log_level)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    for path in _paths(settings):
        sockets.claim(path)
    return await Daemon(settings, await open_networks(settings, log), log).run(stop)


class Daemon:
    """One running daemon."""

    def __init__(self, settings: Settings, networks: Networks, log: structlog.stdlib.BoundLogger) -> None:
        self._settings = settings
        self._networks = networks
        self._log = log
        self._metrics = Metrics()
        cadence = Cadence(settings.paths.probe_every.total_seconds(), settings.paths.dead_after.total_seconds())
        self._prober = Prober(networks.host, networks.host_worker, cadence, metrics=self._metrics, log=log)
        requests = Requests(networks, self._metrics, log, self._prober.look)
        self._frames = FrameServer(requests.answer)
        self._grpc = GrpcServer(requests.answer)
        self._health = HealthServer(self._page)
        self._static_is_made = False
        self._problems: list[str] = ["the interfaces are being restored"]

    async def run(self, stop: asyncio.Event) -> int:
        """Until `stop`; the exit status. OSError when the sockets cannot be served."""
        if self._settings.health.port:
            await self._health.start(self._settings.health.host, self._settings.health.port)
        await self._restore()
        path, raw = _paths(self._settings)
        with sockets.private():
            await self._grpc.start(path)
            await self._frames.start(raw)
        self._log.info("started", version=__version__, socket=str(path))
        background = asyncio.create_task(self._background())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({background, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        crash = background.exception() if background.done() else None
        if crash is not None:
            self._log.error("crashed", exc_info=crash)
        background.cancel()
        await self._end()
        return 0 if crash is None else 1

    async def _background(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._prober.run())
            tasks.create_task(self._repair())

    async def _restore(self) -> None:
        self._problems = await self._mended(self._networks.host.restore)
        self._log.info("restored", problems=len(self._problems))

    async def _repair(self) -> None:
        while True:
            await asyncio.sleep(self._settings.repair_every.total_seconds())
            self._problems = await self._mended(self._networks.host.repair)
            self._metrics.repair(failed=bool(self._problems))
            self._prober.look()

    async def _mended(self, mend: Callable[[], list[str]]) -> list[str]:
        """Let `mend` and the rest be done that must hold at any time; what failed, as sentences."""
        run = self._networks.host_worker.run
        problems: list[str] = []
        try:
            problems += await run(mend)
            if not self._static_is_made:
                await run(lambda: self._networks.host.set_static(self._settings.interfaces))
                self._static_is_made = True
            if self._settings.forwarding:
                await run(ensure_forwarding)
        except EdgefarmError as error:
            problems.append(str(error))
        except Exception as error:  # noqa: BLE001
            # Boundary of this worker: the tunnels that are there go on, and it is tried again.
            self._log.exception("the interfaces could not be looked after")
            problems.append(f"abbot made a mistake while it looked after the interfaces ({type(error).__name__})")
        for problem in problems:
            if problem not in self._problems:
                self._log.error("not as it should be", reason=problem)
        return problems

    async def _end(self) -> None:
        self._log.info("ending")
        await asyncio.gather(self._grpc.close(_REQUEST_GRACE), self._frames.close(_REQUEST_GRACE))
        self._health.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._networks.host_worker.run(self._networks.host.close)
        except (TimeoutError, EdgefarmError) as error:
            self._log.error("interfaces that should go may be left", reason=str(error) or "it took too long")
        for path in _paths(self._settings):
            path.unlink(missing_ok=True)

    def _page(self, path: str) -> Page | None:
        match path:
            case "/healthz":
                return Page(b"ok\n")
            case "/readyz":
                if not self._problems:
                    return Page(b"ready\n")
                return Page("".join(f"{line}\n" for line in self._problems).encode(), HTTPStatus.SERVICE_UNAVAILABLE)
            case "/metrics":
                return Page(self._metrics.render(), content_type=CONTENT_TYPE)
        return None


def _paths(settings: Settings) -> tuple[Path, Path]:
    """The sockets: gRPC, frames."""
    return Path(settings.socket), Path(raw_socket(settings.socket))


@contextlib.contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Keep the data folder to ourselves; SettingsError when another daemon has it."""
    if not data_dir.is_dir():
        data_dir.mkdir(mode=_DATA_MODE, parents=True)
    data_dir.chmod(_DATA_MODE)
    descriptor = os.open(data_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError([f"dataDir: another abbot daemon uses {data_dir}: end it first"]) from None
        yield
    finally:
        os.close(descriptor)
