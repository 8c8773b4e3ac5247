"""One message of each kind of request and response, and its bytes on the wire, computed by hand.

Each field is a tag (field number << 3 | wire type: 0 varint, 2 length and content), then its value. proto3 leaves out
fields that are zero or empty.
"""

from __future__ import annotations

from typing import Final

from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.abbotproto.envelope import RequestBody, ResponseBody

Peer = pb.DriverWireguard.Peer

#: Request: 08 kind, 12 length body. Kind 11 = 0b, 12 = 0c, 21 = 15, 22 = 16, 23 = 17, 24 = 18, 31 = 1f, 32 = 20.
REQUESTS: Final[dict[str, tuple[RequestBody, str]]] = {
    "ensure container config": (
        # ipv4_subnet 0a 0c "10.42.3.0/24", ipv6_subnet 12 09 "fd00::/64": 14 + 11 = 25 = 19.
        pb.ContainerNetworkConfigEnsureRequest(ipv4_subnet="10.42.3.0/24", ipv6_subnet="fd00::/64"),
        "080b 1219 0a0c 31302e34322e332e302f3234 1209 666430303a3a2f3634",
    ),
    "ensure container config with DNS": (
        # dns is 1001: 1001 << 3 | 2 = 8010 = 0x1f4a; as varint the low seven bits 4a | 80 = ca, then 0x1f4a >> 7 = 3e.
        # Its servers: 0a 07 "1.1.1.1" (9 bytes); the body has 3 + 9 = 12 bytes.
        pb.ContainerNetworkConfigEnsureRequest(dns=pb.CNICapArgs.DNSConfig(servers=["1.1.1.1"])),
        "080b 120c ca3e 09 0a07 312e312e312e31",
    ),
    "query container config": (pb.ContainerNetworkConfigQueryRequest(), "080c"),
    "ensure container": (
        # container_id 0a 02 "c1"; pid 300 = 0b10_0101100: 10 ac 02;
        # cap_args 1a: PortMap (oneof 1) of container_port 80 (08 50), host_port 8080 = 0b111111_0010000 (10 90 3f),
        # protocol (1a 03 "tcp"): 10 bytes, so 0a 0a, and 12 for the CNICapArgs;
        # cni_args 22: key 0a 01 "k", value 12 01 "v".
        pb.ContainerNetworkEnsureRequest(
            container_id="c1",
            pid=300,
            cap_args=[
                pb.CNICapArgs(port_map_arg=pb.CNICapArgs.PortMap(container_port=80, host_port=8080, protocol="tcp"))
            ],
            cni_args={"k": "v"},
        ),
        "0815 121d 0a02 6331 10ac02 1a0c 0a0a 0850 10903f 1a03 746370 2206 0a01 6b 1201 76",
    ),
    "ensure container in a netns": (
        # netns 1001: ca 3e 01 "/"; interface_name 1002: 1002 << 3 | 2 = 8018 = 0x1f52: d2 3e 02 "e0".
        pb.ContainerNetworkEnsureRequest(container_id="c1", netns="/", interface_name="e0"),
        "0815 120d 0a02 6331 ca3e 01 2f d23e 02 6530",
    ),
    "restore container": (
        pb.ContainerNetworkRestoreRequest(container_id="c1", pid=1),
        "0816 1206 0a02 6331 1001",
    ),
    "delete container": (
        # netns "/n": ca 3e 02 2f 6e.
        pb.ContainerNetworkDeleteRequest(container_id="c1", netns="/n"),
        "0817 1209 0a02 6331 ca3e 02 2f6e",
    ),
    "query container": (pb.ContainerNetworkQueryRequest(container_id="c1"), "0818 1204 0a02 6331"),
    "ensure host": (
        # HostNetworkInterface: metadata 0a {name 0a 03 "wg0", mtu 1420 = 0b1011_0001100: 10 8c 0b}: 8 bytes;
        # wireguard (12) 62 {listen_port 51820 = 0b11_0010100_1101100: 18 ec 94 03; routing 22 {enabled 08 01};
        # peers 2a {public_key 0a 01 "K", endpoint 1a 03 "a:1", keepalive 25: 20 19, allowed_ips 2a 01 "p"}: 13 bytes}.
        # wireguard: 4 + 4 + 15 = 23 = 17; interface: 10 + 25 = 35 = 23;
        # body: provider 0a 01 "m" and 12 23: 3 + 37 = 40.
        pb.HostNetworkConfigEnsureRequest(
            provider="m",
            expected=[
                pb.HostNetworkInterface(
                    metadata=pb.NetworkInterface(name="wg0", mtu=1420),
                    wireguard=pb.DriverWireguard(
                        listen_port=51820,
                        routing=pb.DriverWireguard.Routing(enabled=True),
                        peers=[
                            Peer(public_key="K", endpoint="a:1", persistent_keepalive_interval=25, allowed_ips=["p"])
                        ],
                    ),
                )
            ],
        ),
        "081f 1228 0a01 6d 1223 0a08 0a03 776730 108c0b 6217 18ec9403 2202 0801 2a0d 0a01 4b 1a03 613a31 2019 2a01 70",
    ),
    "ensure host with a partial change": (
        # peers 2a {use 1001 as varint: 1001 << 3 = 8008 = 0x1f48: c8 3e 01; candidates 1002: d2 3e 01 "c"}: 7 bytes;
        # partial 1002: 8016 = 0x1f50: d0 3e 01; removed_peers 1003: 1003 << 3 | 2 = 8026 = 0x1f5a: da 3e 01 "R".
        # wireguard: 9 + 3 + 4 = 16 = 10; interface: 62 10 and that: 18 = 12; body: 20 = 14.
        pb.HostNetworkConfigEnsureRequest(
            expected=[
                pb.HostNetworkInterface(
                    wireguard=pb.DriverWireguard(
                        peers=[Peer(use=Peer.WHEN_ALIVE, candidates=["c"])], partial=True, removed_peers=["R"]
                    )
                )
            ]
        ),
        "081f 1214 1212 6210 2a07 c83e 01 d23e 01 63 d03e 01 da3e 01 52",
    ),
    "query host": (
        pb.HostNetworkConfigQueryRequest(providers=["a", "bc"]),
        "0820 1207 0a01 61 0a02 6263",
    ),
}

