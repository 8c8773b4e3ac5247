"""The sidecar of a leaf NATS server: gets its credentials, renders its configuration and keeps both fresh."""
