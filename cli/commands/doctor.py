"""`edgefarm doctor`: what is wrong, and what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.session import CONTEXT_SETTINGS, Session, examples, with_session
from edgefarm.errors import KubernetesUnavailable


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        context_settings=CONTEXT_SETTINGS,
        epilog=examples(
            "edgefarm doctor", "edgefarm doctor pod sensor-0 -n factory", "edgefarm doctor network plant -o json"
        ),
    )(doctor)


@with_session
def doctor(
    session: Session,
    about: Annotated[
        str | None,
        typer.Argument(
            metavar="[pod|network|device]",
            help="What to look at.",
            autocompletion=lambda: ["pod", "network", "device"],
        ),
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Its name.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 for warnings, too.")] = False,
) -> None:
    """Walk the chain that everything depends on, and say in one sentence per finding what is wrong and what to do.

    Without arguments it looks at the installation: definitions, configuration, reconciler, webhook, Vault, NATS. With a
    pod, network or device it looks at what that one needs besides. What is behind the API server is looked at by the
    reconciler, which you may ask with the right to get pods/proxy in its namespace. Nothing is changed: the webhook is
    tried with a pod that is created on trial only (server-side dry run).

    Exit status 1: something is wrong; 3: nothing is known to be wrong, but something could not be looked at.
    """
    from cli.doctor.report import document_of, lines_of, status_of
    from cli.doctor.walk import Doctor
    from edgefarm.findings import Code, wrong
    from reconciler.diagnostics.question import Question, Scope

    if about is not None and (about not in (Scope.POD, Scope.NETWORK, Scope.DEVICE) or not name):
        raise typer.BadParameter("write `pod NAME`, `network NAME`, `device NAME`, or nothing")
    scope = Scope(about) if about is not None else Scope.INSTALLATION
    try:
        namespace = session.namespace if scope is Scope.POD else ""
        question = Question(scope, name or "", namespace)
        found = Doctor(session.kube, session.controller_namespace, datetime.now(UTC)).findings(question)
    except KubernetesUnavailable as error:
        advice = "see that `kubectl get namespaces` works with the same kubeconfig and context"
        found = [wrong(Code.API_UNREACHABLE, "Kubernetes API", str(error).rstrip(". "), advice)]
    session.output.show(document_of(found), lambda: lines_of(found))
    status = status_of(found, strict=strict)
    if status:
        raise typer.Exit(status)
