"""Knows to which leafs a network's account has to be sent once more, because they were away when it changed.

A leaf keeps the account's JWT and asks for it no more. What it missed while it was away it hears from nobody but us.
"""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.context import Context
from reconciler.ports import LeafOnHub


class ReturningLeafs:
    """Compares the leafs' connections to the system account, over which they hear of accounts, with those that were
    there at the last push. After a start none is known, so each account is sent once to the leafs that are there."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._served: dict[str, frozenset[str]] = {}

    def since_last_push(self, account: str) -> frozenset[str]:
        """Connections that the account has not been sent over; empty when nothing needs to be pushed."""
        return self._listening(account) - self._served.get(account, frozenset())

    def pushed(self, account: str, connections: frozenset[str]) -> None:
        """Remember that the account was sent over these."""
        there = {leaf.connection for leaf in self._context.leafs().leafs}
        kept = (self._served.get(account, frozenset()) | connections) & there
        self._served = {**{other: ids for other, ids in self._served.items() if ids & there}, account: kept}

    def accounts_of(self, leafs: Iterable[LeafOnHub]) -> frozenset[str]:
        """The accounts that these connections are about: their own, and that of the same leaf's other connection."""
        changed = list(leafs)
        servers = {leaf.name for leaf in changed}
        return frozenset(leaf.account for leaf in [*changed, *self._context.leafs().leafs] if leaf.name in servers)

    def _listening(self, account: str) -> frozenset[str]:
        leafs = self._context.leafs().leafs
        servers = {leaf.name for leaf in leafs if leaf.account == account}
        return frozenset(
            leaf.connection for leaf in leafs if leaf.name in servers and leaf.account != account and leaf.listening
        )
