"""What the images hold starts, and they hold nothing else. No engine is needed: see build.py."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from edgefarm import __version__
from localcluster.node.images import CONTROL_IMAGE, EXAMPLES_IMAGE, IMAGES, SIDECAR_IMAGE, entrypoint
from tests.images.build import Image, packages_stage
from tests.images.dockerfile import ROOT, copies, in_context, lineage, read_stages

STAGES = read_stages()
TARGETS = {"control": CONTROL_IMAGE, "sidecar": SIDECAR_IMAGE, "examples": EXAMPLES_IMAGE}
PROGRAMS = [
    ("control", "reconciler"),
    ("control", "webhook"),
    ("control", "agent"),
    ("control", "abbot"),
    ("sidecar", "sidecar"),
]
_IMPORT_ALL = """
import importlib, json, pkgutil, sys
names = json.loads(sys.argv[1])
for name in names:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(json.dumps(sorted({getattr(module, "__file__", None) or "" for module in sys.modules.values()})))
"""


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = ROOT / ".venv" / "bin" / "hadolint"
    finished = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=30, check=False)
    assert finished.stdout == ""
    assert finished.returncode == 0


def test_the_images_parts_of_the_lock_file_are_fresh() -> None:
    subprocess.run([sys.executable, ROOT / "requirements" / "write_locks.py", "--check"], check=True, timeout=30)


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_copied_is_in_the_build_context(stage: str) -> None:
    for other, source, _ in copies(STAGES[stage]):
        if other is None:
            assert (ROOT / source).exists(), source
            assert any(in_context(path) for path in files_of(source)), f".dockerignore keeps {source} out"
        else:
            assert other in STAGES


def files_of(source: str) -> Iterator[Path]:
    path = ROOT / source
    yield from [path] if path.is_file() else path.rglob("*.py")


def test_the_build_context_holds_neither_secrets_nor_caches() -> None:
    for name in (".git/config", ".venv/pyvenv.cfg", "tests/conftest.py", "abbot/__pycache__/x.pyc", "README.md"):
        assert not in_context(ROOT / name), name


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_a_user_without_rights_and_starts_without_a_shell(target: str) -> None:
    steps = [step for stage in lineage(STAGES, target) for step in stage.instructions]
    assert [step.text for step in steps if step.word == "USER"][-1] == "65532:65532"
    starts = [step.exec_form for step in steps if step.word in ("ENTRYPOINT", "CMD")]
    assert starts[-1] == entrypoint(TARGETS[target], IMAGES)
    labels = " ".join(step.text for step in steps if step.word == "LABEL")
    for label in ("title", "description", "source", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in labels


def test_the_dockerfile_names_the_version_of_the_programs() -> None:
    assert f"ARG VERSION={__version__}\n" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_what_its_programs_need_and_no_more(target: str, image: Callable[[str], Image]) -> None:
    names = image(target).top_level()
    print(f"{target}: {image(target).size() / 2**20:.0f} MiB beside the interpreter")
    assert not names & {"tests", "cli", "localcluster", "pip", "setuptools", "pytest", "mypy", "rich", "typer"}
    own = {source for other, source, _ in copies(STAGES[packages_stage(target)]) if not source.startswith("requirem")}
    assert own <= names


def test_the_sidecar_has_no_client_of_kubernetes_nats_or_vault(image: Callable[[str], Image]) -> None:
    assert image("sidecar").top_level() == {"edgefarm", "sidecar", "cryptography", "cffi", "_cffi_backend", "pycparser"}
    assert image("sidecar").size() < 30 * 2**20


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize(("target", "program"), PROGRAMS)
def test_a_program_answers(target: str, program: str, option: str, image: Callable[[str], Image]) -> None:
    finished = image(target).run("-m", program, option)
    assert finished.returncode == 0, finished.stderr
    assert __version__ in finished.stdout if option == "--version" else program in finished.stdout


@pytest.mark.parametrize("target", ["control", "sidecar"])
def test_every_module_of_the_programs_finds_what_it_imports(target: str, image: Callable[[str], Image]) -> None:
    here = image(target)
    programs = [program for where, program in PROGRAMS if where == target]
    finished = here.run("-W", "default", "-c", _IMPORT_ALL, json.dumps(programs))
    assert finished.returncode == 0, finished.stderr
    outside = [file for file in json.loads(finished.stdout) if "site-packages" in file and str(here.root) not in file]
    assert outside == []


def test_the_command_abbot_of_gateways_is_there(image: Callable[[str], Image]) -> None:
    command = image("control").at("/opt/edgefarm/bin/abbot")
    finished = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=20, check=False)
    assert finished.stdout.strip() == __version__


@pytest.mark.parametrize(
    "snapshot", sorted((ROOT / "tests" / "chart" / "snapshots").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_image_has_what_the_chart_starts(snapshot: Path, image: Callable[[str], Image]) -> None:
    """A component's command is found in the image that it names."""
    started = 0
    for name, command in commands_of(snapshot):
        target = next((target for target in TARGETS if f"/network-{target}:" in name), None)
        if target is not None:
            started += 1
            assert image(target).at(f"/opt/edgefarm/bin/{command[0]}").exists(), command
            if command[:2] == ["python", "-m"]:
                assert command[2] in image(target).top_level()
    assert started >= 2


def commands_of(manifests: Path) -> Iterator[tuple[str, list[str]]]:
    """Image and command of all containers of workloads."""
    for text in re.split(r"^---$", manifests.read_text(), flags=re.MULTILINE):
        if "\nkind: " not in text:  # what Helm says after an installation
            continue
        spec = (yaml.safe_load(text).get("spec") or {}).get("template", {}).get("spec", {})
        for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
            yield container["image"], container["command"]


def test_the_version_of_an_installed_package_is_the_one_of_the_base_images_distribution() -> None:
    release = Path("/etc/os-release")
    if shutil.which("apt-cache") is None or "VERSION_CODENAME=bookworm" not in release.read_text():
        pytest.skip("needs Debian 12, as the base image")
    pins = [step.text for step in STAGES["control"].instructions if "apt-get install" in step.text]
    pinned = dict(re.findall(r"(\S+)=(\S+)", pins[0]))
    # All at once, with patience: where its cache is not written, each call reads all package lists again.
    shown = subprocess.run(["apt-cache", "show", *pinned], capture_output=True, text=True, timeout=60, check=False)
    if shown.returncode:
        pytest.skip("needs the package lists: apt-get update")
    offered = re.findall(r"^Package: (\S+)$(?:\n.+)*?\nVersion: (\S+)$", shown.stdout, re.MULTILINE)
    for name, version in pinned.items():
        versions = [each for package, each in offered if package == name]
        assert any(fnmatch(each, version) for each in versions), versions


def test_what_the_sidecars_containers_run_says_what_is_missing(image: Callable[[str], Image]) -> None:
    for arguments in ((), ("once",), ("probe",), ("wait",), ("leaf",)):
        finished = image("sidecar").run("-m", "sidecar", *arguments)
        assert finished.returncode == 2, arguments
        assert "EDGEFARM_" in finished.stderr


def test_the_examples_find_their_nats_client(image: Callable[[str], Image]) -> None:
    finished = image("examples").run("-W", "default", "-c", "import nats, nkeys, examples.quickstart.apps.dapr_sensor")
    assert "DAPR_HTTP_ENDPOINT" in finished.stderr, finished.stderr
