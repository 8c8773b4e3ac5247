"""`make demo-edge`: leafs on edge nodes, streams that survive the loss of the uplink, and what comes back with it."""

from __future__ import annotations

import sys
from pathlib import Path

from localcluster.demo.command import Story, on_platform, run
from localcluster.demo.edge.outage import OutageDemo
from localcluster.demo.edge.plant import EDGE, SITE, Plant
from localcluster.demo.edge.steps import CLOUD, EDGE_NODES
from localcluster.node.spec import NodeSpec
from localcluster.platform import PlatformOptions

_STEPS = (
    ("apply examples/edge", OutageDemo.apply_example),
    ("leafs run on the two selected nodes, and only there", OutageDemo.leafs_run_where_selected),
    ("a leaf has a network user and a restricted SYS user", OutageDemo.leafs_hold_two_restricted_users),
    ("streams exist in the hub and on every edge node", OutageDemo.streams_exist_everywhere),
    ("pods talk to the leaf of their node, else to the hub", OutageDemo.pods_use_the_nearest_server),
    ("a label adds a leaf, without it the leaf is gone", OutageDemo.a_label_moves_a_node),
    ("streams are linked: collected in the hub, copied to the edge", OutageDemo.streams_are_linked),
    ("one node loses its uplink and goes on", OutageDemo.the_uplink_is_cut),
    ("10,000 readings are stored without uplink", OutageDemo.readings_are_stored),
    ("a reboot without uplink does no harm", OutageDemo.a_reboot_does_no_harm),
    ("a new pod without uplink says what it lacks", OutageDemo.a_new_pod_says_what_it_lacks),
    ("a Policy is deleted meanwhile", OutageDemo.a_policy_is_deleted_meanwhile),
    ("the uplink returns, and with it all readings", OutageDemo.the_uplink_returns),
    ("limits are kept at the edge and in the hub", OutageDemo.limits_are_kept),
)


def _options(daprd: Path, assets: Path | None) -> PlatformOptions:
    labelled = [NodeSpec(node, {SITE: EDGE}) for node in EDGE_NODES[:2]]
    return PlatformOptions(
        daprd=daprd,
        kubebuilder_assets=assets,
        node_specs=(NodeSpec(CLOUD), *labelled, NodeSpec(EDGE_NODES[2])),
        leafs=True,
        uplinks=True,
        renew_every="10s",
        lifetime="1h",
        keys={"rotateEvery": "90d", "overlap": "2h"},
        resync="30s",
    )


def main() -> int:
    """Entry point; the exit status is 0 when every step held."""
    story = Story(
        target="demo-edge",
        about="Run edge nodes on localcluster, cut the uplink of one, and check what survives.",
        platform=on_platform(_options),
        make=lambda observer, note: OutageDemo(Plant(observer), note),
        steps=_STEPS,
        suggestions=(
            "get networks,edgenetworks,streams -A",
            "-n network get pods -l network.edgefarm.io/type=leaf -o wide",
            "annotate node edge-1 localcluster.edgefarm.io/uplink=cut   # …uplink- heals it",
        ),
    )
    return run(story)


if __name__ == "__main__":
    sys.exit(main())
