from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RequestType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    _INVALID_REQUEST: _ClassVar[RequestType]
    REQ_ENSURE_CTR_NETWORK_CONFIG: _ClassVar[RequestType]
    REQ_QUERY_CTR_NETWORK_CONFIG: _ClassVar[RequestType]
    REQ_ENSURE_CTR_NETWORK: _ClassVar[RequestType]
    REQ_RESTORE_CTR_NETWORK: _ClassVar[RequestType]
    REQ_DELETE_CTR_NETWORK: _ClassVar[RequestType]
    REQ_QUERY_CTR_NETWORK: _ClassVar[RequestType]
    REQ_ENSURE_HOST_NETWORK_CONFIG: _ClassVar[RequestType]
    REQ_QUERY_HOST_NETWORK_CONFIG: _ClassVar[RequestType]

class ResponseType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    _INVALID_RESPONSE: _ClassVar[ResponseType]
    RESP_DONE: _ClassVar[ResponseType]
    RESP_CTR_NETWORK_CONFIG: _ClassVar[ResponseType]
    RESP_CTR_NETWORK_STATUS: _ClassVar[ResponseType]
    RESP_CTR_NETWORK_STATUS_LIST: _ClassVar[ResponseType]
    RESP_HOST_NETWORK_CONFIG: _ClassVar[ResponseType]
_INVALID_REQUEST: RequestType
REQ_ENSURE_CTR_NETWORK_CONFIG: RequestType
REQ_QUERY_CTR_NETWORK_CONFIG: RequestType
REQ_ENSURE_CTR_NETWORK: RequestType
REQ_RESTORE_CTR_NETWORK: RequestType
REQ_DELETE_CTR_NETWORK: RequestType
REQ_QUERY_CTR_NETWORK: RequestType
REQ_ENSURE_HOST_NETWORK_CONFIG: RequestType
REQ_QUERY_HOST_NETWORK_CONFIG: RequestType
_INVALID_RESPONSE: ResponseType
RESP_DONE: ResponseType
RESP_CTR_NETWORK_CONFIG: ResponseType
RESP_CTR_NETWORK_STATUS: ResponseType
RESP_CTR_NETWORK_STATUS_LIST: ResponseType
RESP_HOST_NETWORK_CONFIG: ResponseType

