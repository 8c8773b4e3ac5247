"""The nft table `abbot`: what containers send to the outside bears the host's address, what they send to the mesh not.

The bridge plugin's own `ipMasq` knows no exception for the mesh.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from abbot.container.commands import installed, run
from edgefarm.errors import NetworkFailed

TABLE: Final = "inet abbot"
_MULTICAST: Final = {4: "224.0.0.0/4", 6: "ff00::/8"}
_REMOVE: Final = f"add table {TABLE}\ndelete table {TABLE}\n"


def script(subnets: Sequence[str], direct: Sequence[str]) -> str:
    """The nft script that replaces the table, in one transaction; without subnets, it only removes it.

    `direct` are the interfaces through which containers keep their addresses; a `*` at the end stands for anything.
    """
    if not subnets:
        return _REMOVE
    rules = []
    if direct:
        names = ", ".join(f'"{name}"' for name in direct)
        rules.append(f"oifname {{ {names} }} return")
    for subnet in subnets:
        version = ipaddress.ip_network(subnet).version
        family = "ip" if version == 4 else "ip6"
        rules.append(f"{family} saddr {subnet} {family} daddr != {{ {subnet}, {_MULTICAST[version]} }} masquerade")
    body = "\n".join(f"    {rule}" for rule in rules)
    hook = "type nat hook postrouting priority srcnat; policy accept;"
    return f"{_REMOVE}table {TABLE} {{\n  chain postrouting {{\n    {hook}\n{body}\n  }}\n}}\n"


def apply(subnets: Sequence[str], direct: Sequence[str]) -> None:
    """Make the host's table as `script` says; NetworkFailed leaves it as it was."""
    if not installed("nft"):
        if not subnets:
            return
        raise NetworkFailed(
            "containers cannot be masqueraded without nft: install it (Debian: nftables), or set container.masquerade"
            " to false"
        )
    finished = run(["nft", "-f", "-"], stdin=script(subnets, direct).encode())
    if finished.status != 0:
        words = finished.stderr.decode("utf-8", "replace").strip()
        raise NetworkFailed(f"the nft table {TABLE!r} cannot be made: {words[:500]}")
