"""Mount namespaces of containers: where this machine allows them, a container sees some files at their usual places.

Nothing on the machine changes, and the process stays the one that was started: everything happens before its `exec`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from localcluster.process import StartError

_HOSTS: Final = "/etc/hosts"
#: The usual place of service account tokens, which programs have built in; both names are one folder.
_RUN: Final = ("/run/", "/var/run/")
#: `$0` is shown as the machine's hosts file. Then come pairs of a folder and where it is shown, below an empty /run;
#: after `--` the command.
_SCRIPT: Final = f"""
set -e
mount --bind "$0" {_HOSTS}
if [ "$1" != -- ]; then mount -t tmpfs tmpfs /run; fi
while [ "$1" != -- ]; do
  mkdir -p "$2"
  mount --bind "$1" "$2"
  shift 2
done
shift
exec "$@"
"""


@dataclass(frozen=True)
class MountNamespaces:
    """How this machine makes them: the beginning of a command."""

    command: tuple[str, ...]

    @classmethod
    async def find(cls) -> Self:
        """Try; raise StartError, which says what is needed, where they cannot be had."""
        unshare, shell = (shutil.which(name) for name in ("unshare", "sh"))
        for options in (["--mount"], ["--mount", "--map-root-user"]):
            if unshare and shell:
                found = cls((unshare, *options, "--", shell, "-c", _SCRIPT))
                if await _succeeds([*found.enter(Path(_HOSTS), {"/run/try": "/"}), "true"]):
                    return found
        raise StartError("this needs root or unprivileged user namespaces, and the programs unshare and mount")

    def enter(self, hosts: Path, mounts: Mapping[str, str]) -> tuple[str, ...]:
        """What to put before a command that sees `hosts` as `/etc/hosts`, and those `mounts` (path: folder) that lie
        below /run where they are said to be."""
        pairs = []
        for path, folder in mounts.items():
            start = next((start for start in _RUN if path.startswith(start)), None)
            if start is not None and os.path.isdir(folder):
                pairs += [folder, _RUN[0] + path.removeprefix(start)]
        return (*self.command, str(hosts), *pairs, "--")


async def _succeeds(command: Sequence[str]) -> bool:
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=quiet, stdout=quiet, stderr=quiet)
    return await process.wait() == 0
