"""`make demo-mesh`: edge hosts, gateways and the cluster in one encrypted network."""
