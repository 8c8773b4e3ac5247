"""Command line of `make demo`: starts everything, runs the steps, leaves nothing behind."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from edgefarm.errors import EdgefarmError
from localcluster.daprd import write_launcher
from localcluster.demo.observer import Observer
from localcluster.demo.report import CheckFailed, JsonOutput, Report, TextOutput
from localcluster.demo.steps import Demo
from localcluster.platform import Platform, PlatformOptions
from localcluster.process import StartError

_STEPS = (
    ("apply examples/quickstart", Demo.apply_example),
    ("Network foo becomes Ready", Demo.network_is_ready),
    ("policies have service accounts and Vault roles", Demo.policies_have_grants),
    ("labelled pods start with the sidecar", Demo.workloads_run),
    ("messages reach the subscriber (nats and dapr)", Demo.messages_arrive),
    ("a forbidden subject is refused", Demo.forbidden_subjects_are_refused),
    ("a second network sees nothing of the first", Demo.networks_are_isolated),
    ("a namespace that is not listed gets no credentials", Demo.outsiders_get_nothing),
    ("an unlabelled pod is untouched", Demo.unlabelled_pods_are_untouched),
    ("a deleted Policy cuts the connection, recreated it is back", Demo.deleted_policy_cuts),
    ("credentials renew", Demo.credentials_renew),
    ("the Policy's key rotates without losing a message", Demo.keys_rotate),
    ("a restarted reconciler writes nothing", Demo.restart_writes_nothing),
)


def main() -> int:
    """Entry point; the exit status is 0 when every step held."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per step instead of text")
    parser.add_argument("--keep", action="store_true", help="after the steps, keep everything running until Ctrl-C")
    parser.add_argument("--data-dir", type=Path, help="keep data and logs in this folder (default: a temporary one)")
    arguments = parser.parse_args()
    if sys.platform != "linux":
        print("The demo needs Linux: it gives every pod a loopback address of its own.", file=sys.stderr)
        return 2
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        return asyncio.run(_run(arguments))
    print("interrupted; everything that was started has been stopped", file=sys.stderr)
    return 130


async def _run(arguments: argparse.Namespace) -> int:
    # asyncio's TLS transport warns at the end of every connection that NATS closes; it means nothing.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell starts background jobs with it ignored
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    folder = _make_folder(arguments)
    report = Report(JsonOutput() if arguments.json else TextOutput())
    try:
        await _show(folder, report, keep=arguments.keep)
    except (CheckFailed, EdgefarmError, StartError, OSError, TimeoutError) as error:
        report.close()
        print(f"\nThe demo failed: {error}\nLogs and data are kept in {folder}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        _remove(folder, arguments)
        raise
    _remove(folder, arguments)
    return 0


async def _show(folder: Path, report: Report, *, keep: bool) -> None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    daprd = os.environ.get("EDGEFARM_DAPRD")
    options = PlatformOptions(
        daprd=Path(daprd) if daprd else write_launcher(folder),
        kubebuilder_assets=Path(assets) if assets else None,
        renew_every="2s",
        lifetime="1h",
        keys={"rotateEvery": "90d", "overlap": "2h"},
    )
    async with Platform(folder, options) as platform:
        await platform.start(report.step)
        demo = Demo(Observer.of(platform), report.output.note)
        try:
            for title, step in _STEPS:
                await report.step(title, step(demo))
        finally:
            await demo.observer.system.close()
        report.close()
        if keep:
            await _wait_for_interrupt(platform)


async def _wait_for_interrupt(platform: Platform) -> None:
    print(
        f"\nEverything keeps running until Ctrl-C. Try:\n  export KUBECONFIG={platform.api.kubeconfig}", file=sys.stderr
    )
    for command in ("get networks,policies -A", "-n factory logs deploy/sensor", "-n factory delete policy sensor"):
        print(f"  .venv/bin/kubectl {command}", file=sys.stderr)
    await asyncio.Event().wait()


def _make_folder(arguments: argparse.Namespace) -> Path:
    if arguments.data_dir is None:
        return Path(tempfile.mkdtemp(prefix="edgefarm-demo-"))
    folder: Path = arguments.data_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _remove(folder: Path, arguments: argparse.Namespace) -> None:
    if arguments.data_dir is None:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
