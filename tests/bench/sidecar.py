"""The sidecar beside `bao agent`: time from process start to credentials on disk, and memory. `make bench-sidecar`.

Both log in by the Kubernetes method of the same OpenBao. The agent renders one template of the access document; the
sidecar reads the same document, makes a key, has its JWT signed and writes creds that a nats-server accepts. Prints
JSON lines (docs/architecture.md); medians of several runs, ours and the agent's in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgefarm import names
from edgefarm.nats.templates import PermissionTemplate
from edgefarm.vault import KubernetesAuth, Vault, VaultSettings, VaultSetup
from localcluster.process import LocalProcess, free_port
from localcluster.stack import Authority, OpenBao, find_program
from reconciler.adapters.nats import SystemClient
from tests.natskit import Hub, LocalOperator
from tests.sidecar.world import NAMESPACE, NETWORK, SidecarPod, World
from tests.vault.reviewer import TokenReviewer

_METRICS = {"time_to_credentials": "s", "rss": "KiB", "anonymous": "KiB"}
#: Memory is read so long after the credentials, when both are idle.
_SETTLE = 2.0
_PATIENCE = 30.0
_ACCOUNT = "bench"


@dataclass(frozen=True)
class Sample:
    """One run."""

    time_to_credentials: float
    rss: int
    anonymous: int


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    # asyncio warns whenever a peer ends a TLS connection; the lines on the screen are figures.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="edgefarm-bench-") as folder:
        asyncio.run(_bench(Path(folder), runs))


async def _bench(folder: Path, runs: int) -> None:
    authority = Authority.create(folder / "pki")
    openbao = OpenBao.start(folder / "openbao", authority)
    reviewer = TokenReviewer.start(authority)
    hub = Hub.start(folder / "hub", authority, LocalOperator())
    system = SystemClient(hub.urls, hub.operator.system_credentials, ca_bundle=authority.pem)
    try:
        account = hub.operator.account(NETWORK)
        account.scope("administrator", PermissionTemplate(pub_allow=(">",), sub_allow=(">",)))
        world = World(_vault(openbao, authority, reviewer), reviewer, hub, system, account, authority)
        await world.grant(_ACCOUNT, ("sensor.>",))
        ours, agents = [], []
        for number in range(runs + 1):
            pod = world.pod(folder / f"pod-{number}", _ACCOUNT, EDGEFARM_NATS_PORT=str(free_port()))
            ours.append(await asyncio.to_thread(_run_sidecar, pod))
            async with await pod.connect(hub.url):  # usable, not only there
                pass
            agents.append(await asyncio.to_thread(_run_agent, folder / f"agent-{number}", world, authority))
        _report(ours[1:], agents[1:])  # the first run of each warms the disk cache
    finally:
        await system.close()
        hub.stop()
        reviewer.stop()
        openbao.stop()


def _vault(openbao: OpenBao, authority: Authority, reviewer: TokenReviewer) -> Vault:
    client = Vault(VaultSettings(address=openbao.address, ca_pem=authority.pem), token=openbao.root_token)
    setup = VaultSetup(client)
    setup.ensure_mounts()
    setup.configure_auth(KubernetesAuth(host=reviewer.url, ca_pem=reviewer.ca_pem))
    return client


def _run_sidecar(pod: SidecarPod) -> Sample:
    return _measure(lambda: pod.start().running, pod.creds)


def _run_agent(folder: Path, world: World, authority: Authority) -> Sample:
    folder.mkdir()
    (folder / "token").write_text(world.reviewer.token(NAMESPACE, _ACCOUNT))
    settings, result = world.vault.settings, folder / "result"
    document = f"{settings.kv_mount}/data/{names.access_document(NETWORK, NAMESPACE, _ACCOUNT)}"
    config = folder / "agent.hcl"
    config.write_text(
        f'vault {{ address = "{settings.address}" ca_cert = "{authority.certificate}" }}\n'
        f'auto_auth {{ method "kubernetes" {{ mount_path = "auth/{settings.auth_mount}" config = {{ '
        f'role = "{names.grant_role(NETWORK, NAMESPACE, _ACCOUNT)}" token_path = "{folder / "token"}" }} }} }}\n'
        f'template {{ destination = "{result}" '
        f'contents = "{{{{ with secret \\"{document}\\" }}}}{{{{ .Data.data | toJSON }}}}{{{{ end }}}}" }}\n'
    )
    command = [find_program("bao"), "agent", f"-config={config}"]
    return _measure(
        lambda: LocalProcess.start("agent", command, log=folder / "agent.log", env={"HOME": str(folder)}), result
    )


def _measure(start: Callable[[], LocalProcess], result: Path) -> Sample:
    began = time.perf_counter()
    process = start()
    try:
        while not result.exists():
            if process.returncode is not None or time.perf_counter() - began > _PATIENCE:
                raise RuntimeError(f"{process.name} made no credentials:\n{process.tail()}")
            time.sleep(0.001)
        elapsed = time.perf_counter() - began
        time.sleep(_SETTLE)
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        sizes = {line.split(":")[0]: line.split()[1] for line in rollup.splitlines()[1:]}
        return Sample(elapsed, int(sizes["Rss"]), int(sizes["Anonymous"]))
    finally:
        process.stop()


def _report(ours: list[Sample], agents: list[Sample]) -> None:
    for metric, unit in _METRICS.items():
        value = statistics.median(getattr(sample, metric) for sample in ours)
        peer = statistics.median(getattr(sample, metric) for sample in agents)
        line = {
            "bench": "sidecar",
            "case": f"{NETWORK}, mode nats, median of {len(ours)} runs",
            "metric": metric,
            "unit": unit,
            "value": round(value, 4),
            "peer": "bao agent",
            "peer_value": round(peer, 4),
            "ratio": round(value / peer, 3),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
