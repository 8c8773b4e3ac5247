"""Hosts in namespaces for the tests of the host's network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster.netns import Namespaces
from tests.abbot_host.kit import Host
from tests.netkit import spaces

__all__ = ["spaces"]


@pytest.fixture
def make_host(spaces: Namespaces, tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Makes hosts by name; `auto` is the backend unless another is named."""
    made: list[Host] = []

    def make(name: str, backend: str = "auto", program: str = "wireguard-go") -> Host:
        made.append(Host(spaces.add(name), tmp_path, backend, program))
        return made[-1]

    yield make
    for host in made:
        host.disconnect()


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    """One host."""
    return make_host("a")


@pytest.fixture
def pair(make_host: Callable[..., Host], spaces: Namespaces) -> tuple[Host, Host]:
    """Two hosts with a cable between them: 192.0.2.1 and 192.0.2.2."""
    one, other = make_host("a"), make_host("b")
    spaces.link(one.space, "eth0", other.space, "eth0", a_addresses=["192.0.2.1/24"], b_addresses=["192.0.2.2/24"])
    return one, other
