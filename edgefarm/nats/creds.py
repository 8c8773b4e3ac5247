"""Owns the creds file: a user JWT and its seed in the decorated text that every NATS client reads."""

from __future__ import annotations

import re
from typing import Final

from edgefarm.errors import InvalidCredential

_FORMAT: Final = """\
-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
The seed below is a private key. Keep this file secret.

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------
"""
#: One block as the NATS clients read it: three or more dashes, a title, the content on a line of its own, an end mark.
_BLOCK: Final = re.compile(r"-{3,}BEGIN ([A-Z ]+?)-{3,}\s+([\w\-.=]+)\s+-{3,}END \1-{3,}")


def format_creds(jwt: str, seed: str) -> str:
    """The content of a creds file; a secret."""
    return _FORMAT.format(jwt=jwt, seed=seed)


def parse_creds(text: str) -> tuple[str, str]:
    """JWT and seed of a creds file; InvalidCredential when one is missing."""
    blocks = {match[1]: match[2] for match in _BLOCK.finditer(text)}
    for title in ("NATS USER JWT", "USER NKEY SEED"):
        if title not in blocks:
            raise InvalidCredential(f"The creds file has no block {title!r}.")
    return blocks["NATS USER JWT"], blocks["USER NKEY SEED"]
