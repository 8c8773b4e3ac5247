"""`edgefarm status`: what is installed and how it is."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.session import CONTEXT_SETTINGS, UNHEALTHY, UNREACHABLE, Session, examples, with_session
from edgefarm.errors import KubernetesRefused
from reconciler.ports import EDGE_DEVICE, NETWORK, POLICY, STREAM, Kind, Object

if TYPE_CHECKING:
    from cli.overview import Section

#: Kinds that live in workload namespaces.
_OF_TENANTS: Final = (POLICY, STREAM)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        context_settings=CONTEXT_SETTINGS,
        epilog=examples("edgefarm status", "edgefarm status plant-a -n shop", "edgefarm status -o json | jq .healthy"),
    )(status)


@with_session
def status(
    session: Session,
    network: Annotated[str | None, typer.Argument(metavar="NETWORK", help="Show only this network.")] = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Policies and streams of all namespaces (the default).")
    ] = False,
) -> None:
    """Show what is there and how it is, unhealthy first.

    Networks, policies, edge networks with their nodes, streams and devices. Policies and streams are those of all
    namespaces, or of the one that -n names. Where you may not list those of all namespaces, those of the kubeconfig's
    own are shown. Exit status 1: something is unhealthy.
    """
    from cli.overview import SECTIONS, Overview
    from cli.overview_tables import tables_of

    sections: list[Section] = []
    refused = False
    for kind in SECTIONS:
        if network is not None and kind is EDGE_DEVICE:
            continue  # hosts belong to no network
        section, denied = _section(session, kind, network, everywhere=all_namespaces)
        sections.append(section)
        refused = refused or denied
    overview = Overview(tuple(sections))
    session.output.show(overview.document(), lambda: tables_of(overview))
    if refused:
        raise typer.Exit(UNREACHABLE)
    if not overview.healthy:
        raise typer.Exit(UNHEALTHY)


def _section(session: Session, kind: Kind, network: str | None, *, everywhere: bool) -> tuple[Section, bool]:
    """The objects of one kind, and whether the API server refused to show them."""
    from cli.overview import SECTIONS, Section, section_of

    try:
        objects, note = _objects(session, kind, everywhere=everywhere)
    except KubernetesRefused as error:
        return Section(SECTIONS[kind][0], problem=str(error)), error.status == HTTPStatus.FORBIDDEN
    return section_of(kind, objects, network, note), False


def _objects(session: Session, kind: Kind, *, everywhere: bool) -> tuple[list[Object], str]:
    """The objects, and which they are where they are not all."""
    if kind not in _OF_TENANTS:
        found = session.kube.list(kind, session.controller_namespace)
        elsewhere = f"of namespace {session.controller_namespace}: --controller-namespace names another"
        return found, elsewhere if kind is NETWORK and not found else ""
    if session.chosen_namespace is not None and not everywhere:
        return session.kube.list(kind, session.chosen_namespace), f"of namespace {session.chosen_namespace}"
    try:
        return session.kube.list(kind), ""
    except KubernetesRefused as error:
        if everywhere or error.status != HTTPStatus.FORBIDDEN:
            raise
    return session.kube.list(kind, session.namespace), f"of namespace {session.namespace}, the others are not yours"
