"""Points links from the documentation to other files of the project at its repository, and checks that they exist."""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
_LINK: Final = re.compile(r"(\]\()(\.\./[^)\s#]*)")
_FENCE: Final = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
_LOG: Final = logging.getLogger("mkdocs.hooks.outside")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_rest: Any) -> str:
    """A hook of MkDocs: the page's text with such links replaced. Dead ones are warned of: a strict build ends."""
    parts = _FENCE.split(markdown)
    return "".join(
        part if part.startswith("```") else outside_links(part, page.file.src_uri, config["repo_url"]) for part in parts
    )


def outside_links(text: str, page: str, repository: str) -> str:
    """`page` is the path of the page below docs/."""

    def replaced(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), match[2]))
        if path.startswith("docs/"):
            return match[0]
        if not (ROOT / path).exists():
            _LOG.warning("%s links to %s, which does not exist", page, path)
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"{match[1]}{repository}/{kind}/main/{path}"

    return _LINK.sub(replaced, text)
