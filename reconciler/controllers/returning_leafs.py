"""Knows to which leafs a network's account has to be sent once more, because they were away when it changed.

A leaf keeps the account's JWT and asks for it no more. What it missed while it was away it hears from nobody but us.
"""

from __future__ import annotations

from edgefarm import names
from reconciler.context import Context


class ReturningLeafs:
    """Compares the leafs' connections to the system account, over which they hear of accounts, with those that were
    there at the last push. After a start none is known, so each account is sent once to the leafs that are there.

    Whose leaf it is tells its name. Its connection in the network does not: the hub refuses that one as long as the
    leaf has old credentials, and just then its clients must hear that their keys are gone.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._served: dict[str, frozenset[str]] = {}

    def since_last_push(self, network: str, account: str) -> frozenset[str]:
        """Connections that the network's account has not been sent over; empty when nothing needs to be pushed."""
        leafs = (leaf for leaf in self._context.leafs().leafs if leaf.listening and leaf.account != account)
        listening = frozenset(leaf.connection for leaf in leafs if names.network_of_leaf(leaf.name) == network)
        return listening - self._served.get(account, frozenset())

    def pushed(self, account: str, connections: frozenset[str]) -> None:
        """Remember that the account was sent over these."""
        there = {leaf.connection for leaf in self._context.leafs().leafs}
        kept = (self._served.get(account, frozenset()) | connections) & there
        self._served = {**{other: ids for other, ids in self._served.items() if ids & there}, account: kept}
