"""Fixtures of the tests of procedures that the documentation describes: those of the servers that are restored."""

from tests.reconciler_servers.conftest import api_server, world

__all__ = ["api_server", "world"]
