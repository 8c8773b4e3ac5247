"""Composition root of abbot: `abbot [-c FILE] daemon|process|cni`. Every command imports only what it needs."""

from __future__ import annotations

import os
import sys

USAGE = """\
usage: abbot [-c FILE] COMMAND

abbot makes the network of a host and of its containers as it is told in abbot-proto messages.

commands:
  daemon     manage the networks until SIGTERM; serves requests on a unix socket
  process    hand one base64 request from stdin to the daemon, print the base64 answer: what node agents run
  cni        be a CNI plugin (also installed as `abbot-cni`): a kubelet's containers get their network from the daemon

options:
  -c FILE    configuration, YAML (default /etc/abbot/config.yaml); docs/mesh.md lists what it may hold
  --help     this text, after a command: about the command
  --version

A daemon to try out:   ABBOT_SOCKET=/tmp/abbot.sock ABBOT_DATA_DIR=/tmp/abbot abbot daemon
What a host has:       ABBOT_SOCKET=/tmp/abbot.sock ABBOT_REQ_ACTION=host:query abbot process
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status (2: used or configured wrongly)."""
    rest = list(sys.argv[1:] if arguments is None else arguments)
    config = None
    if rest[:1] == ["-c"]:
        if len(rest) < 2:
            return _misused("-c needs the path of a configuration file")
        config = rest[1]
        rest = rest[2:]
    match rest:
        case ["--help" | "-h"]:
            print(USAGE, end="")
            return 0
        case ["--version"]:
            from edgefarm import __version__

            print(__version__)
            return 0
        case ["process"]:
            from abbot import process

            return process.run(config, os.environ)
        case ["process", "--help" | "-h"]:
            from abbot import process

            print(process.HELP, end="")
            return 0
        case ["daemon"]:
            # The programs that the daemon starts never use gRPC; its fork handlers would only get in their way.
            os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
            from abbot import daemon

            return daemon.run(config, os.environ)
        case ["daemon", "--help" | "-h"]:
            from abbot import settings

            print(settings.HELP, end="")
            return 0
        case ["cni", "--help" | "-h"]:
            from abbot import cni

            print(cni.HELP, end="")
            return 0
        case ["cni"]:
            from abbot.cni import main as answer_cni_call

            return answer_cni_call()
    return _misused("a command is missing" if not rest else f"{' '.join(rest)!r} is not known")


def _misused(problem: str) -> int:
    print(f"abbot: {problem}\n\n{USAGE}", end="", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
