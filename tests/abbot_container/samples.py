"""Values that tests without a network use."""

from __future__ import annotations

from pathlib import Path

from abbot.container.settings import ContainerSettings

SETTINGS = ContainerSettings(
    data_dir=Path("/var/lib/abbot"),
    plugin_dirs=(Path("/usr/lib/cni"),),
    bridge="abbot0",
    mtu=1400,
    template=None,
    masquerade=True,
)
