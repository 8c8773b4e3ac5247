"""The reconciler's vendor clients behind its ports; no other package here imports `kubernetes`, `hvac` or `nats`."""
