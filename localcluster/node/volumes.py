"""Makes the volumes of one pod as folders and keeps ConfigMaps, Secrets and tokens in them fresh."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localcluster.client import CONFIG_MAPS, PERSISTENT_VOLUME_CLAIMS, SECRETS, Client, Json, Resource
from localcluster.node.sources import MissingSource, PodFacts, Token, field, read_data, request_token

_DATA: Final = "..data"
_DEFAULT_MODE: Final = 0o644
#: Path in the volume -> (content, file mode).
Payload = dict[str, tuple[bytes, int]]


@dataclass(frozen=True)
class VolumePlaces:
    """Where the volumes of a pod lie."""

    pod: Path
    """Folder of the pod; gone with the pod."""
    node_root: Path
    """What hostPath volumes see as `/`; every node has its own."""
    claims: Path
    """Folders of persistent volumes; they go with their claims, and all nodes see them."""


class PodVolumes:
    """The volumes of one pod."""

    def __init__(
        self,
        client: Client,
        pod: Json,
        facts: PodFacts,
        places: VolumePlaces,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._facts = facts
        self._places = places
        self._clock = clock
        self._namespace = pod["metadata"]["namespace"]
        self._volumes: list[Json] = pod["spec"].get("volumes") or []
        self._tokens: dict[tuple[str, int], Token] = {}
        #: Name of a claim -> name of the volume that it is bound to.
        self._bound: dict[str, str] = {}

    async def refresh(self, pod: Json) -> None:
        """Make all volumes, or bring their contents up to date; raise MissingSource for what is not there yet."""
        for volume in self._volumes:
            if "persistentVolumeClaim" in volume:
                await self._bind(volume["persistentVolumeClaim"]["claimName"])
            path = self._path(volume)
            if "hostPath" in volume:
                _make_host_path(path, volume["hostPath"].get("type") or "")
                continue
            path.mkdir(parents=True, exist_ok=True)
            payload = await self._payload(pod, volume)
            if payload is not None:
                write_payload(path, payload)

    def uses(self, resource: Resource, name: str) -> bool:
        """Whether a volume shows this ConfigMap or Secret, or stands for this claim."""
        if resource == PERSISTENT_VOLUME_CLAIMS:
            return any(volume.get("persistentVolumeClaim", {}).get("claimName") == name for volume in self._volumes)
        key, name_key = ("secret", "secretName") if resource == SECRETS else ("configMap", "name")
        for volume in self._volumes:
            if volume.get(key, {}).get(name_key) == name:
                return True
            sources = volume.get("projected", {}).get("sources") or []
            if any(source.get(key, {}).get("name") == name for source in sources):
                return True
        return False

    @property
    def refresh_at(self) -> float | None:
        """When (Unix seconds) the first token must be replaced; None without tokens."""
        return min((token.refresh_at for token in self._tokens.values()), default=None)

    def mounts(self, container: Json) -> dict[str, str]:
        """Mount path -> real path of one container. Raises MissingSource for a mount of no volume."""
        paths = {volume["name"]: self._path(volume) for volume in self._volumes}
        mounts = {}
        for mount in container.get("volumeMounts") or []:
            if mount["name"] not in paths:
                raise MissingSource(f"volumeMount {mount['name']!r} names no volume of the pod")
            real = paths[mount["name"]] / mount.get("subPath", "").lstrip("/")
            if not real.exists():
                real.mkdir(parents=True)
            mounts[mount["mountPath"]] = str(real)
        return mounts

    def lose_memory(self) -> None:
        """Empty what a power cut empties: emptyDirs in memory."""
        for volume in self._volumes:
            if (volume.get("emptyDir") or {}).get("medium") == "Memory":
                path = self._path(volume)
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir(parents=True)

    def remove(self) -> None:
        """Delete everything that goes with the pod."""
        shutil.rmtree(self._places.pod, ignore_errors=True)

    def _path(self, volume: Json) -> Path:
        if "hostPath" in volume:
            return self._places.node_root / str(volume["hostPath"]["path"]).lstrip("/")
        if "persistentVolumeClaim" in volume:
            return self._places.claims / self._bound[volume["persistentVolumeClaim"]["claimName"]]
        return self._places.pod / "volumes" / str(volume["name"])

    async def _bind(self, claim_name: str) -> None:
        """Learn which volume the claim is bound to; that never changes."""
        if claim_name in self._bound:
            return
        claim = await self._client.find(PERSISTENT_VOLUME_CLAIMS, claim_name, self._namespace)
        if claim is None:
            raise MissingSource(f"persistentvolumeclaim {claim_name!r} not found")
        if claim.get("status", {}).get("phase") != "Bound":
            raise MissingSource(f"persistentvolumeclaim {claim_name!r} is not bound")
        self._bound[claim_name] = claim["spec"]["volumeName"]

    async def _payload(self, pod: Json, volume: Json) -> Payload | None:
        """Files of the volume; None for one whose content is the pod's own."""
        if "projected" in volume:
            projected, payload = volume["projected"], Payload()
            mode = projected.get("defaultMode", _DEFAULT_MODE)
            for index, source in enumerate(projected.get("sources") or []):
                payload |= await self._projection(pod, (volume["name"], index), source, mode)
            return payload
        for kind in ("configMap", "secret", "downwardAPI"):
            if kind in volume:
                source = dict(volume[kind])
                source.setdefault("name", source.get("secretName"))
                mode = source.get("defaultMode", _DEFAULT_MODE)
                return await self._projection(pod, (volume["name"], 0), {kind: source}, mode)
        if "emptyDir" in volume or "persistentVolumeClaim" in volume:
            return None
        kinds = ", ".join(key for key in volume if key != "name")
        raise MissingSource(f"the node runner does not support volumes of type {kinds}")

    async def _projection(self, pod: Json, where: tuple[str, int], source: Json, mode: int) -> Payload:
        if "serviceAccountToken" in source:
            wanted = source["serviceAccountToken"]
            token, now = self._tokens.get(where), self._clock()
            if token is None or token.refresh_at <= now:
                token = self._tokens[where] = await request_token(self._client, pod, wanted, now)
            return {wanted["path"]: (token.text.encode(), mode)}
        if "downwardAPI" in source:
            return {
                item["path"]: (field(pod, item["fieldRef"]["fieldPath"], self._facts).encode(), item.get("mode", mode))
                for item in source["downwardAPI"].get("items") or []
            }
        for kind, resource in (("configMap", CONFIG_MAPS), ("secret", SECRETS)):
            if kind in source:
                return await self._files_of(resource, source[kind], mode)
        raise MissingSource(f"the node runner does not support projections of type {', '.join(source)}")

    async def _files_of(self, resource: Resource, source: Json, mode: int) -> Payload:
        data = await read_data(self._client, resource, source["name"], self._namespace)
        optional = bool(source.get("optional"))
        if data is None:
            if optional:
                return {}
            raise MissingSource(f"{resource.plural} {source['name']!r} not found")
        if not source.get("items"):
            return {key: (content, mode) for key, content in data.items()}
        payload = Payload()
        for item in source["items"]:
            if item["key"] in data:
                payload[item["path"]] = (data[item["key"]], item.get("mode", mode))
            elif not optional:
                raise MissingSource(f"{resource.plural} {source['name']!r} has no key {item['key']!r}")
        return payload


