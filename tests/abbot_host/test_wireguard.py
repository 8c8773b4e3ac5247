"""WireGuard devices: what must change on them, and how it is said to wireguard-go and to the kernel."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic.wireguard import wgmsg

from abbot.netlink.wireguard import peer_arguments, read_device
from abbot.wireguard import uapi
from abbot.wireguard.device import Device, DeviceChange, PeerChange, PeerConfig, PeerTraffic
from abbot.wireguard.plan import plan, plan_return

KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(1, 7)]
prefixes = st.sampled_from([f"10.0.{number}.0/24" for number in range(6)])


@st.composite
def devices(draw: st.DrawFn) -> Device:
    """Devices of which no two peers have the same prefix: that cannot be."""
    owners = draw(st.dictionaries(prefixes, st.sampled_from(KEYS)))
    present = draw(st.sets(st.sampled_from(KEYS))) | set(owners.values())
    settings = st.builds(
        PeerConfig,
        st.sampled_from(["", *KEYS[:2]]),
        st.sampled_from(["", "192.0.2.1:1", "[2001:db8::1]:1"]),
        st.sampled_from([0, 25]),
    )
    peers = {}
    for key in sorted(present):
        one = draw(settings)
        allowed = tuple(prefix for prefix, owner in owners.items() if owner == key)
        peers[key] = PeerConfig(one.preshared_key, one.endpoint, one.keepalive, allowed)
    return Device(draw(st.sampled_from(KEYS)), draw(st.sampled_from([1, 2])), draw(st.sampled_from([0, 7])), peers)


class Simulated:
    """A device that does what it is told, as WireGuard does; `gaps` are prefixes that nobody had for a moment."""

    def __init__(self, device: Device) -> None:
        self.key, self.port, self.mark = device.private_key, device.listen_port, device.mark
        self.peers = dict(device.peers)
        self.allowed = {prefix: key for key, peer in device.peers.items() for prefix in peer.allowed}
        self.gaps: set[str] = set()

    def change(self, change: DeviceChange) -> None:
        self.key = self.key if change.private_key is None else change.private_key
        self.port = self.port if change.listen_port is None else change.listen_port
        self.mark = self.mark if change.mark is None else change.mark
        for one in change.peers:
            if one.remove or one.replace_allowed:
                lost = {prefix for prefix, owner in self.allowed.items() if owner == one.public_key}
                for prefix in lost:
                    del self.allowed[prefix]
                self.gaps |= lost - set(one.allowed)
            if one.remove:
                self.peers.pop(one.public_key, None)
                continue
            before = self.peers.get(one.public_key, PeerConfig())
            self.peers[one.public_key] = PeerConfig(
                before.preshared_key if one.preshared_key is None else one.preshared_key,
                one.endpoint or before.endpoint,
                before.keepalive if one.keepalive is None else one.keepalive,
            )
            self.allowed.update(dict.fromkeys(one.allowed, one.public_key))

    def device(self) -> Device:
        peers = {}
        for key, peer in self.peers.items():
            allowed = tuple(sorted(prefix for prefix, owner in self.allowed.items() if owner == key))
            peers[key] = PeerConfig(peer.preshared_key, peer.endpoint, peer.keepalive, allowed)
        return Device(self.key, self.port, self.mark, peers)


def _sorted(device: Device) -> Device:
    return Simulated(device).device()


@given(devices(), devices())
def test_a_change_leads_to_what_is_wanted_and_leaves_found_endpoints(current: Device, wanted: Device) -> None:
    simulated = Simulated(current)
    simulated.change(plan(current, wanted))
    for key, peer in simulated.device().peers.items():
        found = current.peers[key].endpoint if key in current.peers else ""
        assert peer.endpoint == (wanted.peers[key].endpoint or found)
    expected = {key: (one.preshared_key, one.keepalive, set(one.allowed)) for key, one in wanted.peers.items()}
    reached = simulated.device()
    assert {key: (p.preshared_key, p.keepalive, set(p.allowed)) for key, p in reached.peers.items()} == expected
    assert (reached.private_key, reached.listen_port, reached.mark) == (
        wanted.private_key,
        wanted.listen_port,
        wanted.mark,
    )


@given(devices(), devices())
def test_no_prefix_that_stays_is_without_a_peer_for_a_moment(current: Device, wanted: Device) -> None:
    simulated = Simulated(current)
    simulated.change(plan(current, wanted))
    assert not simulated.gaps & {prefix for peer in wanted.peers.values() for prefix in peer.allowed}


@given(devices(), devices())
def test_a_way_back_leads_exactly_back(before: Device, after: Device) -> None:
    simulated = Simulated(after)
    simulated.change(plan_return(after, before))
    assert simulated.device() == _sorted(before)


@given(devices())
def test_nothing_changes_on_a_device_that_is_as_wanted(device: Device) -> None:
    assert not plan(device, device)
    assert not plan_return(device, device)


def test_a_change_is_written_line_by_line() -> None:
    change = DeviceChange(
        private_key=KEYS[0],
        listen_port=51820,
        mark=7,
        peers=(
            PeerChange(KEYS[1], endpoint="[2001:db8::1]:7", keepalive=25, preshared_key="", allowed=("10.0.0.0/8",)),
            PeerChange(KEYS[2], replace_allowed=True, allowed=("fd00::/64",)),
            PeerChange(KEYS[3], remove=True),
        ),
    )
    assert uapi.write_change(change).splitlines() == [
        "set=1",
        f"private_key={'01' * 32}",
        "listen_port=51820",
        "fwmark=7",
        f"public_key={'02' * 32}",
        f"preshared_key={'00' * 32}",
        "endpoint=[2001:db8::1]:7",
        "persistent_keepalive_interval=25",
        "allowed_ip=10.0.0.0/8",
        f"public_key={'03' * 32}",
        "replace_allowed_ips=true",
        "allowed_ip=fd00::/64",
        f"public_key={'04' * 32}",
        "remove=true",
        "",
    ]
    assert all(key not in repr(change) for key in KEYS[:1])


def test_an_answer_is_read_peer_by_peer() -> None:
    answer = (
        f"private_key={'01' * 32}\nlisten_port=51820\nfwmark=7\n"
        f"public_key={'02' * 32}\npreshared_key={'00' * 32}\nprotocol_version=1\nendpoint=192.0.2.1:7\n"
        "last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=500000000\ntx_bytes=2\nrx_bytes=3\n"
        "persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::/64\n"
        f"public_key={'03' * 32}\npreshared_key={'04' * 32}\n"
    )
    device = uapi.read_device(answer)
    assert (device.private_key, device.listen_port, device.mark) == (KEYS[0], 51820, 7)
    assert device.peers == {
        KEYS[1]: PeerConfig("", "192.0.2.1:7", 25, ("10.0.0.0/8", "fd00::/64")),
        KEYS[2]: PeerConfig(KEYS[3]),
    }
    assert device.traffic == {KEYS[1]: PeerTraffic(1700000000.5, 3, 2), KEYS[2]: PeerTraffic()}
    assert KEYS[0] not in repr(device)
    assert KEYS[3] not in repr(device)
    assert uapi.read_device("") == Device()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (PeerChange(KEYS[0], remove=True), {"public_key": KEYS[0], "remove": True}),
        (PeerChange(KEYS[0]), {"public_key": KEYS[0], "replace_allowed_ips": False}),
        (
            PeerChange(KEYS[0], preshared_key="", endpoint="[2001:db8::1]:7", keepalive=5, allowed=("::/0",)),
            {
                "public_key": KEYS[0],
                "replace_allowed_ips": False,
                "preshared_key": "A" * 43 + "=",
                "endpoint_addr": "2001:db8::1",
                "endpoint_port": 7,
                "persistent_keepalive": 5,
                "allowed_ips": ["::/0"],
            },
        ),
    ],
)
def test_the_kernel_is_told_what_changes_on_a_peer(change: PeerChange, expected: dict[str, object]) -> None:
    assert peer_arguments(change) == expected


def test_a_device_of_the_kernel_is_read_also_when_a_peer_goes_on_in_the_next_message() -> None:
    def message(*attributes: list[object]) -> wgmsg:
        sent = wgmsg()
        sent["attrs"] = list(attributes)
        sent.encode()
        received = wgmsg(sent.data)
        received.decode()
        return received

    def allowed(prefix: bytes, length: int) -> dict[str, object]:
        attributes = [
            ["WGALLOWEDIP_A_FAMILY", 2],
            ["WGALLOWEDIP_A_IPADDR", prefix],
            ["WGALLOWEDIP_A_CIDR_MASK", length],
        ]
        return {"attrs": attributes}

    first = {
        "attrs": [
            ["WGPEER_A_PUBLIC_KEY", KEYS[1]],
            ["WGPEER_A_PRESHARED_KEY", "A" * 43 + "="],
            ["WGPEER_A_ENDPOINT", {"addr": "192.0.2.1", "port": 7}],
            ["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", 25],
            ["WGPEER_A_RX_BYTES", 3],
            ["WGPEER_A_TX_BYTES", 2],
            ["WGPEER_A_ALLOWEDIPS", [allowed(bytes([10, 0, 0, 0]), 8)]],
        ]
    }
    more = {"attrs": [["WGPEER_A_PUBLIC_KEY", KEYS[1]], ["WGPEER_A_ALLOWEDIPS", [allowed(bytes([10, 9, 0, 0]), 16)]]]}
    device = read_device(
        [
            message(
                ["WGDEVICE_A_PRIVATE_KEY", KEYS[0]],
                ["WGDEVICE_A_LISTEN_PORT", 51820],
                ["WGDEVICE_A_FWMARK", 7],
                ["WGDEVICE_A_PEERS", [first]],
            ),
            message(["WGDEVICE_A_PEERS", [more]]),
        ]
    )
    assert (device.private_key, device.listen_port, device.mark) == (KEYS[0], 51820, 7)
    assert device.peers == {KEYS[1]: PeerConfig("", "192.0.2.1:7", 25, ("10.0.0.0/8", "10.9.0.0/16"))}
    assert device.traffic == {KEYS[1]: PeerTraffic(0.0, 3, 2)}
