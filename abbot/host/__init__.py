"""The network of a host: interfaces as abbot-proto asks for them, kept, restored and mended.

`requests` checks what is asked, `wanted` decides what follows from it, `realise` makes it so, `transactions` takes it
back, `state` remembers it, and `network` puts these together.
"""

from abbot.host.network import HostNetwork, HostSettings, open_host_network

__all__ = ["HostNetwork", "HostSettings", "open_host_network"]
