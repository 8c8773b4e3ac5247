"""The networks of a host's containers, made with the CNI plugins that the host has (CNI specification 1.0.0).

requests      what a request asks for, checked (pure)
template      the conflist's template and its placeholders (pure)
conflist      the configuration of each plugin for one container (pure)
commands      runs a program with limits
plugins       speaks the CNI protocol to plugins
namespaces    network namespaces, and what is found in them
hostports     whether a program of the host has a port
masquerade    the nft table that hides containers from the outside
records       what was made, on disk
network       ContainerNetwork: the requests of abbot-proto
"""
