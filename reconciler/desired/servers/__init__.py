"""Decides what the servers are that the reconciler runs itself: OpenBao and NATS."""
