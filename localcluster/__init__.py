"""The embedded default: a Kubernetes good enough for demo and tests, with a real OpenBao and a real NATS beside it."""
