"""Runs all workload controllers: what kube-controller-manager and kube-scheduler do, as far as needed here."""

from __future__ import annotations

import asyncio
from typing import Final

from localcluster.client import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    JOBS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    Client,
    Resource,
)
from localcluster.events import EventRecorder
from localcluster.informer import Informer
from localcluster.workloads.claims import ClaimController
from localcluster.workloads.controller import Cluster, Controller
from localcluster.workloads.daemonset import DaemonSetController
from localcluster.workloads.deployment import DeploymentController
from localcluster.workloads.endpoints import EndpointController
from localcluster.workloads.garbage import GarbageCollector
from localcluster.workloads.job import JobController
from localcluster.workloads.namespace import NamespaceController
from localcluster.workloads.replicaset import ReplicaSetController
from localcluster.workloads.scheduler import Scheduler
from localcluster.workloads.statefulset import StatefulSetController

_WATCHED: Final[tuple[Resource, ...]] = (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    JOBS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
)
_CONTROLLERS: Final[tuple[type[Controller], ...]] = (
    ClaimController,
    DaemonSetController,
    DeploymentController,
    EndpointController,
    JobController,
    NamespaceController,
    ReplicaSetController,
    Scheduler,
    StatefulSetController,
)


async def run_workloads(client: Client) -> None:
    """Run the controllers until cancelled."""
    informers = {resource: Informer(client, resource) for resource in _WATCHED}
    cluster = Cluster(client, informers, EventRecorder(client, "localcluster"))
    controllers = [controller(cluster) for controller in _CONTROLLERS]
    collector = GarbageCollector(client, informers.values())
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(collector.run())
            for informer in informers.values():
                group.create_task(informer.run())
    finally:
        for controller in controllers:
            await controller.close()
