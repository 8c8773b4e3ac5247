"""`make bench-edge`: what leafs and streams cost beside plain nats-servers, and how long changes take to arrive."""
