"""What each plugin of a conflist is given for one container. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from abbot.container.requests import Arguments, Dns
from abbot.container.template import Conflist, Plugin
from edgefarm.errors import NetworkFailed


def chain(conflist: Conflist, arguments: Arguments, dns: Dns, ips: Sequence[str] = ()) -> tuple[Plugin, ...]:
    """The configurations of the plugins for a container, in the order in which they make its network.

    A plugin gets the capability arguments that it declares. `dns` is for containers that ask for none; `ips` are wished
    for where the container itself names no addresses. NetworkFailed when nobody can give what was asked for.
    """
    runtime = dict(arguments.runtime)
    if ips:
        runtime.setdefault("ips", list(ips))
    _refuse_unserved(conflist, arguments)
    chosen = [plugin for plugin in conflist.plugins if plugin.get("onlyWith") in (None, *runtime)]
    return tuple(
        _plugin_config(conflist, plugin, runtime, arguments.cni)
        | _dns_config(plugin, runtime, dns, first=plugin is chosen[0])
        for plugin in chosen
    )


def cni_args(arguments: Arguments) -> str:
    """CNI_ARGS: `NAME=value;…`. Plugins refuse names that they do not know unless they are told not to."""
    if not arguments.cni:
        return ""
    return ";".join(f"{name}={value}" for name, value in {"IgnoreUnknown": "1", **arguments.cni}.items())


def _refuse_unserved(conflist: Conflist, arguments: Arguments) -> None:
    served = {name for plugin in conflist.plugins for name, wanted in plugin.get("capabilities", {}).items() if wanted}
    # Every network can have a resolver configuration: it is a fact about it, which no plugin has to act upon.
    unserved = sorted(arguments.runtime.keys() - served - {"dns"})
    if unserved:
        raise NetworkFailed(
            f"no plugin of the conflist {conflist.name!r} has the capability {', '.join(unserved)}: leave it out of the"
            " request, or add such a plugin to the template"
        )


def _plugin_config(
    conflist: Conflist, plugin: Plugin, runtime: Mapping[str, Any], cni: Mapping[str, str]
) -> dict[str, Any]:
    declared = plugin.get("capabilities", {})
    config = {name: member for name, member in plugin.items() if name not in ("onlyWith", "capabilities")}
    config |= {"cniVersion": conflist.version, "name": conflist.name}
    own = {name: value for name, value in runtime.items() if declared.get(name)}
    if own:
        config["runtimeConfig"] = own
    if cni:
        # https://github.com/containernetworking/cni/blob/main/CONVENTIONS.md: `ips` is the one list among them.
        values = {name: value.split(",") if name == "ips" else value for name, value in cni.items()}
        config["args"] = {**plugin.get("args", {}), "cni": values}
    if "ipRanges" in own:
        config["ipam"] = _without_own_ranges(plugin.get("ipam", {}), own["ipRanges"])
    return config


def _without_own_ranges(ipam: Mapping[str, Any], asked: Sequence[Sequence[Mapping[str, str]]]) -> dict[str, Any]:
    """The IPAM configuration less its ranges of the families that the container has asked ranges of.

    host-local gives an address of each range set, and refuses sets that overlap.
    """
    families = {_family(ranges) for ranges in asked}
    kept = [ranges for ranges in ipam.get("ranges", ()) if _family(ranges) not in families]
    return {**ipam, "ranges": kept}


def _family(ranges: Sequence[Mapping[str, str]]) -> int:
    return ipaddress.ip_network(ranges[0]["subnet"], strict=False).version


def _dns_config(plugin: Plugin, runtime: Mapping[str, Any], dns: Dns, *, first: bool) -> dict[str, Any]:
    """The member `dns`, which the main plugin repeats in its result, unless the template sets it."""
    asked = runtime.get("dns")
    servers, searches, options = (
        (asked["servers"], asked["searches"], asked["options"]) if asked else (dns.servers, dns.searches, dns.options)
    )
    if not first or "dns" in plugin or not (servers or searches or options):
        return {}
    return {"dns": {"nameservers": list(servers), "search": list(searches), "options": list(options)}}


def refuse_foreign_ranges(arguments: Arguments, subnets: Sequence[str]) -> None:
    """NetworkFailed when a range is not of the host's subnets, or has another gateway.

    The host has one bridge, with one gateway address a family, and the mesh leads its subnets only to this host.
    """
    for ranges in arguments.runtime.get("ipRanges", ()):
        for wanted in ranges:
            network = ipaddress.ip_network(wanted["subnet"])
            gateway = str(network[1])
            if str(network) not in subnets or wanted.get("gateway", gateway) != gateway:
                raise NetworkFailed(
                    f"the ip range {network} with gateway {wanted.get('gateway', gateway)} does not fit the host's"
                    f" subnets ({', '.join(subnets)}), whose gateways are their first addresses: choose addresses in"
                    " them by range_start and range_end"
                )
