"""Workload controllers: ordinary clients that turn Deployments and their like into pods, and bind pods to nodes."""

from localcluster.workloads.manager import run_workloads

__all__ = ["run_workloads"]
