"""The admission webhook: puts the network sidecar into labelled pods. It has no rights in the cluster and no state."""
