"""The peers of one tunnel as probes see them: their paths, the socket, and which of them came alive or died."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable

from abbot import liveness
from abbot.icmp import Answered, EchoSocket
from abbot.liveness import Cadence, Observation, Path, Step
from abbot.ports import Peer, Tunnel

#: Packets that are read before others get their turn.
_AT_ONCE = 256


class TunnelWatch:
    """One WireGuard interface; to be used in the event loop's thread."""

    def __init__(self, interface: str, identifier: int, on_readable: Callable[[TunnelWatch], None]) -> None:
        self.interface = interface
        self.cadence = Cadence(0, 0)
        self.paths: dict[str, Path] = {}
        self.problem = ""
        self.stale = True
        """The host's network has not been told since the last look."""
        self._identifier = identifier
        self._on_readable = on_readable
        self._addresses: dict[str, str] = {}  # public key to probe address
        self._peers: dict[str, str] = {}  # probe address to public key
        self._changes: dict[str, bool] = {}  # who came alive (true) or died since `take_changes`
        self._socket: EchoSocket | None = None

    @property
    def listens(self) -> bool:
        """Whether there is a socket; `problem` says why not."""
        return self._socket is not None

    @property
    def changed(self) -> bool:
        """Whether somebody came alive or died since `take_changes`."""
        return bool(self._changes)

    def take(self, tunnel: Tunnel, cadence: Cadence, now: float, random: Callable[[], float]) -> list[str]:
        """Take over what a look at the tunnel showed; the public keys of peers that are new."""
        self.cadence = cadence
        self.stale = True
        self._open(tunnel)
        peers = {peer.public_key: peer for peer in tunnel.peers}
        for public_key in set(self.paths) - set(peers):
            del self.paths[public_key]
            del self._peers[self._addresses.pop(public_key)]
            self._changes.pop(public_key, None)
        new = []
        for public_key, peer in peers.items():
            seen = _observation(peer)
            path = self.paths.get(public_key)
            if path is None:
                address = ipaddress.IPv6Address(peer.probe_address).compressed
                self._addresses[public_key] = address
                self._peers[address] = public_key
                self.paths[public_key] = liveness.start(seen, now, random() * cadence.spread(len(peers)))
                new.append(public_key)
            else:
                self.paths[public_key] = liveness.observe(path, seen, now)
        return new

    def step(self, public_key: str, now: float, jitter: float, early: float) -> Step:
        """Do what is due for a peer within `early` seconds, as far as it is about probes; the caller sets endpoints."""
        step = liveness.step(self.paths[public_key], self.cadence, now, jitter, early)
        self._replace(public_key, step.path)
        if step.probe is not None and self._socket is not None:
            # No endpoint yet, a full queue, an interface that is gone: all of it is a probe without an answer.
            with contextlib.suppress(OSError):
                self._socket.send(self._addresses[public_key], step.probe, hears=step.path.hears)
        return step

    def receive(self, now: float) -> set[str]:
        """Read what has come in; the public keys of peers that it was about."""
        about: set[str] = set()
        for _ in range(_AT_ONCE):
            if self._socket is None:
                break
            try:
                news = self._socket.receive()
            except BlockingIOError:
                break
            except OSError as error:
                # The interface went away or down; the next look opens the socket again.
                self._shut(error)
                break
            public_key = self._peers.get(news.sender) if news else None
            if news is None or public_key is None:
                continue
            path = self.paths[public_key]
            if isinstance(news, Answered):
                path = liveness.answered(path, news.sequence, self.cadence, now)
            else:
                path = liveness.told(path, news.hears, self.cadence, now)
            self._replace(public_key, path)
            about.add(public_key)
        return about

    def alive(self) -> frozenset[str]:
        """Public keys of the live peers."""
        return frozenset(public_key for public_key, path in self.paths.items() if path.alive)

    def rtts(self) -> dict[str, float]:
        """Round trips in seconds, by public key, where measured."""
        return {public_key: path.rtt for public_key, path in self.paths.items() if path.rtt is not None}

    def take_changes(self) -> list[tuple[str, bool]]:
        """Who came alive (true) or died since the last call, by public key."""
        changes, self._changes = self._changes, {}
        self.stale = False
        return list(changes.items())

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _replace(self, public_key: str, path: Path) -> None:
        if path.alive != self.paths[public_key].alive:
            self._changes[public_key] = path.alive
        self.paths[public_key] = path

    def _open(self, tunnel: Tunnel) -> None:
        try:
            index = socket.if_nametoindex(tunnel.interface)
            if self._socket is not None and self._socket.place == (index, tunnel.probe_address):
                return
            self.close()
            self._socket = EchoSocket(tunnel.interface, index, tunnel.probe_address, self._identifier)
        except OSError as error:
            self._shut(error)
            return
        asyncio.get_running_loop().add_reader(self._socket, self._on_readable, self)

    def _shut(self, error: OSError) -> None:
        self.problem = error.strerror or str(error)
        self.close()


def _observation(peer: Peer) -> Observation:
    options = tuple(dict.fromkeys(option for option in (peer.endpoint, *peer.candidates) if option))
    return Observation(options=options, endpoint=peer.current_endpoint, handshake=peer.last_handshake)
