"""`make demo-mesh`: an encrypted network of edge hosts and the cluster, in network namespaces that the demo makes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from localcluster import netns
from localcluster.demo.command import Story, on_platform, run
from localcluster.demo.mesh.outage import OutageDemo
from localcluster.demo.mesh.plant import Plant, platform_options
from localcluster.demo.mesh.topology import Topology, topology

_STEPS = (
    ("agents register, and every host gets an EdgeDevice", OutageDemo.agents_register),
    ("addresses are assigned, tunnels come up", OutageDemo.the_mesh_comes_up),
    ("all hosts and the cluster reach each other", OutageDemo.everybody_answers),
    ("a pod on an edge host is part of it", OutageDemo.a_pod_is_attached),
    ("gateways relay what cannot go directly", OutageDemo.paths_are_relayed),
    ("a free path becomes a direct one", OutageDemo.paths_become_direct),
    ("a direct path that is cut falls back to the relay", OutageDemo.a_cut_path_falls_back),
    ("a gateway dies, the other one takes over", OutageDemo.a_gateway_dies),
    ("what a host refuses stands in its EdgeDevice", OutageDemo.mistakes_reach_the_user),
    ("reconciler, NATS and Vault are stopped: traffic goes on", OutageDemo.servers_are_stopped),
    ("an edge host reboots meanwhile: its tunnel returns", OutageDemo.a_host_reboots_meanwhile),
    ("everything is started again", OutageDemo.servers_return),
    ("a host leaves the mesh", OutageDemo.a_host_leaves),
)


class _World:
    """The namespaces, between the moment they are made and the first step that needs them."""

    made: Topology

    @contextmanager
    def make(self) -> Iterator[None]:
        """Make them, and start everything from now on in the namespace `cluster`."""
        with topology() as self.made:
            self.made["cluster"].enter()
            yield


def main() -> int:
    """Entry point; the exit status is 0 when every step held, and where the demo cannot run."""
    world = _World()

    story = Story(
        target="demo-mesh",
        about="Build homes, an internet and a cluster in network namespaces, and check the mesh between them.",
        platform=on_platform(platform_options),
        make=lambda observer, note: OutageDemo(Plant(observer, world.made), note),
        steps=_STEPS,
        suggestions=("get edgedevices -n network", "get edgedevice edge-a -n network -o yaml"),
        lacks=netns.missing,
        surroundings=world.make,
    )
    return run(story)


if __name__ == "__main__":
    sys.exit(main())
