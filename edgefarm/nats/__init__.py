"""NATS identity as values: nkeys, JWTs, claims, creds files, subjects, server configuration. No connection is made."""
