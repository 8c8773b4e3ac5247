"""`make demo`: the main job, from a label on a pod to messages, and what must not be possible."""

from __future__ import annotations

import sys
from pathlib import Path

from localcluster.demo.command import Story, on_platform, run
from localcluster.demo.steps import Demo
from localcluster.platform import PlatformOptions

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


def _options(daprd: Path, assets: Path | None) -> PlatformOptions:
    return PlatformOptions(
        daprd=daprd,
        kubebuilder_assets=assets,
        renew_every="2s",
        lifetime="1h",
        keys={"rotateEvery": "90d", "overlap": "2h"},
    )


def main() -> int:
    """Entry point; the exit status is 0 when every step held."""
    story = Story(
        target="demo",
        about="Run the main job on localcluster and check it step by step.",
        platform=on_platform(_options),
        make=Demo,
        steps=_STEPS,
        suggestions=(
            "get networks,policies -A",
            "-n factory logs deploy/sensor",
            "-n factory delete policy sensor",
        ),
    )
    return run(story)


if __name__ == "__main__":
    sys.exit(main())