def write_payload(folder: Path, payload: Payload) -> bool:
    """Show `payload` in `folder`, all files at once; False when nothing changed.

    As the kubelet's atomic writer: the files lie in a folder of their own, `..data` points to it and is replaced by
    rename, and the visible names point through `..data`.
    """
    if _read_payload(folder) == payload:
        return False
    version = folder / f"..{time.time_ns()}"
    for path, (content, mode) in payload.items():
        target = version / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        target.chmod(mode)
    version.mkdir(parents=True, exist_ok=True)
    before = (folder / _DATA).readlink() if (folder / _DATA).is_symlink() else None
    (folder / "..data_tmp").symlink_to(version.name)
    (folder / "..data_tmp").rename(folder / _DATA)
    visible = {Path(path).parts[0] for path in payload}
    for name in visible:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_DATA}/{name}")
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in visible:
            entry.unlink()
    if before is not None:
        shutil.rmtree(folder / before)
    return True


def _read_payload(folder: Path) -> Payload | None:
    data = folder / _DATA
    if not data.is_symlink():
        return None
    files = (path for path in data.resolve().rglob("*") if path.is_file())
    return {str(path.relative_to(data.resolve())): (path.read_bytes(), path.stat().st_mode & 0o777) for path in files}


def _make_host_path(path: Path, kind: str) -> None:
    if kind in ("", "DirectoryOrCreate"):
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    elif not path.exists():
        raise MissingSource(f"hostPath type {kind}: there is nothing at that path on this node")
