"""The reconciler's vendor clients behind its ports; nothing else may import `kubernetes` (kube) or `nats` (nats)."""
