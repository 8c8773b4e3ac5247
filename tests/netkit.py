"""What tests that make network namespaces share: the mark that skips them, and the fixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localcluster.netns import Namespaces, missing

_MISSING = missing()
needs_root_network = pytest.mark.skipif(
    _MISSING is not None, reason=f"tests with network namespaces are skipped: {_MISSING}"
)


@pytest.fixture
def spaces() -> Iterator[Namespaces]:
    """Network namespaces of this test; removed at its end."""
    with Namespaces() as made:
        yield made
