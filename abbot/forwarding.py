"""Switches on IP forwarding of the host, for gateways and hosts with containers; it stays on when the daemon ends."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from edgefarm.errors import NetworkFailed

_SYSCTLS: Final = Path("/proc/sys/net")
_ON: Final = "1"
#: accept_ra: also when forwarding, where the kernel else ignores router advertisements and loses its default route
#: (https://docs.kernel.org/networking/ip-sysctl.html).
_ACCEPT_ALWAYS: Final = "2"


def ensure_forwarding(sysctls: Path = _SYSCTLS) -> None:
    """Write what is not as it should be; NetworkFailed when the kernel's settings cannot be written."""
    try:
        for accept in sorted((sysctls / "ipv6/conf").glob("*/accept_ra")):
            with contextlib.suppress(FileNotFoundError):  # its interface has gone meanwhile
                if accept.read_text().strip() == _ON:
                    accept.write_text(_ACCEPT_ALWAYS)
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            switch = sysctls / name
            # No IPv6 in this kernel: nothing to forward.
            if switch.exists() and switch.read_text().strip() != _ON:
                switch.write_text(_ON)
    except OSError as error:
        raise NetworkFailed(
            f"forwarding: {error.filename} cannot be written ({error.strerror}); run abbot with more rights, or set it"
            " otherwise and leave `forwarding` out of its configuration"
        ) from error
