"""What a kubelet does for the containers of a pod, with local processes instead of containers."""
