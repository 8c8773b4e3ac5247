"""Controllers of the servers that the reconciler runs itself: OpenBao and NATS."""
