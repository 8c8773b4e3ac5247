"""The controller: turns Networks and Policies into NATS accounts, signing keys and grants in Vault."""
