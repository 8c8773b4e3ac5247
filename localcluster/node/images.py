"""Which programs stand for which container images."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final

from localcluster.process import StartError
from localcluster.stack import find_program

#: The images of this project; charts, webhook settings and examples of localcluster use these names.
CONTROL_IMAGE: Final = "ghcr.io/edgefarm/network-control"
SIDECAR_IMAGE: Final = "ghcr.io/edgefarm/network-sidecar"
EXAMPLES_IMAGE: Final = "ghcr.io/edgefarm/network-examples"

#: Image name without registry and tag -> entrypoint.
IMAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "edgefarm/network-control": ("python", "-m", "reconciler"),
    "edgefarm/network-sidecar": ("python", "-m", "sidecar"),
    "edgefarm/network-examples": ("python",),
    "python": ("python",),
    "nats": ("nats-server",),
    "nats-server": ("nats-server",),
    "openbao": ("bao",),
}
_WHEEL_PROGRAMS: Final = ("nats-server", "bao", "kubectl")


class UnknownImage(Exception):
    """No program stands for this image; the message names the known ones."""


def entrypoint(image: str, images: Mapping[str, Sequence[str]] = IMAGES) -> list[str]:
    """The command that stands for `image`: tag and digest are ignored, and so is a registry in front of the name."""
    repository = image.partition("@")[0]
    folder, slash, last = repository.rpartition("/")
    repository = folder + slash + last.partition(":")[0]
    matches = [name for name in images if repository == name or repository.endswith(f"/{name}")]
    if matches:
        return list(images[max(matches, key=len)])
    known = ", ".join(sorted(images))
    raise UnknownImage(f"the node runner has no program for image {image!r}; it knows: {known}")


def resolve_program(command: Sequence[str]) -> list[str]:
    """Replace the names of programs that this environment brings with their paths."""
    program, *arguments = command
    if program in ("python", "python3"):
        return [sys.executable, *arguments]
    if program in _WHEEL_PROGRAMS:
        try:
            return [find_program(program), *arguments]
        except StartError as error:
            raise UnknownImage(str(error)) from error
    return [program, *arguments]
