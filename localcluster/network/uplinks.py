"""Uplinks: how pods reach servers outside of their node, so that one node's connection to the world can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, Self

from localcluster.client import Json
from localcluster.informer import Informer
from localcluster.network.forward import Address, Listener, Locate, Route
from localcluster.node.spec import UPLINK_ANNOTATION

_CUT: Final = "cut"


@dataclass(frozen=True)
class Uplink:
    """Connections to `listen` are forwarded to `target`."""

    listen: Address
    target: Address

    @classmethod
    def parse(cls, text: str) -> Self:
        """`host:port=host:port`; raises ValueError with what to write instead."""
        listen, _, target = text.partition("=")
        try:
            return cls(_address(listen), _address(target))
        except ValueError:
            raise ValueError(f"{text!r}: write an uplink as LISTEN=TARGET, host:port each") from None


class Uplinks:
    """Forwards for every client, except for pods of nodes whose annotation says `cut`."""

    def __init__(self, uplinks: Sequence[Uplink], nodes: Informer, locate: Locate) -> None:
        self._uplinks = uplinks
        self._nodes = nodes
        self._locate = locate
        self._listeners: list[Listener] = []

    async def run(self) -> None:
        """Forward until cancelled; raises OSError when an address cannot be had."""
        async with AsyncExitStack() as stack:
            for uplink in self._uplinks:
                listener = Listener.open(uplink.listen, self._locate, self._route_to(uplink.target))
                stack.callback(listener.abort)
                self._listeners.append(listener)
            self._nodes.listen(self._observe)
            await asyncio.Event().wait()

    def _observe(self, node: Json) -> None:
        name = node["metadata"]["name"]
        if self._is_cut(name):
            for listener in self._listeners:
                listener.reset(name)

    def _route_to(self, target: Address) -> Route:
        return lambda node: None if node is not None and self._is_cut(node) else target

    def _is_cut(self, name: str) -> bool:
        node = self._nodes.items.get(("", name))
        annotations = {} if node is None else node["metadata"].get("annotations") or {}
        return annotations.get(UPLINK_ANNOTATION) == _CUT


def _address(text: str) -> Address:
    host, separator, port = text.rpartition(":")
    if not separator or not host:
        raise ValueError
    return host, int(port)
