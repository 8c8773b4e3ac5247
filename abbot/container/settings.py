"""What a host's container network is made of, as the program's settings say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ContainerSettings:
    """Settings of the container network; the program's file names them `container` (docs/mesh.md)."""

    #: Folder of the daemon's data; ours are `containers/`, `ipam/` and `container-network.json` in it.
    data_dir: Path
    #: Where CNI plugins lie, the first folder first.
    plugin_dirs: tuple[Path, ...]
    #: Name of the bridge that joins the containers. It is ours: made with the first container, removed with the last.
    bridge: str
    #: Bytes; 0: the kernel's own.
    mtu: int
    #: The user's conflist template in place of the built-in one; its language is told in `abbot.container.template`.
    template: Path | None
    #: Whether what containers send to the outside bears the host's address.
    masquerade: bool
    #: Interfaces (a `*` at the end stands for anything) through which containers are seen with their own address.
    mesh_interfaces: tuple[str, ...] = ("edgefarm*",)