class Request(_message.Message):
    __slots__ = ("kind", "body")
    KIND_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    kind: RequestType
    body: bytes
    def __init__(self, kind: _Optional[_Union[RequestType, str]] = ..., body: _Optional[bytes] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("kind", "body")
    KIND_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    kind: ResponseType
    body: bytes
    def __init__(self, kind: _Optional[_Union[ResponseType, str]] = ..., body: _Optional[bytes] = ...) -> None: ...

class NetworkInterface(_message.Message):
    __slots__ = ("name", "mtu", "hardware_address", "addresses", "delete_on_exit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    DELETE_ON_EXIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    mtu: int
    hardware_address: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    delete_on_exit: bool
    def __init__(self, name: _Optional[str] = ..., mtu: _Optional[int] = ..., hardware_address: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., delete_on_exit: _Optional[bool] = ...) -> None: ...

class DriverUnknown(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DriverBridge(_message.Message):
    __slots__ = ("alias", "tx_queue_len", "promisc", "hairpin", "guard", "fastLeave", "root_block", "learning", "flood", "proxy_arp", "proxy_arp_wifi")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    TX_QUEUE_LEN_FIELD_NUMBER: _ClassVar[int]
    PROMISC_FIELD_NUMBER: _ClassVar[int]
    HAIRPIN_FIELD_NUMBER: _ClassVar[int]
    GUARD_FIELD_NUMBER: _ClassVar[int]
    FASTLEAVE_FIELD_NUMBER: _ClassVar[int]
    ROOT_BLOCK_FIELD_NUMBER: _ClassVar[int]
    LEARNING_FIELD_NUMBER: _ClassVar[int]
    FLOOD_FIELD_NUMBER: _ClassVar[int]
    PROXY_ARP_FIELD_NUMBER: _ClassVar[int]
    PROXY_ARP_WIFI_FIELD_NUMBER: _ClassVar[int]
    alias: str
    tx_queue_len: int
    promisc: bool
    hairpin: bool
    guard: bool
    fastLeave: bool
    root_block: bool
    learning: bool
    flood: bool
    proxy_arp: bool
    proxy_arp_wifi: bool
    def __init__(self, alias: _Optional[str] = ..., tx_queue_len: _Optional[int] = ..., promisc: _Optional[bool] = ..., hairpin: _Optional[bool] = ..., guard: _Optional[bool] = ..., fastLeave: _Optional[bool] = ..., root_block: _Optional[bool] = ..., learning: _Optional[bool] = ..., flood: _Optional[bool] = ..., proxy_arp: _Optional[bool] = ..., proxy_arp_wifi: _Optional[bool] = ...) -> None: ...

class DriverWireguard(_message.Message):
    __slots__ = ("log_level", "private_key", "listen_port", "routing", "peers", "public_key", "partial", "removed_peers")
    class Routing(_message.Message):
        __slots__ = ("enabled", "table", "firewall_mark")
        ENABLED_FIELD_NUMBER: _ClassVar[int]
        TABLE_FIELD_NUMBER: _ClassVar[int]
        FIREWALL_MARK_FIELD_NUMBER: _ClassVar[int]
        enabled: bool
        table: int
        firewall_mark: int
        def __init__(self, enabled: _Optional[bool] = ..., table: _Optional[int] = ..., firewall_mark: _Optional[int] = ...) -> None: ...
    class Peer(_message.Message):
        __slots__ = ("public_key", "pre_shared_key", "endpoint", "persistent_keepalive_interval", "allowed_ips", "use", "candidates", "last_handshake_ms", "rx_bytes", "tx_bytes", "alive", "carrying", "rtt_us")
        class Use(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            ALWAYS: _ClassVar[DriverWireguard.Peer.Use]
            WHEN_ALIVE: _ClassVar[DriverWireguard.Peer.Use]
        ALWAYS: DriverWireguard.Peer.Use
        WHEN_ALIVE: DriverWireguard.Peer.Use
        PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
        PRE_SHARED_KEY_FIELD_NUMBER: _ClassVar[int]
        ENDPOINT_FIELD_NUMBER: _ClassVar[int]
        PERSISTENT_KEEPALIVE_INTERVAL_FIELD_NUMBER: _ClassVar[int]
        ALLOWED_IPS_FIELD_NUMBER: _ClassVar[int]
        USE_FIELD_NUMBER: _ClassVar[int]
        CANDIDATES_FIELD_NUMBER: _ClassVar[int]
        LAST_HANDSHAKE_MS_FIELD_NUMBER: _ClassVar[int]
        RX_BYTES_FIELD_NUMBER: _ClassVar[int]
        TX_BYTES_FIELD_NUMBER: _ClassVar[int]
        ALIVE_FIELD_NUMBER: _ClassVar[int]
        CARRYING_FIELD_NUMBER: _ClassVar[int]
        RTT_US_FIELD_NUMBER: _ClassVar[int]
        public_key: str
        pre_shared_key: str
        endpoint: str
        persistent_keepalive_interval: int
        allowed_ips: _containers.RepeatedScalarFieldContainer[str]
        use: DriverWireguard.Peer.Use
        candidates: _containers.RepeatedScalarFieldContainer[str]
        last_handshake_ms: int
        rx_bytes: int
        tx_bytes: int
        alive: bool
        carrying: bool
        rtt_us: int
        def __init__(self, public_key: _Optional[str] = ..., pre_shared_key: _Optional[str] = ..., endpoint: _Optional[str] = ..., persistent_keepalive_interval: _Optional[int] = ..., allowed_ips: _Optional[_Iterable[str]] = ..., use: _Optional[_Union[DriverWireguard.Peer.Use, str]] = ..., candidates: _Optional[_Iterable[str]] = ..., last_handshake_ms: _Optional[int] = ..., rx_bytes: _Optional[int] = ..., tx_bytes: _Optional[int] = ..., alive: _Optional[bool] = ..., carrying: _Optional[bool] = ..., rtt_us: _Optional[int] = ...) -> None: ...
    LOG_LEVEL_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_KEY_FIELD_NUMBER: _ClassVar[int]
    LISTEN_PORT_FIELD_NUMBER: _ClassVar[int]
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    REMOVED_PEERS_FIELD_NUMBER: _ClassVar[int]
    log_level: str
    private_key: str
    listen_port: int
    routing: DriverWireguard.Routing
    peers: _containers.RepeatedCompositeFieldContainer[DriverWireguard.Peer]
    public_key: str
    partial: bool
    removed_peers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, log_level: _Optional[str] = ..., private_key: _Optional[str] = ..., listen_port: _Optional[int] = ..., routing: _Optional[_Union[DriverWireguard.Routing, _Mapping]] = ..., peers: _Optional[_Iterable[_Union[DriverWireguard.Peer, _Mapping]]] = ..., public_key: _Optional[str] = ..., partial: _Optional[bool] = ..., removed_peers: _Optional[_Iterable[str]] = ...) -> None: ...

class HostNetworkInterface(_message.Message):
    __slots__ = ("metadata", "provider", "unknown", "bridge", "wireguard")
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    BRIDGE_FIELD_NUMBER: _ClassVar[int]
    WIREGUARD_FIELD_NUMBER: _ClassVar[int]
    metadata: NetworkInterface
    provider: str
    unknown: DriverUnknown
    bridge: DriverBridge
    wireguard: DriverWireguard
    def __init__(self, metadata: _Optional[_Union[NetworkInterface, _Mapping]] = ..., provider: _Optional[str] = ..., unknown: _Optional[_Union[DriverUnknown, _Mapping]] = ..., bridge: _Optional[_Union[DriverBridge, _Mapping]] = ..., wireguard: _Optional[_Union[DriverWireguard, _Mapping]] = ...) -> None: ...

class HostNetworkConfigEnsureRequest(_message.Message):
    __slots__ = ("provider", "expected")
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    provider: str
    expected: _containers.RepeatedCompositeFieldContainer[HostNetworkInterface]
    def __init__(self, provider: _Optional[str] = ..., expected: _Optional[_Iterable[_Union[HostNetworkInterface, _Mapping]]] = ...) -> None: ...

class HostNetworkConfigQueryRequest(_message.Message):
    __slots__ = ("providers",)
    PROVIDERS_FIELD_NUMBER: _ClassVar[int]
    providers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, providers: _Optional[_Iterable[str]] = ...) -> None: ...

class HostNetworkConfigResponse(_message.Message):
    __slots__ = ("actual",)
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    actual: _containers.RepeatedCompositeFieldContainer[HostNetworkInterface]
    def __init__(self, actual: _Optional[_Iterable[_Union[HostNetworkInterface, _Mapping]]] = ...) -> None: ...

class CNICapArgs(_message.Message):
    __slots__ = ("port_map_arg", "bandwidth_arg", "ip_range_arg", "dns_config_arg", "ip_addresses_arg", "mac_address_arg", "infiniband_guid_arg", "device_id_arg")
    class PortMap(_message.Message):
        __slots__ = ("container_port", "host_port", "protocol", "host_ip")
        CONTAINER_PORT_FIELD_NUMBER: _ClassVar[int]
        HOST_PORT_FIELD_NUMBER: _ClassVar[int]
        PROTOCOL_FIELD_NUMBER: _ClassVar[int]
        HOST_IP_FIELD_NUMBER: _ClassVar[int]
        container_port: int
        host_port: int
        protocol: str
        host_ip: str
        def __init__(self, container_port: _Optional[int] = ..., host_port: _Optional[int] = ..., protocol: _Optional[str] = ..., host_ip: _Optional[str] = ...) -> None: ...
    class Bandwidth(_message.Message):
        __slots__ = ("ingress_rate", "ingress_burst", "egress_rate", "egress_burst")
        INGRESS_RATE_FIELD_NUMBER: _ClassVar[int]
        INGRESS_BURST_FIELD_NUMBER: _ClassVar[int]
        EGRESS_RATE_FIELD_NUMBER: _ClassVar[int]
        EGRESS_BURST_FIELD_NUMBER: _ClassVar[int]
        ingress_rate: int
        ingress_burst: int
        egress_rate: int
        egress_burst: int
        def __init__(self, ingress_rate: _Optional[int] = ..., ingress_burst: _Optional[int] = ..., egress_rate: _Optional[int] = ..., egress_burst: _Optional[int] = ...) -> None: ...
    class IPRange(_message.Message):
        __slots__ = ("subnet", "range_start", "range_end", "gateway")
        SUBNET_FIELD_NUMBER: _ClassVar[int]
        RANGE_START_FIELD_NUMBER: _ClassVar[int]
        RANGE_END_FIELD_NUMBER: _ClassVar[int]
        GATEWAY_FIELD_NUMBER: _ClassVar[int]
        subnet: str
        range_start: str
        range_end: str
        gateway: str
        def __init__(self, subnet: _Optional[str] = ..., range_start: _Optional[str] = ..., range_end: _Optional[str] = ..., gateway: _Optional[str] = ...) -> None: ...
    class DNSConfig(_message.Message):
        __slots__ = ("servers", "searches", "options")
        SERVERS_FIELD_NUMBER: _ClassVar[int]
        SEARCHES_FIELD_NUMBER: _ClassVar[int]
        OPTIONS_FIELD_NUMBER: _ClassVar[int]
        servers: _containers.RepeatedScalarFieldContainer[str]
        searches: _containers.RepeatedScalarFieldContainer[str]
        options: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, servers: _Optional[_Iterable[str]] = ..., searches: _Optional[_Iterable[str]] = ..., options: _Optional[_Iterable[str]] = ...) -> None: ...
    class IPAddresses(_message.Message):
        __slots__ = ("ips",)
        IPS_FIELD_NUMBER: _ClassVar[int]
        ips: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, ips: _Optional[_Iterable[str]] = ...) -> None: ...
    class MacAddress(_message.Message):
        __slots__ = ("mac",)
        MAC_FIELD_NUMBER: _ClassVar[int]
        mac: str
        def __init__(self, mac: _Optional[str] = ...) -> None: ...
    class InfinibandGUID(_message.Message):
        __slots__ = ("infiniband_guid",)
        INFINIBAND_GUID_FIELD_NUMBER: _ClassVar[int]
        infiniband_guid: str
        def __init__(self, infiniband_guid: _Optional[str] = ...) -> None: ...
    class DeviceID(_message.Message):
        __slots__ = ("device_id",)
        DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
        device_id: str
        def __init__(self, device_id: _Optional[str] = ...) -> None: ...
    PORT_MAP_ARG_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_ARG_FIELD_NUMBER: _ClassVar[int]
    IP_RANGE_ARG_FIELD_NUMBER: _ClassVar[int]
    DNS_CONFIG_ARG_FIELD_NUMBER: _ClassVar[int]
    IP_ADDRESSES_ARG_FIELD_NUMBER: _ClassVar[int]
    MAC_ADDRESS_ARG_FIELD_NUMBER: _ClassVar[int]
    INFINIBAND_GUID_ARG_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_ARG_FIELD_NUMBER: _ClassVar[int]
    port_map_arg: CNICapArgs.PortMap
    bandwidth_arg: CNICapArgs.Bandwidth
    ip_range_arg: CNICapArgs.IPRange
    dns_config_arg: CNICapArgs.DNSConfig
    ip_addresses_arg: CNICapArgs.IPAddresses
    mac_address_arg: CNICapArgs.MacAddress
    infiniband_guid_arg: CNICapArgs.InfinibandGUID
    device_id_arg: CNICapArgs.DeviceID
    def __init__(self, port_map_arg: _Optional[_Union[CNICapArgs.PortMap, _Mapping]] = ..., bandwidth_arg: _Optional[_Union[CNICapArgs.Bandwidth, _Mapping]] = ..., ip_range_arg: _Optional[_Union[CNICapArgs.IPRange, _Mapping]] = ..., dns_config_arg: _Optional[_Union[CNICapArgs.DNSConfig, _Mapping]] = ..., ip_addresses_arg: _Optional[_Union[CNICapArgs.IPAddresses, _Mapping]] = ..., mac_address_arg: _Optional[_Union[CNICapArgs.MacAddress, _Mapping]] = ..., infiniband_guid_arg: _Optional[_Union[CNICapArgs.InfinibandGUID, _Mapping]] = ..., device_id_arg: _Optional[_Union[CNICapArgs.DeviceID, _Mapping]] = ...) -> None: ...

