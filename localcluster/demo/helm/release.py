"""One Helm release, driven by Helm's own SDK."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from localcluster.chart import CHART, Values
from localcluster.demo.report import CheckFailed


@dataclass(frozen=True)
class Release:
    """A release by its name and namespace, on the cluster of a kubeconfig. Raises CheckFailed with Helm's complaint."""

    kubeconfig: Path
    name: str
    namespace: str

    async def install(self, chart: Path, values: Values) -> None:
        await self._act(
            lambda helm: helm.install(
                str(chart), self.name, values, namespace=self.namespace, create_namespace=True, timeout=60
            )
        )

    async def upgrade(self, chart: Path, values: Values) -> None:
        await self._act(lambda helm: helm.upgrade(str(chart), self.name, values, namespace=self.namespace, timeout=60))

    async def rollback(self, revision: int) -> None:
        await self._act(lambda helm: helm.rollback(self.name, version=revision, timeout=60))

    async def uninstall(self) -> None:
        await self._act(lambda helm: helm.uninstall(self.name, timeout=60))

    async def _act(self, action: Callable[[Any], object]) -> None:
        await asyncio.to_thread(self._call, action)

    def _call(self, action: Callable[[Any], object]) -> None:
        # Imported late: as in `localcluster.chart`.
        import helm_python

        try:
            with helm_python.Config(kubeconfig_path=str(self.kubeconfig), namespace=self.namespace) as helm:
                action(helm)
        except helm_python.HelmError as error:
            raise CheckFailed(f"helm: {error}") from error


@dataclass(frozen=True)
class Charts:
    """The chart, and one that is the same but for its version, with other labels, images and rollouts therefore."""

    current: Path
    previous: Path

    @classmethod
    def copy(cls, folder: Path, kubernetes: str) -> Charts:
        """Copy both into `folder`, for an API server that says it is of version `kubernetes`."""
        # One that was built without release flags says v0.0.0, which is older than anything the chart supports.
        dropped = ["kubeVersion"] if kubernetes.startswith("v0.0.0") else []
        previous = {"version": "0.0.1", "appVersion": "0.0.1"}
        return cls(_copied(folder / "current", {}, dropped), _copied(folder / "previous", previous, dropped))


def _copied(folder: Path, changes: dict[str, str], dropped: list[str]) -> Path:
    chart = folder / CHART.name
    shutil.copytree(CHART, chart, dirs_exist_ok=True)
    metadata = yaml.safe_load((chart / "Chart.yaml").read_text()) | changes
    kept = {key: value for key, value in metadata.items() if key not in dropped}
    (chart / "Chart.yaml").write_text(yaml.safe_dump(kept))
    return chart
