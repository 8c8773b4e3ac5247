"""The kernel's network over netlink: the only package that imports pyroute2.

`values` holds what the kernel knows, `rtnl` reads and changes links, addresses, routes and rules, `wireguard` speaks to
the kernel's WireGuard.
"""