class ContainerNetworkConfigEnsureRequest(_message.Message):
    __slots__ = ("ipv4_subnet", "ipv6_subnet", "dns")
    IPV4_SUBNET_FIELD_NUMBER: _ClassVar[int]
    IPV6_SUBNET_FIELD_NUMBER: _ClassVar[int]
    DNS_FIELD_NUMBER: _ClassVar[int]
    ipv4_subnet: str
    ipv6_subnet: str
    dns: CNICapArgs.DNSConfig
    def __init__(self, ipv4_subnet: _Optional[str] = ..., ipv6_subnet: _Optional[str] = ..., dns: _Optional[_Union[CNICapArgs.DNSConfig, _Mapping]] = ...) -> None: ...

class ContainerNetworkConfigQueryRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ContainerNetworkConfigResponse(_message.Message):
    __slots__ = ("ipv4_subnet", "ipv6_subnet", "dns")
    IPV4_SUBNET_FIELD_NUMBER: _ClassVar[int]
    IPV6_SUBNET_FIELD_NUMBER: _ClassVar[int]
    DNS_FIELD_NUMBER: _ClassVar[int]
    ipv4_subnet: str
    ipv6_subnet: str
    dns: CNICapArgs.DNSConfig
    def __init__(self, ipv4_subnet: _Optional[str] = ..., ipv6_subnet: _Optional[str] = ..., dns: _Optional[_Union[CNICapArgs.DNSConfig, _Mapping]] = ...) -> None: ...

