"""`edgefarm trace`: who a pod may talk to, by which subjects and streams, and what keeps it from that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.output import Row, Table
from cli.session import CONTEXT_SETTINGS, UNHEALTHY, Session, examples, with_session
from edgefarm import names
from edgefarm.errors import KubernetesRefused
from reconciler.ports import EDGE_NETWORK, NETWORK, POD, POLICY, STREAM, Kind, Object

if TYPE_CHECKING:
    from cli.tracing.trace import Partner, Trace

#: Pods of one Policy that are named; JSON has all.
_MOST_PODS: Final = 8


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        context_settings=CONTEXT_SETTINGS,
        epilog=examples("edgefarm trace sensor-0 -n shop", "edgefarm trace sensor-0 -n shop -o json | jq .hears"),
    )(trace)


@with_session
def trace(session: Session, pod: Annotated[str, typer.Argument(metavar="POD", help="Name of the pod.")]) -> None:
    """Show what a pod may say and hear, and with whom.

    Its network and Policy, its subjects and streams, and the other Policies and pods that hear or send these. Exit
    status 1: something keeps the pod from its network; the output says what.
    """
    from cli.tracing.members import Installation
    from cli.tracing.trace import trace as trace_pod

    kube, namespace = session.kube, session.namespace
    obj = kube.get(POD, namespace, pod)
    if obj is None:
        raise KubernetesRefused(
            f"there is no pod {pod!r} in namespace {namespace!r}: write its namespace with -n", HTTPStatus.NOT_FOUND
        )
    label = (obj["metadata"].get("labels") or {}).get(names.LABEL_NETWORK)
    networks = kube.list(NETWORK, session.controller_namespace)
    unseen: list[str] = []
    around = Installation(
        controller_namespace=session.controller_namespace,
        networks=networks,
        policies=_of_all(session, POLICY, unseen) if label else (),
        streams=_of_all(session, STREAM, unseen) if label else (),
        edge_networks=kube.list(EDGE_NETWORK, session.controller_namespace) if label else (),
    )
    pods = _of_all(session, POD, unseen, labels=f"{names.LABEL_NETWORK}={label}") if label else ()
    found = trace_pod(obj, around, pods)
    session.output.show({**found.document(), "notes": unseen}, lambda: _text(found, unseen))
    if found.advice is not None:
        raise typer.Exit(UNHEALTHY)


def _of_all(session: Session, kind: Kind, unseen: list[str], labels: str = "") -> Sequence[Object]:
    """The objects of all namespaces, or of the pod's alone where the user may not see more; that is noted."""
    try:
        return session.kube.list(kind, labels=labels)
    except KubernetesRefused as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
    unseen.append(f"{kind.plural} of other namespaces are not counted: you may not list them")
    return session.kube.list(kind, session.namespace, labels=labels)


def _text(found: Trace, unseen: Sequence[str]) -> Iterator[Table | str]:
    yield f"Pod {found.namespace}/{found.pod}, service account {found.service_account}"
    yield f"Network {found.network or 'none'}, policy {found.member.name if found.member else 'none'}"
    if found.advice is not None:
        yield f"{found.advice.reason}: {found.advice.message}"
    yield ""
    if found.member is not None:
        permissions = found.member.policy.permissions
        rows = [
            ("publish", permissions.allow_publish, permissions.deny_publish),
            ("subscribe", found.member.subscriptions, permissions.deny_subscribe),
        ]
        yield Table(
            "Subjects",
            ("MAY", "ALLOWED", "DENIED"),
            [Row((what, _subjects(allow) or "nothing", _subjects(deny))) for what, allow, deny in rows],
            wide=("ALLOWED", "DENIED"),
        )
        streams = [Row((each.stream, _subjects(each.filters), each.consumer or "any name")) for each in found.streams]
        yield Table("Streams it may consume", ("STREAM", "SUBJECTS", "CONSUMER"), streams, wide=("SUBJECTS",))
        yield _partners("Who may hear it", found.heard_by)
        yield _partners("Whom it may hear", found.hears)
    yield from unseen


def _partners(title: str, partners: Sequence[Partner]) -> Table:
    rows = [
        Row((each.namespace, each.policy, _subjects(each.subjects), _some(each.pods) or "no pod")) for each in partners
    ]
    return Table(title, ("NAMESPACE", "POLICY", "SUBJECTS", "PODS"), rows, "nobody", wide=("SUBJECTS", "PODS"))


def _subjects(subjects: Sequence[str]) -> str:
    return ", ".join(subjects)


def _some(pods: Sequence[str]) -> str:
    more = f" and {len(pods) - _MOST_PODS} more" if len(pods) > _MOST_PODS else ""
    return ", ".join(pods[:_MOST_PODS]) + more
