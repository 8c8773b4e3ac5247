"""The command line that all demos share: options, signals, the folder, and leaving nothing behind."""

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
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edgefarm.errors import EdgefarmError
from localcluster.daprd import write_launcher
from localcluster.demo.installation import Installation
from localcluster.demo.observer import Observer
from localcluster.demo.report import CheckFailed, JsonOutput, Report, TextOutput
from localcluster.kubernetes import KUBECONFIG_VARIABLE
from localcluster.platform import Platform, PlatformOptions
from localcluster.process import StartError

P = TypeVar("P", bound=Installation)
D = TypeVar("D")


@dataclass(frozen=True)
class Story(Generic[P, D]):
    """One demo: what it is called and is about, what it runs on, its steps, and what to try with `--keep`."""

    target: str
    about: str
    platform: Callable[[Path, Path, Path | None], P]
    """Makes what it runs on, not started yet, of a folder, the daprd for sidecars, and a real API server's programs."""
    make: Callable[[Observer[P], Callable[[str], None]], D]
    steps: Sequence[tuple[str, Callable[[D], Awaitable[str]]]]
    suggestions: Sequence[str]
    lacks: Callable[[], str | None] = lambda: None
    """What this machine lacks to run it, as one sentence."""
    surroundings: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    """Entered before anything is started, left when everything has ended."""


def on_platform(
    options: Callable[[Path, Path | None], PlatformOptions],
) -> Callable[[Path, Path, Path | None], Platform]:
    """For stories that run on the platform with servers beside the cluster."""
    return lambda folder, daprd, assets: Platform(folder, options(daprd, assets))


def run(story: Story[P, D]) -> int:
    """Carry it out as a program; the exit status is 0 when every step held."""
    parser = argparse.ArgumentParser(prog=f"make {story.target} ARGS=", description=story.about)
    parser.add_argument("--json", action="store_true", help="one JSON object per step instead of text")
    parser.add_argument("--keep", action="store_true", help="after the steps, keep everything running until Ctrl-C")
    parser.add_argument("--data-dir", type=Path, help="keep data and logs in this folder (default: a temporary one)")
    arguments = parser.parse_args()
    if sys.platform != "linux":
        print("The demo needs Linux: it gives every pod a loopback address of its own.", file=sys.stderr)
        return 2
    if os.environ.get(KUBECONFIG_VARIABLE):
        print(f"The demo makes a cluster of its own: unset {KUBECONFIG_VARIABLE}.", file=sys.stderr)
        return 2
    if (lacking := story.lacks()) is not None:
        print(f"make {story.target} was not run: {lacking}", file=sys.stderr)
        return 0
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt), story.surroundings():
        return asyncio.run(_run(story, arguments))
    print("interrupted; everything that was started has been stopped", file=sys.stderr)
    return 130


async def _run(story: Story[P, D], arguments: argparse.Namespace) -> int:
    # asyncio's TLS transport warns at the end of every connection that NATS closes; it means nothing.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell starts background jobs with it ignored
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    folder = _make_folder(arguments)
    report = Report(JsonOutput() if arguments.json else TextOutput())
    try:
        await _tell(story, folder, report, keep=arguments.keep)
    except (CheckFailed, EdgefarmError, StartError, OSError, TimeoutError) as error:
        report.close()
        print(f"\nThe demo failed: {str(error) or type(error).__name__}", file=sys.stderr)
        print(f"Logs and data are kept in {folder}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        _remove(folder, arguments)
        raise
    _remove(folder, arguments)
    return 0


async def _tell(story: Story[P, D], folder: Path, report: Report, *, keep: bool) -> None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    daprd = os.environ.get("EDGEFARM_DAPRD")
    daprd_path = Path(daprd) if daprd else write_launcher(folder)
    async with story.platform(folder, daprd_path, Path(assets) if assets else None) as platform:
        await platform.start(report.step)
        observer = Observer.of(platform)
        demo = story.make(observer, report.output.note)
        try:
            for title, step in story.steps:
                await report.step(title, step(demo))
        finally:
            await observer.system.close()
        report.close()
        if keep:
            await _wait_for_interrupt(platform, story.suggestions)


async def _wait_for_interrupt(platform: Installation, suggestions: Sequence[str]) -> None:
    print(
        f"\nEverything keeps running until Ctrl-C. Try:\n  export KUBECONFIG={platform.api.kubeconfig}", file=sys.stderr
    )
    for command in suggestions:
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
