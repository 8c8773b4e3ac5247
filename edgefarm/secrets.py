"""Masks whatever looks like a credential in text that is about to be printed; the last defence, not the first."""

from __future__ import annotations

import re
from typing import Final

#: Shapes of what must never be printed: JWTs, nkey seeds, Vault tokens, PEM private keys.
_SECRET: Final = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]+)?|\bS[OAUNCX][A-Z2-7]{56}\b|\b(?:hv)?[sb]\.[\w-]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"
)
MASK: Final = "[secret]"


def mask_secrets(text: str) -> str:
    """Replace whatever looks like a credential. Code must not rely on it: it is the net under the rope."""
    return _SECRET.sub(MASK, text)
