"""Remembers over restarts which interfaces were asked for, and which are just being made."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from structlog.stdlib import BoundLogger

from abbot.files import write_atomically
from abbot.host.specs import InterfaceSpec, decode, encode
from edgefarm.errors import InvalidMessage

_FILE: Final = "state.json"
_ASIDE: Final = "state.json.unreadable"
_VERSION: Final = 1


@dataclass(frozen=True)
class Remembered:
    """`making` are interfaces of a change that did not come to its end: what there is of them is ours."""

    specs: tuple[InterfaceSpec, ...] = ()
    making: tuple[str, ...] = ()


class State:
    """The file in the daemon's data folder, which nobody else writes."""

    def __init__(self, data_dir: Path, log: BoundLogger) -> None:
        self._path = data_dir / _FILE
        self._log = log
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self) -> Remembered:
        """What was stored last; nothing when there is no file, or one that cannot be read, which is then kept aside."""
        try:
            value = json.loads(self._path.read_bytes())
            if value["version"] != _VERSION:
                raise ValueError("unknown version")
            return Remembered(tuple(decode(one) for one in value["interfaces"]), tuple(map(str, value["making"])))
        except FileNotFoundError:
            return Remembered()
        except (ValueError, TypeError, KeyError, RecursionError, InvalidMessage):
            aside = self._path.with_name(_ASIDE)
            self._path.rename(aside)
            self._log.error("the stored state cannot be read: starting without it", kept_as=str(aside))
            return Remembered()

    def write(self, specs: Iterable[InterfaceSpec], making: Collection[str] = ()) -> None:
        """Store all of it, unless it is; OSError when the disk does not take it, and then the old state stands."""
        interfaces = ",\n".join(encode(spec) for spec in specs)
        text = f'{{"version": {_VERSION}, "making": {json.dumps(sorted(making))}, "interfaces": [\n{interfaces}\n]}}\n'
        content = text.encode()
        # Who takes back a change that a full disk has refused must not ask it to take the old state.
        with contextlib.suppress(FileNotFoundError):
            if self._path.read_bytes() == content:
                return
        write_atomically(self._path, content)
