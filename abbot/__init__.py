"""abbot: makes the network of a host and of its containers, as abbot-proto asks for it."""
