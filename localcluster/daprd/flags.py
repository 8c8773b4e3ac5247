"""The command line of daprd 1.18 (cmd/daprd/options): every flag is known, an unknown one ends the program."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

#: Flags that are taken and make no difference here: control plane, actors, profiling, limits.
_WITHOUT_EFFECT: Final = (
    "actors-disseminate-timeout",
    "actors-service",
    "allowed-origins",
    "app-health-check-path",
    "app-health-probe-interval",
    "app-health-probe-timeout",
    "app-health-threshold",
    "app-max-concurrency",
    "config",
    "control-plane-address",
    "control-plane-namespace",
    "control-plane-trust-domain",
    "dapr-block-shutdown-duration",
    "dapr-grpc-port",
    "dapr-http-max-request-size",
    "dapr-http-read-buffer-size",
    "dapr-internal-grpc-listen-address",
    "dapr-internal-grpc-port",
    "dapr-public-listen-address",
    "dapr-public-port",
    "disable-init-endpoints",
    "max-body-size",
    "metrics-listen-address",
    "metrics-port",
    "placement-host-address",
    "profile-port",
    "read-buffer-size",
    "reminders-service",
    "scheduler-host-address",
    "scheduler-job-streams",
    "sentry-address",
    "sentry-request-jwt-audiences",
    "unix-domain-socket",
)
_SWITCHES_WITHOUT_EFFECT: Final = (
    "app-ssl",
    "disable-builtin-k8s-secret-store",
    "enable-api-logging",
    "enable-app-health-check",
    "enable-metrics",
    "enable-mtls",
    "enable-profiling",
)


@dataclass(frozen=True)
class Options:
    """What the stand-in does with its command line."""

    app_id: str
    resources: tuple[Path, ...]
    http_port: int
    listen_addresses: tuple[str, ...]
    app_address: str
    app_port: int | None
    graceful_shutdown_seconds: int
    log_as_json: bool
    log_level: str


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"daprd (stand-in): {message}\n")


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; end the process with status 2 and a sentence when it is wrong."""
    parser = _parser()
    found = parser.parse_args(arguments)
    if found.mode != "standalone":
        parser.error(f"mode {found.mode!r} is not part of the stand-in: only standalone is")
    if found.app_protocol != "http":
        parser.error(f"app-protocol {found.app_protocol!r} is not part of the stand-in: only http is")
    if not found.app_id:
        parser.error("app-id parameter cannot be empty")
    return Options(
        app_id=found.app_id,
        resources=tuple(Path(path) for text in found.resources_path for path in text.split(",")),
        http_port=found.dapr_http_port,
        listen_addresses=tuple(found.dapr_listen_addresses.split(",")),
        app_address=found.app_channel_address,
        app_port=found.app_port,
        graceful_shutdown_seconds=found.dapr_graceful_shutdown_seconds,
        log_as_json=found.log_as_json,
        log_level=found.log_level,
    )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="daprd", allow_abbrev=False)
    parser.add_argument("--mode", default="standalone")
    parser.add_argument("--app-id", default="")
    parser.add_argument("--resources-path", "--components-path", action="append", default=[])
    parser.add_argument("--dapr-http-port", type=int, default=3500)
    parser.add_argument("--dapr-listen-addresses", default="")
    parser.add_argument("--app-channel-address", default="127.0.0.1")
    parser.add_argument("--app-port", type=int, default=None)
    parser.add_argument("--app-protocol", default="http")
    parser.add_argument("--dapr-graceful-shutdown-seconds", type=int, default=5)
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warn", "error", "fatal"])
    for name in ("log-as-json", *_SWITCHES_WITHOUT_EFFECT):
        # `--flag` and `--flag=true` are the same; `--flag false` is not: the word would be another argument.
        parser.add_argument(f"--{name}", nargs="?", const=True, default=False, type=_boolean)
    for name in _WITHOUT_EFFECT:
        parser.add_argument(f"--{name}", default=None)
    return parser


def _boolean(text: str) -> bool:
    # As Go's strconv.ParseBool.
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise argparse.ArgumentTypeError(f"invalid boolean {text!r}")
