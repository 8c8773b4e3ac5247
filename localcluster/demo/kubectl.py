"""Runs the real kubectl against the demo's cluster, as a user would."""

from __future__ import annotations

import asyncio

from localcluster.demo.installation import Installation
from localcluster.demo.report import CheckFailed
from localcluster.stack import find_program


async def kubectl(platform: Installation, *arguments: str) -> list[str]:
    """The lines that it printed; CheckFailed with its complaint when it failed."""
    process = await asyncio.create_subprocess_exec(
        find_program("kubectl"),
        "--kubeconfig",
        str(platform.api.kubeconfig),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise CheckFailed(f"kubectl {arguments[0]}: {errors.decode().strip()}")
    return output.decode().splitlines()