#: Response: 08 kind, 12 length body. Kind 1, 11 = 0b, 21 = 15, 22 = 16, 31 = 1f.
RESPONSES: Final[dict[str, tuple[ResponseBody, str]]] = {
    "done": (None, "0801"),
    "container config": (
        pb.ContainerNetworkConfigResponse(ipv4_subnet="10.0.0.0/8"),
        "080b 120c 0a0a 31302e302e302e302f38",
    ),
    "container status": (
        # pid 08 07; interfaces 12 {name 0a 04 "eth0", hardware_address 1a 01 "m", addresses 22 01 "a"}: 12 = 0c bytes.
        pb.ContainerNetworkStatusResponse(
            pid=7, interfaces=[pb.NetworkInterface(name="eth0", hardware_address="m", addresses=["a"])]
        ),
        "0815 1210 0807 120c 0a04 65746830 1a01 6d 2201 61",
    ),
    "container status list": (
        # An entry: key 0a 02 "c1", value 12 02 {pid 08 07}: 8 bytes.
        pb.ContainerNetworkStatusListResponse(container_networks={"c1": pb.ContainerNetworkStatusResponse(pid=7)}),
        "0816 120a 0a08 0a02 6331 1202 0807",
    ),
    "host config with an unmanaged interface": (
        # actual 0a {metadata 0a {name 0a 02 "lo", delete_on_exit 28 01}; provider 12 01 "p"; unknown (10) 52 00}.
        pb.HostNetworkConfigResponse(
            actual=[
                pb.HostNetworkInterface(
                    metadata=pb.NetworkInterface(name="lo", delete_on_exit=True),
                    provider="p",
                    unknown=pb.DriverUnknown(),
                )
            ]
        ),
        "081f 120f 0a0d 0a06 0a02 6c6f 2801 1201 70 5200",
    ),
    "host config with a bridge": (
        # bridge (11) 5a {alias 0a 01 "x", tx_queue_len 10 05, promisc 18 01, hairpin (11) 58 01, guard 60 01,
        # fastLeave 68 01, root_block 70 01, learning 78 01, flood (16) 80 01 01, proxy_arp 88 01 01,
        # proxy_arp_wifi 90 01 01}: 3 + 2 + 2 + 5 * 2 + 3 * 3 = 26 = 1a.
        pb.HostNetworkConfigResponse(
            actual=[
                pb.HostNetworkInterface(
                    bridge=pb.DriverBridge(
                        alias="x",
                        tx_queue_len=5,
                        promisc=True,
                        hairpin=True,
                        guard=True,
                        fastLeave=True,
                        root_block=True,
                        learning=True,
                        flood=True,
                        proxy_arp=True,
                        proxy_arp_wifi=True,
                    )
                )
            ]
        ),
        "081f 121e 0a1c 5a1a 0a01 78 1005 1801 5801 6001 6801 7001 7801 800101 880101 900101",
    ),
    "host config with a tunnel": (
        # peers 2a {last_handshake_ms (1011) 1011 << 3 = 8088 = 0x1f98: 98 3f 01; rx_bytes a0 3f 02; tx_bytes a8 3f 03;
        # alive b0 3f 01; carrying b8 3f 01; rtt_us (1016) 8128 = 0x1fc0: c0 3f 04}: 18 = 12 bytes;
        # public_key of the device (1001): ca 3e 01 "P". wireguard: 20 + 4 = 24 = 18; actual: 26 = 1a; body: 28 = 1c.
        pb.HostNetworkConfigResponse(
            actual=[
                pb.HostNetworkInterface(
                    wireguard=pb.DriverWireguard(
                        peers=[Peer(last_handshake_ms=1, rx_bytes=2, tx_bytes=3, alive=True, carrying=True, rtt_us=4)],
                        public_key="P",
                    )
                )
            ]
        ),
        "081f 121c 0a1a 6218 2a12 983f01 a03f02 a83f03 b03f01 b83f01 c03f04 ca3e 01 50",
    ),
}
