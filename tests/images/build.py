"""Carries out the Dockerfile's steps without an engine: the same folders, commands and packages, in a folder.

What would come from the network comes from the environment of the tests: packages are linked from there by the image's
lock file, and only when they have the locked version.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tests.images.dockerfile import ROOT, Instruction, Stage, copies, in_context, read_stages

_BASE_PYTHON = str(getattr(sys, "_base_executable", sys.executable))
_LIBRARY = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
_PINNED = re.compile(r"^([\w.-]+)==([^\s;\\]+)", re.MULTILINE)


class UnknownStep(Exception):
    """A step that cannot be carried out here: build.py must learn it."""


@dataclass
class Image:
    """The filesystem of a stage, as far as the Dockerfile writes it."""

    root: Path

    def at(self, path: str) -> Path:
        """Where an absolute path of the image is here."""
        return self.root / path.lstrip("/").replace("lib/python3.11", _LIBRARY)

    @property
    def python(self) -> Path:
        return self.at("/opt/edgefarm/bin/python")

    @property
    def packages(self) -> Path:
        return self.at("/opt/edgefarm/lib/python3.11/site-packages")

    def top_level(self) -> set[str]:
        """What can be imported, without metadata."""
        names = {path.name.split(".")[0] for path in self.packages.iterdir() if path.suffix != ".dist-info"}
        return names - {"__pycache__"}

    def size(self) -> int:
        """Bytes of all files that are not links."""
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Start the image's Python with nothing but its own packages; `-I` keeps ours out."""
        return subprocess.run(
            [self.python, "-I", "-W", "error", *arguments],
            env={"PATH": "/usr/bin:/bin", **(env or {})},
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def build(target: str, folder: Path) -> Image:
    """The packages' stage of an image, carried out, and then what the image's own stage takes from it."""
    stages = read_stages()
    packages = _carry_out(stages, stages[f"{target}-packages"], folder / "packages")
    image = Image(folder / "image")
    for other, source, to in copies(stages[target]):
        if other == packages_stage(target):
            shutil.copytree(packages.at(source), image.at(to), symlinks=True, copy_function=_link)
    return image


def packages_stage(target: str) -> str:
    return f"{target}-packages"


def _carry_out(stages: dict[str, Stage], stage: Stage, root: Path) -> Image:
    image = _carry_out(stages, stages[stage.base], root) if stage.base in stages else Image(root)
    for step in stage.instructions:
        if step.word == "RUN":
            _run(step, image)
        elif step.word == "COPY":
            _copy(step, image)
    return image


def _copy(step: Instruction, image: Image) -> None:
    source, to = step.text.split()
    path, target = ROOT / source, image.at(to)
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        shutil.copy(path, target)
        return

    def left_out(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if not in_context(Path(folder, name))]

    shutil.copytree(path, target, ignore=left_out)


def _run(step: Instruction, image: Image) -> None:
    command = step.exec_form
    if command is None:
        _run_shell(step.text, image)
        return
    match command[:3]:
        case ["python", "-m", "pip"]:
            lock = image.at(command[command.index("--requirement") + 1])
            for distribution in locked(lock.read_text()):
                _install(distribution, image.packages)
        case ["python", "-m", "venv"] | ["python", "-m", "compileall"]:
            # Compiling all of the control image takes half a minute: only our own code is, here.
            own = [path for path in map(image.at, command[-1:]) if path.exists()]
            paths = [str(path / name) for path in own for name in _own_packages(path)] or [str(image.at(command[-1]))]
            subprocess.run([_BASE_PYTHON, *command[1:-1], *paths], check=True, timeout=60)
        case _:
            raise UnknownStep(step.text)


def _run_shell(text: str, image: Image) -> None:
    if "apt-get" in text:
        raise UnknownStep(text)
    here = re.sub(r"/opt/edgefarm", str(image.at("/opt/edgefarm")), text)
    subprocess.run(["/bin/sh", "-euc", here], check=True, timeout=20)


def _own_packages(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if (ROOT / path.name).is_dir():
            yield path.name


def locked(lock: str) -> Iterator[metadata.Distribution]:
    """The installed packages that a lock file names, in exactly these versions."""
    for name, version in _PINNED.findall(lock):
        distribution = metadata.distribution(name)
        if distribution.version != version:
            raise UnknownStep(f"{name} {version} is locked, and {distribution.version} is installed: run make setup")
        yield distribution


def _install(distribution: metadata.Distribution, packages: Path) -> None:
    for file in distribution.files or ():
        if ".." not in file.parts:  # scripts, which images do without
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # bytecode that was never written
                _link(str(distribution.locate_file(file)), str(target))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system
        shutil.copy2(source, target, follow_symlinks=False)
