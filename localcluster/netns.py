"""Network namespaces for demo, benchmarks and tests: made, linked, run in, and removed also after a crash.

Nothing here changes the network of the namespace that it is called from. Linux, root and iproute2 only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from localcluster.process import LocalProcess, StartError

#: Programs and the Debian packages that they come from.
_PACKAGES: Final = {
    "bridge": "containernetworking-plugins",
    "ip": "iproute2",
    "iptables": "iptables",
    "nft": "nftables",
    "wg": "wireguard-tools",
    "wireguard-go": "wireguard-go",
}
#: Where CNI plugins are, which are no commands.
_PLUGINS: Final = "/opt/cni/bin:/usr/lib/cni"

_NAMESPACES: Final = Path("/run/netns")
#: A folder for each `Namespaces`: who made it, and what its processes see as /run/wireguard.
_RECORDS: Final = Path("/run/edgefarm-netns")
_WIREGUARD: Final = "/run/wireguard"
_CLONE_NEWNET: Final = 0x40000000
_RUN_SECONDS: Final = 30.0
_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceError(StartError):
    """A command failed in a namespace; the message carries what it said."""


def missing() -> str | None:
    """What this machine lacks to make namespaces with WireGuard in them, as one sentence; None when it has all."""
    if not sys.platform.startswith("linux"):
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    packages = [package for program, package in _PACKAGES.items() if not _is_installed(program, package)]
    if packages:
        return f"programs are missing: apt-get install --no-install-recommends {' '.join(packages)}"
    return None


@dataclass(frozen=True)
class Namespace:
    """One network namespace with its loopback up; /run/wireguard of its processes is their own."""

    name: str
    """Unique on this machine: `ef<6 hex>-<short name>`."""
    state: Path
    """A folder that goes with the namespace."""
    processes: list[LocalProcess] = field(default_factory=list, repr=False, compare=False)

    @property
    def path(self) -> Path:
        """What CNI plugins and `ip` know the namespace by."""
        return _NAMESPACES / self.name

    def run(self, argv: Sequence[str], *, check: bool = True, stdin: str = "", timeout: float = _RUN_SECONDS) -> str:
        """Standard output of a command in the namespace; raises NamespaceError when it fails and `check` is set."""
        return _run(self._inside(argv), check=check, stdin=stdin, timeout=timeout)

    def start(
        self, title: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
    ) -> LocalProcess:
        """Start a process in the namespace; it ends with the namespace, or with the thread that calls this."""
        process = LocalProcess.start(title, self._inside(argv), log=log, env=env)
        self.processes.append(process)
        return process

    def ip(self, *arguments: str) -> str:
        """Standard output of `ip` with these arguments."""
        return _run(["ip", "-n", self.name, *arguments])

    def sysctl(self, name: str, value: int | str) -> None:
        """Set a value below /proc/sys, in the namespace: `net.ipv4.ip_forward`."""
        file = "/proc/sys/" + name.replace(".", "/")
        self.run(["sh", "-c", 'echo "$1" > "$2"', "sysctl", str(value), file])

    def route_packets(self) -> None:
        """Be a router."""
        self.sysctl("net.ipv4.ip_forward", 1)
        self.sysctl("net.ipv6.conf.all.forwarding", 1)

    def masquerade(self, outside: str) -> None:
        """Be a home router: hide what goes out of this interface behind its address, and let nothing unasked in.

        Without the filter a packet that comes too early would make an entry of its own, and the port that the same
        pair uses in the other direction would be another one.
        """
        self.route_packets()
        self.run(
            ["nft", "-f", "-"],
            stdin=f"""table ip nat {{
  chain out {{ type nat hook postrouting priority srcnat; oifname "{outside}" masquerade; }}
  chain in {{ type filter hook input priority filter; iifname "{outside}" ct state new meta l4proto udp drop; }}
  chain through {{ type filter hook forward priority filter; iifname "{outside}" ct state new drop; }}
}}
""",
        )

    def cut(self, one: str, other: str) -> None:
        """Drop what this router forwards between two IPv4 addresses, until `mend`."""
        self.run(
            ["nft", "-f", "-"],
            stdin=f"""table ip cut {{
  chain through {{ type filter hook forward priority filter - 10; }}
}}
add rule ip cut through ip saddr {one} ip daddr {other} drop
add rule ip cut through ip saddr {other} ip daddr {one} drop
""",
        )

    def mend(self) -> None:
        """Take back every `cut` of this router."""
        self.run(["nft", "delete", "table", "ip", "cut"], check=False)

    def enter(self) -> None:
        """Move the calling thread, and the threads and processes that it starts from now on, into the namespace."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise NamespaceError(f"cannot enter {self.name}: {os.strerror(number)}")
        finally:
            os.close(descriptor)

    def end_processes(self) -> None:
        """End what `start` started, latest first."""
        while self.processes:
            self.processes.pop().stop()

    def _inside(self, argv: Sequence[str]) -> list[str]:
        # `ip netns exec` gives its command a mount namespace of its own; UAPI sockets are all that is shared otherwise.
        script = f'mount --bind "$1" {_WIREGUARD} && shift && exec "$@"'
        wireguard = str(self.state / "wireguard")
        return ["ip", "netns", "exec", self.name, "sh", "-c", script, "namespace", wireguard, *argv]


