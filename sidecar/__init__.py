"""The sidecar: gets a pod's NATS credentials through its service account, keeps them fresh, and runs Dapr."""
