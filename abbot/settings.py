"""abbot's configuration: the YAML file of docs/mesh.md and its environment overrides, as one frozen value."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml
from google.protobuf import json_format

from abbot.client import DEFAULT_SOCKET, RAW_SUFFIX
from abbot.container.settings import ContainerSettings
from abbot.ports import STATIC_PROVIDER
from abbot.socketline import DEFAULT_CONFIG, socket_line
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.api.reading import Fields
from edgefarm.errors import InvalidResource, SettingsError

HELP: Final = """\
usage: abbot [-c FILE] daemon

Manages the interfaces of this host and the networks of its containers as it is asked to, restores them at its start,
mends them, and watches which peers of its WireGuard tunnels are alive. Ends at SIGTERM.

FILE is YAML (default /etc/abbot/config.yaml); all of it is optional, docs/mesh.md tells the meaning:
  dataDir: /var/lib/abbot        # what must survive a restart; 0700
  socket: /run/abbot/abbot.sock  # gRPC, and <socket>.raw for `abbot process`
  logLevel: info                 # debug, info, warning, error
  health: {host: 127.0.0.1, port: 0}
  repairEvery: 30s
  forwarding: false
  interfaces: []                 # static ones; with a private key in it the file must be readable by its owner only
  wireguard: {backend: auto, program: wireguard-go}
  paths: {probeEvery: 5s, deadAfter: 15s}
  container: {pluginDirs: [/opt/cni/bin, /usr/lib/cni], bridge: abbot0, mtu: 0, template: "", masquerade: true,
              meshInterfaces: [edgefarm*]}

