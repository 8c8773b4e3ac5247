"""Finds the daemon's socket in the configuration file without a YAML parser, for commands that start often.

Only a line `socket: PATH` that begins in the first column is seen, plain or in quotes. The daemon refuses a file in
which that would be another path than the one it serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from abbot.client import DEFAULT_SOCKET
from edgefarm.errors import SettingsError

DEFAULT_CONFIG: Final = "/etc/abbot/config.yaml"
_KEY: Final = "socket:"


def configured_socket(config: str | None, environ: Mapping[str, str]) -> str:
    """The socket's path: ABBOT_SOCKET, else of the file, else the default one. A file that was named must exist."""
    override = environ.get("ABBOT_SOCKET")
    if override:
        return override
    try:
        with open(config or DEFAULT_CONFIG, encoding="utf-8") as file:
            return socket_line(file.read()) or DEFAULT_SOCKET
    except FileNotFoundError:
        if config is None:
            return DEFAULT_SOCKET
        raise SettingsError([f"{config} does not exist: write the path of abbot's configuration after -c"]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise SettingsError([f"{config or DEFAULT_CONFIG} cannot be read: {reason}"]) from None


def socket_line(text: str) -> str | None:
    """The path in the line `socket: PATH`; None when there is no such line or nothing in it."""
    for line in text.splitlines():
        if line.startswith(_KEY):
            value = line[len(_KEY) :].strip()
            quote = value[:1]
            if quote and quote in "\"'":
                return value[1:].partition(quote)[0] or None
            return (" " + value).partition(" #")[0].strip() or None
    return None