class ContainerNetworkEnsureRequest(_message.Message):
    __slots__ = ("container_id", "pid", "cap_args", "cni_args", "netns", "interface_name")
    class CniArgsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    CAP_ARGS_FIELD_NUMBER: _ClassVar[int]
    CNI_ARGS_FIELD_NUMBER: _ClassVar[int]
    NETNS_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_NAME_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    pid: int
    cap_args: _containers.RepeatedCompositeFieldContainer[CNICapArgs]
    cni_args: _containers.ScalarMap[str, str]
    netns: str
    interface_name: str
    def __init__(self, container_id: _Optional[str] = ..., pid: _Optional[int] = ..., cap_args: _Optional[_Iterable[_Union[CNICapArgs, _Mapping]]] = ..., cni_args: _Optional[_Mapping[str, str]] = ..., netns: _Optional[str] = ..., interface_name: _Optional[str] = ...) -> None: ...

class ContainerNetworkRestoreRequest(_message.Message):
    __slots__ = ("container_id", "pid", "netns")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    NETNS_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    pid: int
    netns: str
    def __init__(self, container_id: _Optional[str] = ..., pid: _Optional[int] = ..., netns: _Optional[str] = ...) -> None: ...

class ContainerNetworkDeleteRequest(_message.Message):
    __slots__ = ("container_id", "pid", "netns")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    NETNS_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    pid: int
    netns: str
    def __init__(self, container_id: _Optional[str] = ..., pid: _Optional[int] = ..., netns: _Optional[str] = ...) -> None: ...

