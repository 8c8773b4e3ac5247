"""What stands in for the cluster's network: addresses of Services, a proxy that serves them, and uplinks to cut.

Everything is TCP between loopback addresses in user space. Each part forwards connections and decides by the node on
which the client runs; `clients` finds that out, `forward` moves the bytes.
"""