Environment, before the file: ABBOT_SOCKET, ABBOT_DATA_DIR, ABBOT_LOG_LEVEL.
"""

_LEVELS: Final = ("debug", "info", "warning", "error")
_BACKENDS: Final = ("auto", "kernel", "userspace")
#: sun_path has 108 bytes with its end.
_LONGEST_SOCKET: Final = 107 - len(RAW_SUFFIX)
#: Of an interface: IFNAMSIZ without its end.
_LONGEST_INTERFACE: Final = 15
_LARGEST_MTU: Final = 65535
_SECRETS: Final = ("privateKey", "private_key", "preSharedKey", "pre_shared_key")


@dataclass(frozen=True)
class HealthSettings:
    """Where /healthz, /readyz and /metrics are served; port 0: nowhere."""

    host: str
    port: int


@dataclass(frozen=True)
class WireguardSettings:
    """Which implementation serves WireGuard interfaces, and the program of the one in user space."""

    backend: str
    program: str


@dataclass(frozen=True)
class PathSettings:
    """How often a peer is probed, and after what time without an answer it is dead."""

    probe_every: timedelta
    dead_after: timedelta


@dataclass(frozen=True)
class Settings:
    """All of it."""

    data_dir: Path
    socket: str
    log_level: str
    health: HealthSettings
    repair_every: timedelta
    forwarding: bool
    interfaces: tuple[pb.HostNetworkInterface, ...]
    wireguard: WireguardSettings
    paths: PathSettings
    container: ContainerSettings


def read_settings(config: str | None, environ: Mapping[str, str]) -> Settings:
    """Read the file `config` (None: the default one, which may be missing) and the environment.

    SettingsError names the file, the member, and what to write.
    """
    path = Path(config or DEFAULT_CONFIG)
    try:
        text = path.read_text(encoding="utf-8")
        readable_by_others = bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except FileNotFoundError:
        if config is not None:
            raise SettingsError([f"{path} does not exist: write the path of the configuration after -c"]) from None
        text, readable_by_others = "", False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise SettingsError([f"{path} cannot be read: {reason}"]) from None
    try:
        return parse_settings(text, environ, readable_by_others=readable_by_others)
    except InvalidResource as error:
        where = f"{path}: " if text and not error.field.startswith("ABBOT_") else ""
        raise SettingsError([f"{where}{error}"]) from None


def parse_settings(text: str, environ: Mapping[str, str], *, readable_by_others: bool = False) -> Settings:
    """The settings that the file's text says; InvalidResource names the member that is wrong."""
    fields = Fields(_parsed(text), "")
    data_dir = _absolute(fields, "dataDir", "/var/lib/abbot", environ, "ABBOT_DATA_DIR")
    settings = Settings(
        data_dir=data_dir,
        socket=_socket(fields, text, environ),
        log_level=_level(fields, environ),
        health=_health(fields.child("health")),
        repair_every=fields.duration("repairEvery") or timedelta(seconds=30),
        forwarding=fields.boolean("forwarding", False),
        interfaces=_interfaces(fields, readable_by_others),
        wireguard=_wireguard(fields.child("wireguard")),
        paths=_paths(fields.child("paths")),
        container=_container(fields.child("container"), data_dir),
    )
    fields.closed()
    return settings


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # The error's own text repeats the line, which may hold a key.
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        raise InvalidResource("the file", f"is not YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidResource("the file", "must be an object: write members such as socket: and dataDir:")
    return value


def _absolute(fields: Fields, name: str, default: str, environ: Mapping[str, str], variable: str) -> Path:
    written = fields.text(name, default)
    value = environ.get(variable) or written
    if not value.startswith("/"):
        where = variable if environ.get(variable) else fields.path(name)
        raise InvalidResource(where, f"{value!r} is not an absolute path: begin it with /")
    return Path(value)


def _socket(fields: Fields, text: str, environ: Mapping[str, str]) -> str:
    value = str(_absolute(fields, "socket", DEFAULT_SOCKET, environ, "ABBOT_SOCKET"))
    if len(value.encode()) > _LONGEST_SOCKET:
        raise InvalidResource("socket", f"has more than {_LONGEST_SOCKET} bytes, which no unix socket can have")
    if (fields.optional("socket") or None) != socket_line(text):
        raise InvalidResource(
            "socket", "must stand in a line of its own, `socket: PATH`: `abbot process` reads no more"
        )
    return value


def _level(fields: Fields, environ: Mapping[str, str]) -> str:
    override = environ.get("ABBOT_LOG_LEVEL")
    written = fields.choice("logLevel", _LEVELS, "info")
    if override and override not in _LEVELS:
        raise InvalidResource("ABBOT_LOG_LEVEL", f"{override!r} is not known: write {' or '.join(_LEVELS)}")
    return override or written


def _health(fields: Fields) -> HealthSettings:
    health = HealthSettings(fields.text("host", "127.0.0.1"), fields.integer("port", 0, low=0, high=65535))
    fields.closed()
    return health


def _wireguard(fields: Fields) -> WireguardSettings:
    wireguard = WireguardSettings(
        backend=fields.choice("backend", _BACKENDS, "auto"), program=fields.text("program", "wireguard-go")
    )
    fields.closed()
    return wireguard


def _paths(fields: Fields) -> PathSettings:
    paths = PathSettings(
        probe_every=fields.duration("probeEvery") or timedelta(seconds=5),
        dead_after=fields.duration("deadAfter") or timedelta(seconds=15),
    )
    fields.closed()
    if paths.dead_after < 2 * paths.probe_every:
        raise InvalidResource(
            "paths.deadAfter", "must be at least twice paths.probeEvery: else one lost packet ends a path"
        )
    return paths


def _container(fields: Fields, data_dir: Path) -> ContainerSettings:
    directories = fields.texts("pluginDirs") or ("/opt/cni/bin", "/usr/lib/cni")
    bridge = fields.text("bridge", "abbot0")
    if not 0 < len(bridge.encode()) <= _LONGEST_INTERFACE or "/" in bridge or bridge.split() != [bridge]:
        raise InvalidResource(
            "container.bridge", f"{bridge!r} cannot name an interface: write 1 to 15 letters or digits"
        )
    template = fields.text("template", "")
    container = ContainerSettings(
        data_dir=data_dir,
        plugin_dirs=tuple(Path(directory) for directory in directories),
        bridge=bridge,
        mtu=fields.integer("mtu", 0, low=0, high=_LARGEST_MTU),
        template=Path(template) if template else None,
        masquerade=fields.boolean("masquerade", True),
        mesh_interfaces=fields.texts("meshInterfaces") or ContainerSettings.mesh_interfaces,
    )
    fields.closed()
    return container


def _interfaces(fields: Fields, readable_by_others: bool) -> tuple[pb.HostNetworkInterface, ...]:
    interfaces = fields.converted("interfaces", _list_of_objects) or []
    secrets = tuple(_secrets(interfaces))
    if secrets and readable_by_others:
        raise InvalidResource(
            "interfaces", "hold a private key, but the file can be read by others: change its mode to 0600"
        )
    return tuple(_interface(value, f"interfaces[{index}]", secrets) for index, value in enumerate(interfaces))


def _interface(value: dict[str, Any], path: str, secrets: tuple[str, ...]) -> pb.HostNetworkInterface:
    try:
        interface = json_format.ParseDict(value, pb.HostNetworkInterface())
    except json_format.ParseError as error:
        reason = str(error).splitlines()[0]
        for secret in secrets:
            reason = reason.replace(secret, "***")
        raise InvalidResource(path, f"is no HostNetworkInterface in protobuf's JSON form: {reason}") from None
    if interface.provider not in ("", STATIC_PROVIDER):
        raise InvalidResource(f"{path}.provider", f"must be left out: interfaces of this file are {STATIC_PROVIDER!r}")
    interface.provider = STATIC_PROVIDER
    return interface


def _list_of_objects(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("must be a list of objects")
    return value


def _secrets(value: Any) -> Iterator[str]:
    """Every private or preshared key in it."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _SECRETS and item:
                yield str(item)
            else:
                yield from _secrets(item)
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(item)
