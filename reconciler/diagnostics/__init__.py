"""Answers `edgefarm doctor`: looks at Vault, NATS and what the informers have seen, and says what is wrong."""
