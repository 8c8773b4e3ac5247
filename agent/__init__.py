"""The node agent: runs the network command of its host for the reconciler."""
