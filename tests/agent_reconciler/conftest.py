"""The reconciler's real side for real agents: fixtures of its own area, in a world of this one's own."""

from tests.reconciler_agents.conftest import cluster, listening, office, openbao, world

__all__ = ["cluster", "listening", "office", "openbao", "world"]
