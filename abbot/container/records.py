"""What was made for each container, on disk: a file a container, written before its network is begun."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from abbot.container.plugins import Result
from abbot.container.requests import Arguments, Dns, NetworkConfig
from abbot.container.template import Plugin
from abbot.files import write_atomically
from edgefarm.errors import NetworkFailed

_VERSION: Final = 1
_ENDING: Final = ".json"


class Log(Protocol):
    """The part of structlog's logger that is used here."""

    def info(self, event: str, **fields: Any) -> Any: ...
    def warning(self, event: str, **fields: Any) -> Any: ...


@dataclass(frozen=True)
class Record:
    """A container's network: what was asked for, with what it was made, and what came out.

    `result` is None while it is not known to be complete. `addresses` are those that it had last: it shall have them
    again.
    """

    container_id: str
    pid: int
    netns: str
    identity: str
    interface: str
    arguments: Arguments
    chain: tuple[Plugin, ...]
    disable_check: bool = False
    result: Result | None = None
    addresses: tuple[str, ...] = field(default=())


class Records:
    """The records and the configuration below the daemon's data folder; NetworkFailed when the disk refuses."""

    def __init__(self, data_dir: Path, log: Log) -> None:
        self._folder = data_dir / "containers"
        self._config = data_dir / "container-network.json"
        self._log = log
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def config(self) -> NetworkConfig:
        """The subnets that were told last; empty when none were."""
        state = self._read(self._config)
        if not state:
            return NetworkConfig()
        try:
            dns = Dns(**{name: tuple(words) for name, words in state["dns"].items()})
            config = NetworkConfig(ipv4=state["ipv4"], ipv6=state["ipv6"], dns=dns)
            for subnet in config.subnets:
                ipaddress.ip_network(_text(subnet))
        except (KeyError, TypeError, ValueError, AttributeError):
            self._set_aside(self._config)
            return NetworkConfig()
        return config

    def store_config(self, config: NetworkConfig) -> None:
        self._write(self._config, asdict(config))

    def get(self, container_id: str) -> Record | None:
        """The record of a container; None when there is none."""
        return self._record(self._path(container_id))

    def all(self) -> Iterator[Record]:
        """Every record, by container id."""
        for path in sorted(self._folder.glob(f"*{_ENDING}")):
            record = self._record(path)
            if record is not None:
                yield record

    def store(self, record: Record) -> None:
        """Write a record; it is on disk when this returns."""
        self._write(self._path(record.container_id), asdict(record))

    def remove(self, container_id: str) -> None:
        self._path(container_id).unlink(missing_ok=True)

    def _path(self, container_id: str) -> Path:
        # A container id is checked to be a file name: requests.container_id.
        return self._folder / f"{container_id}{_ENDING}"

    def _record(self, path: Path) -> Record | None:
        state = self._read(path)
        if not state:
            return None
        try:
            return _checked(
                Record(
                    **{
                        **{name: value for name, value in state.items() if name != "version"},
                        "arguments": Arguments(**state["arguments"]),
                        "chain": tuple(state["chain"]),
                        "addresses": tuple(state["addresses"]),
                    }
                )
            )
        except (KeyError, TypeError, ValueError):
            self._set_aside(path)
            return None

    def _read(self, path: Path) -> dict[str, Any]:
        """The object in a file; empty when there is none, or nothing that we can read."""
        try:
            state = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError, IsADirectoryError):
            state = None
        except OSError as error:
            raise NetworkFailed(f"{path} cannot be read: {error.strerror or error}") from error
        if not isinstance(state, dict) or state.get("version") != _VERSION:
            self._set_aside(path)
            return {}
        return state

    def _set_aside(self, path: Path) -> None:
        """Keep a file that we cannot read for whoever looks into it, and go on without it."""
        aside = path.with_name(f"{path.name}.damaged")
        try:
            path.replace(aside)
        except OSError as error:
            raise NetworkFailed(f"{path} is damaged and cannot be set aside: {error.strerror}") from error
        self._log.warning("a damaged file was set aside", file=str(path), kept=str(aside))

    def _write(self, path: Path, state: Mapping[str, Any]) -> None:
        try:
            write_atomically(path, json.dumps({"version": _VERSION, **state}).encode())
        except OSError as error:
            raise NetworkFailed(f"{path} cannot be stored: {error.strerror or error}") from error


def _checked(record: Record) -> Record:
    """The record; TypeError or ValueError when something in it is not what we write there."""
    for text in (record.container_id, record.netns, record.identity, record.interface):
        _text(text)
    for one in (record.arguments.runtime, record.arguments.cni, *record.chain, record.result or {}):
        if not isinstance(one, dict):
            raise TypeError("an object is something else")
    for plugin in record.chain:
        _text(plugin["type"])
    for address in record.addresses:
        ipaddress.ip_interface(_text(address))
    return record


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is something else")
    return value
