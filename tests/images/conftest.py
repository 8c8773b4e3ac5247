"""The images, installed once for the tests of this area."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.images.build import Image, build


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Image]:
    """The image of a target of the Dockerfile."""
    built: dict[str, Image] = {}

    def get(target: str) -> Image:
        if target not in built:
            built[target] = build(target, tmp_path_factory.mktemp(target))
        return built[target]

    return get
