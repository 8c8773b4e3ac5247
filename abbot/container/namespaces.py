"""Network namespaces of containers: which one a path leads to, and which interfaces are in it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from abbot.container.commands import run
from edgefarm.errors import NetworkFailed

_OWN: Final = "/proc/self/ns/net"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Namespace:
    """A network namespace that exists.

    `identity` tells it from one that another process or container has under the same path later, also after a reboot.
    """

    path: str
    identity: str


@dataclass(frozen=True)
class Link:
    """An interface as the kernel describes it."""

    name: str
    kind: str  # "veth", "bridge"; "" for physical ones
    mac: str
    mtu: int
    addresses: tuple[str, ...]  # with prefix length; none of link scope
    master: str


def find(path: str) -> Namespace | None:
    """The namespace at `path`; None where there is none now."""
    try:
        found, own = os.stat(path), os.stat(_OWN)
    except (OSError, ValueError):
        return None
    if found.st_dev != own.st_dev or not stat.S_ISREG(found.st_mode):
        return None
    return Namespace(path, f"{_BOOT_ID.read_text().strip()}:{found.st_ino}")


def is_own(namespace: Namespace) -> bool:
    """Whether it is the namespace of the daemon itself: the host's."""
    own = find(_OWN)
    return own is not None and own.identity == namespace.identity


def links(namespace: Namespace | None = None, *, name: str = "", master: str = "") -> tuple[Link, ...]:
    """The interfaces of a namespace, or of the host for None: all, the one called `name`, or the ports of `master`.

    There is none where that name or bridge does not exist.
    """
    chosen = [*(("dev", name) if name else ()), *(("master", master) if master else ())]
    finished = run([*_within(namespace), "ip", "-json", "-details", "address", "show", *chosen])
    if finished.status != 0:
        if chosen and b"does not exist" in finished.stderr:
            return ()
        raise NetworkFailed(f"the interfaces cannot be read: {_words(finished.stderr)}")
    # With nothing to show, `ip` writes nothing or empty objects, depending on its version.
    return tuple(_link(entry) for entry in json.loads(finished.stdout or b"[]") if entry)


def start_loopback(namespace: Namespace) -> None:
    """Switch `lo` on: whoever makes a namespace leaves it off, and applications rely on it."""
    finished = run([*_within(namespace), "ip", "link", "set", "lo", "up"])
    if finished.status != 0:
        raise NetworkFailed(f"the loopback interface cannot be switched on: {_words(finished.stderr)}")


def remove_link(name: str) -> None:
    """Remove an interface of the host; it may have gone meanwhile."""
    finished = run(["ip", "link", "delete", "dev", name])
    if finished.status != 0 and links(name=name):
        raise NetworkFailed(f"interface {name} cannot be removed: {_words(finished.stderr)}")


def remove_address(name: str, address: str) -> None:
    """Take an address from an interface of the host."""
    finished = run(["ip", "address", "delete", address, "dev", name])
    if finished.status != 0:
        raise NetworkFailed(f"address {address} cannot be taken from {name}: {_words(finished.stderr)}")


def _within(namespace: Namespace | None) -> Sequence[str]:
    return () if namespace is None else ("nsenter", f"--net={namespace.path}", "--")


def _link(entry: Mapping[str, Any]) -> Link:
    return Link(
        name=str(entry["ifname"]),
        kind=str(entry.get("linkinfo", {}).get("info_kind", "")),
        mac=str(entry.get("address", "")),
        mtu=int(entry.get("mtu", 0)),
        addresses=tuple(
            f"{address['local']}/{address['prefixlen']}"
            for address in entry.get("addr_info", ())
            if address.get("scope") != "link"
        ),
        master=str(entry.get("master", "")),
    )


def _words(stderr: bytes) -> str:
    return stderr.decode("utf-8", "replace").strip()[:500]
