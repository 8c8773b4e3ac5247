"""Opens the host's and the containers' networks, each in the thread that it will be used from."""

from __future__ import annotations

from typing import cast

import structlog

from abbot.container.network import open_container_network
from abbot.host import HostSettings, open_host_network
from abbot.requests import Networks
from abbot.settings import Settings
from abbot.wireguard.backends import BackendName
from abbot.worker import Worker


async def open_networks(settings: Settings, log: structlog.stdlib.BoundLogger) -> Networks:
    """The networks of this host; an EdgefarmError when its data cannot be used."""
    host_settings = HostSettings(
        data_dir=settings.data_dir,
        backend=cast(BackendName, settings.wireguard.backend),
        wireguard_program=settings.wireguard.program,
    )
    host_worker = Worker("host-network")
    container_worker = Worker("container-network")
    return Networks(
        host=await host_worker.run(lambda: open_host_network(host_settings, log)),
        host_worker=host_worker,
        containers=await container_worker.run(lambda: open_container_network(settings.container, log)),
        container_worker=container_worker,
    )