class ContainerNetworkQueryRequest(_message.Message):
    __slots__ = ("container_id", "pid", "netns")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    NETNS_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    pid: int
    netns: str
    def __init__(self, container_id: _Optional[str] = ..., pid: _Optional[int] = ..., netns: _Optional[str] = ...) -> None: ...

class ContainerNetworkStatusResponse(_message.Message):
    __slots__ = ("pid", "interfaces")
    PID_FIELD_NUMBER: _ClassVar[int]
    INTERFACES_FIELD_NUMBER: _ClassVar[int]
    pid: int
    interfaces: _containers.RepeatedCompositeFieldContainer[NetworkInterface]
    def __init__(self, pid: _Optional[int] = ..., interfaces: _Optional[_Iterable[_Union[NetworkInterface, _Mapping]]] = ...) -> None: ...

class ContainerNetworkStatusListResponse(_message.Message):
    __slots__ = ("container_networks",)
    class ContainerNetworksEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ContainerNetworkStatusResponse
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ContainerNetworkStatusResponse, _Mapping]] = ...) -> None: ...
    CONTAINER_NETWORKS_FIELD_NUMBER: _ClassVar[int]
    container_networks: _containers.MessageMap[str, ContainerNetworkStatusResponse]
    def __init__(self, container_networks: _Optional[_Mapping[str, ContainerNetworkStatusResponse]] = ...) -> None: ...
