"""Cluster IPs of Services: which address a Service gets, keeps and gives back.

Nothing is remembered beside the stored Services, so that an address is free as soon as its Service is gone.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Final

from localcluster.apiserver.failures import ApiError, Cause, invalid
from localcluster.apiserver.resources import Bucket, builtin
from localcluster.apiserver.store import Json, Store

SERVICES: Final[Bucket] = ("", "services")
_HEADLESS: Final = "None"


class ClusterIPs:
    """The addresses of one network, without its first and last one."""

    def __init__(self, store: Store, network: IPv4Network) -> None:
        self._store = store
        self._addresses = [str(address) for address in network.hosts()]
        self._next = 0

    def allocate(self, service: Json) -> None:
        """Give the Service the address it asks for, or a free one; ApiError when there is none to give."""
        spec = service["spec"]
        if spec["type"] == "ExternalName":
            return
        wanted = spec.get("clusterIP")
        if not wanted:
            wanted = spec["clusterIP"] = self._free()
        elif wanted != _HEADLESS and (problem := self._problem(service, wanted)):
            cause = Cause.invalid("spec.clusterIPs", [wanted], f"failed to allocate IP {wanted}: {problem}")
            raise invalid(builtin(*SERVICES), service["metadata"]["name"], [cause])
        spec["clusterIPs"] = [wanted]

    def _free(self) -> str:
        taken = self._taken()
        # Round and round, so that an address is not given to the next Service at once: clients may still know it.
        for _ in self._addresses:
            address = self._addresses[self._next]
            self._next = (self._next + 1) % len(self._addresses)
            if address not in taken:
                return address
        raise ApiError(500, "InternalError", "failed to allocate a serviceIP: range is full")

    def _problem(self, service: Json, wanted: str) -> str:
        metadata = service["metadata"]
        if wanted not in self._addresses:
            return "the provided network does not match the current range"
        if self._taken().get(wanted, metadata["uid"]) != metadata["uid"]:
            return "provided IP is already allocated"
        return ""

    def _taken(self) -> dict[str, str]:
        """Address -> uid of the Service that has it."""
        services = [stored.content for stored in self._store.select(SERVICES)]
        return {obj["spec"].get("clusterIP", ""): obj["metadata"]["uid"] for obj in services}


def keep(service: Json, old: Json) -> None:
    """Carry the address over to an update that does not name it; an ExternalName gives it back."""
    spec, before = service["spec"], old["spec"]
    if spec["type"] == "ExternalName":
        if spec.get("clusterIP") == before.get("clusterIP"):
            spec.pop("clusterIP", None)
            spec.pop("clusterIPs", None)
    elif not spec.get("clusterIP") and before.get("clusterIP"):
        spec["clusterIP"], spec["clusterIPs"] = before["clusterIP"], before["clusterIPs"]


def problems(service: Json, old: Json | None) -> list[Cause]:
    """What Kubernetes refuses in the addresses that a Service asks for."""
    spec, before = service["spec"], {} if old is None else old["spec"]
    address, addresses = spec.get("clusterIP"), spec.get("clusterIPs") or []
    if spec["type"] == "ExternalName":
        return [Cause.forbidden("spec.clusterIPs", "may not be set for ExternalName services")] if address else []
    if addresses and not address:
        hint = "must be empty when `clusterIP` is not specified"
        return [Cause.invalid("spec.clusterIPs", addresses, hint)]
    # Before the address itself: who changes one of the two fields is told about the change.
    if before.get("clusterIP") and address != before["clusterIP"]:
        return [Cause.invalid("spec.clusterIPs[0]", [address], "may not change once set")]
    if addresses and addresses[0] != address:
        return [Cause.invalid("spec.clusterIPs", addresses, "first value must match `clusterIP`")]
    return []
