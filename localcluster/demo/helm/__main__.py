"""`make demo-helm`: install, use, upgrade, roll back, remove and install again, with Helm's own SDK."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Final

from localcluster.demo.command import Story, run
from localcluster.demo.helm.platform import HelmOptions, HelmPlatform, missing
from localcluster.demo.helm.steps import HelmDemo
from localcluster.demo.steps import Demo


def _main(step: Callable[[Demo], Awaitable[str]]) -> Callable[[HelmDemo], Awaitable[str]]:
    """A step of the main demo, on this installation."""
    return lambda helm: step(helm.demo)


_STEPS: Final = (
    ("apply examples/quickstart", _main(Demo.apply_example)),
    ("Network foo becomes Ready", _main(Demo.network_is_ready)),
    ("labelled pods start with the sidecar", _main(Demo.workloads_run)),
    ("messages reach the subscriber (nats and dapr)", _main(Demo.messages_arrive)),
    ("helm upgrade loses no credentials and cuts no connection", HelmDemo.upgrade),
    ("policies have service accounts and Vault roles", _main(Demo.policies_have_grants)),
    ("a forbidden subject is refused", _main(Demo.forbidden_subjects_are_refused)),
    ("a second network sees nothing of the first", _main(Demo.networks_are_isolated)),
    ("a namespace that is not listed gets no credentials", _main(Demo.outsiders_get_nothing)),
    ("an unlabelled pod is untouched", _main(Demo.unlabelled_pods_are_untouched)),
    ("a deleted Policy cuts the connection, recreated it is back", _main(Demo.deleted_policy_cuts)),
    ("credentials renew", _main(Demo.credentials_renew)),
    ("the Policy's key rotates without losing a message", _main(Demo.keys_rotate)),
    ("a restarted reconciler writes nothing", _main(Demo.restart_writes_nothing)),
    ("helm rollback cuts no connection", HelmDemo.rollback),
    ("helm uninstall keeps Networks, keys and data, and blocks no pod", HelmDemo.uninstall),
    ("helm install again finds keys, data and connections", HelmDemo.install_again),
)


def main() -> int:
    """Entry point; the exit status is 0 when every step held, and where the demo cannot run."""
    story = Story(
        target="demo-helm",
        about="Install the chart on a fresh localcluster, OpenBao and NATS included, and check it step by step.",
        platform=lambda folder, daprd, assets: HelmPlatform(folder, HelmOptions(daprd, assets)),
        make=HelmDemo.of,
        steps=_STEPS,
        suggestions=("get all -n network", "get networks,policies -A", "-n factory logs deploy/sensor"),
        lacks=missing,
    )
    return run(story)


if __name__ == "__main__":
    sys.exit(main())
