"""Decisions as pure functions: from resources and observed facts to what NATS, Vault and Kubernetes shall hold."""