class Namespaces:
    """Namespaces that belong together: unique names, and nothing left of them when this is closed."""

    def __init__(self) -> None:
        clean_left_behind()
        self.id = f"ef{secrets.token_hex(3)}"
        self._record = _RECORDS / self.id
        self._spaces: dict[str, Namespace] = {}
        _write_record(self._record)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, short: str) -> Namespace:
        return self._spaces[short]

    def __iter__(self) -> Iterator[Namespace]:
        return iter(list(self._spaces.values()))

    def add(self, short: str) -> Namespace:
        """Make a namespace; `short` is unique among these."""
        space = Namespace(f"{self.id}-{short}", self._record / short)
        (space.state / "wireguard").mkdir(parents=True)
        Path(_WIREGUARD).mkdir(mode=0o700, exist_ok=True)
        _run(["ip", "netns", "add", space.name])
        self._spaces[short] = space
        space.ip("link", "set", "lo", "up")
        # Addresses of our own making are unique: they need not wait for duplicates to show.
        for scope in ("all", "default"):
            space.sysctl(f"net.ipv6.conf.{scope}.accept_dad", 0)
        return space

    def remove(self, space: Namespace) -> None:
        """Remove one namespace with its processes."""
        space.end_processes()
        _remove(space.name)
        shutil.rmtree(space.state, ignore_errors=True)
        self._spaces.pop(space.name.removeprefix(f"{self.id}-"), None)

    def link(
        self,
        one: Namespace,
        interface: str,
        other: Namespace,
        other_interface: str,
        *,
        a_addresses: Sequence[str] = (),
        b_addresses: Sequence[str] = (),
    ) -> None:
        """Connect two namespaces by a cable (veth) with these addresses (`10.0.0.1/24`) at its ends."""
        one.ip(
            *("link", "add", interface, "type", "veth", "peer", "name", other_interface, "netns", other.name),
        )
        for space, name, addresses in ((one, interface, a_addresses), (other, other_interface, b_addresses)):
            for address in addresses:
                space.ip("address", "add", address, "dev", name)
            space.ip("link", "set", name, "up")

    def close(self) -> None:
        """End all processes and remove all namespaces."""
        spaces = list(reversed(self._spaces.values()))
        for space in spaces:  # all of them first: an interface that goes with its other end would look like a fault
            space.end_processes()
        for space in spaces:
            self.remove(space)
        shutil.rmtree(self._record, ignore_errors=True)


def clean_left_behind() -> list[str]:
    """Remove the namespaces of makers that live no longer; return their names. Others' namespaces are not touched."""
    removed = []
    records = sorted(_RECORDS.iterdir()) if _RECORDS.is_dir() else []
    for record in records:
        try:
            maker = (record / "maker").read_text()
        except OSError:
            continue  # it is being made, or was just closed
        if maker == _maker(int(maker.split()[0])):
            continue
        names = [path.name for path in sorted(_NAMESPACES.glob(f"{record.name}-*"))]
        for name in names:
            _remove(name)
        shutil.rmtree(record, ignore_errors=True)
        removed += names
    return removed


def _write_record(record: Path) -> None:
    # The maker's start tells it from a later process with the same number.
    record.mkdir(parents=True, mode=0o700)
    temporary = record / "maker.new"
    temporary.write_text(_maker(os.getpid()))
    temporary.rename(record / "maker")


def _maker(pid: int) -> str:
    """`<pid> <start time in ticks since boot>`, or an empty text when there is no such process."""
    try:
        # The name, in brackets, may contain anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{pid} {fields[19]}"


def _remove(name: str) -> None:
    """Kill by number what still runs in the namespace, and remove it; no error when it is gone."""
    if not (_NAMESPACES / name).exists():
        return
    for pid in _run(["ip", "netns", "pids", name], check=False).split():
        if int(pid) != os.getpid():  # it may have entered the namespace itself
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    _run(["ip", "netns", "delete", name], check=False)


def _run(argv: Sequence[str], *, check: bool = True, stdin: str = "", timeout: float = _RUN_SECONDS) -> str:
    command = " ".join(argv)
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=timeout, env={**os.environ, "PATH": _path()}
        )
    except subprocess.TimeoutExpired:
        raise NamespaceError(f"{command}: no end after {timeout:g} s") from None
    if check and done.returncode != 0:
        raise NamespaceError(f"{command}: exit status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _is_installed(program: str, package: str) -> bool:
    folders = _PLUGINS if package == "containernetworking-plugins" else _path()
    return shutil.which(program, path=folders) is not None


def _path() -> str:
    """PATH with the folders of administrators' programs, which not every root has."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
