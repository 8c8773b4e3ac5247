"""Holds a HostNetwork inside a network namespace and does what it is told over a Unix socket, one JSON line each.

It can be told to fail at the n-th call of anything that touches the host, before or after that call took effect.
"""

from __future__ import annotations

import base64
import functools
import json
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from abbot.host.ensuring import Tools
from abbot.host.keys import KeyFolder
from abbot.host.network import HostNetwork
from abbot.host.peers import Peers
from abbot.host.realise import Realiser
from abbot.host.state import State
from abbot.netlink.rtnl import Rtnl
from abbot.wireguard.backends import Backends
from abbot.wireguard.endpoints import Resolver
from abbot.wireguard.userspace import Userspace
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.errors import EdgefarmError, NetworkFailed
from edgefarm.telemetry import configure_logging


class Faults:
    """Counts calls; the one numbered `at` fails, before it took effect or after, or kills this process."""

    def __init__(self) -> None:
        self.calls = 0
        self.at = 0
        self.how = "before"

    def arm(self, at: int, how: str) -> None:
        self.calls, self.at, self.how = 0, at, how

    def wrap(self, port: Any, error: type[Exception]) -> Any:
        return _Wrapped(port, self, error)


class _Wrapped:
    def __init__(self, port: Any, faults: Faults, error: type[Exception]) -> None:
        self._port, self._faults, self._error = port, faults, error

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if name in ("close", "in_userspace", "alive"):
            return method

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            faults = self._faults
            faults.calls += 1
            fails = faults.calls == faults.at
            if fails and faults.how == "before":
                raise self._error(f"injected before {name}")
            result = method(*args, **kwargs)
            if fails and faults.how == "kill":
                signal.raise_signal(signal.SIGKILL)
            if fails:
                raise self._error(f"injected after {name}")
            return result

        return call


class Driver:
    """The commands."""

    def __init__(self, data_dir: Path, backend: Any, program: str) -> None:
        log = configure_logging("abbot-test")
        self.faults = Faults()
        rtnl = Rtnl()
        netlink = self.faults.wrap(rtnl, NetworkFailed)
        devices = self.faults.wrap(Backends(backend, rtnl, Userspace(program, log)), NetworkFailed)
        realiser = Realiser(netlink, devices)
        state = self.faults.wrap(State(data_dir, log), OSError)
        keys = KeyFolder(data_dir / "keys")
        keys.stage = self.faults.wrap(keys, OSError).stage  # type: ignore[method-assign]
        self.host = HostNetwork(Tools(realiser, Peers(realiser, Resolver()), state, keys), log)

    def ensure(self, body: str, static: bool = False) -> str:
        request = pb.HostNetworkConfigEnsureRequest.FromString(base64.b64decode(body))
        if static:
            self.host.set_static(request.expected)
            return ""
        return base64.b64encode(self.host.ensure(request).SerializeToString()).decode()

    def query(self, providers: list[str]) -> str:
        answer = self.host.query(pb.HostNetworkConfigQueryRequest(providers=providers))
        return base64.b64encode(answer.SerializeToString()).decode()

    def restore(self) -> list[str]:
        return self.host.restore()

    def repair(self) -> list[str]:
        return self.host.repair()

    def tunnels(self) -> list[dict[str, Any]]:
        return [{**vars(tunnel), "peers": [vars(peer) for peer in tunnel.peers]} for tunnel in self.host.tunnels()]

    def set_alive(self, interface: str, alive: list[str], rtts: dict[str, float]) -> None:
        self.host.set_alive(interface, frozenset(alive), rtts)

    def set_endpoint(self, interface: str, public_key: str, endpoint: str) -> None:
        self.host.set_endpoint(interface, public_key, endpoint)

    def close(self) -> None:
        self.host.close()

    def arm(self, at: int, how: str) -> None:
        self.faults.arm(at, how)

    def calls(self) -> int:
        return self.faults.calls

    def answer(self, line: str) -> dict[str, Any]:
        name, arguments = json.loads(line)
        try:
            return {"result": getattr(self, name)(**arguments)}
        except EdgefarmError as error:
            return {"error": type(error).__name__, "message": str(error)}


def main() -> None:
    """Serve one client at a time, for ever."""
    path, data_dir, backend, program = sys.argv[1:]
    driver = Driver(Path(data_dir), backend, program)
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rw") as stream:
                for line in stream:
                    stream.write(json.dumps(driver.answer(line)) + "\n")
                    stream.flush()


if __name__ == "__main__":
    main()
