"""What a pod may do in its network, and with whom; decided from raw objects, without any I/O."""
