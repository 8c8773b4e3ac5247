"""Ways to break exactly one thing that the command looks at, by the code of the finding that must come of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from edgefarm import names
from edgefarm.findings import Code
from tests.cli_doctor.ward import (
    CONFIGMAP,
    CRDS,
    DEPLOYMENTS,
    FACTORY,
    LEASE,
    REGISTRATION,
    SECRET,
    Ward,
)

Breaking = Callable[[Ward], Iterator[None]]
_POD: Final = ("pod", "sensor-0", "-n", FACTORY)


@dataclass(frozen=True)
class Break:
    """How it is broken, what the command is given then, whose kubeconfig it has, and what else follows from it."""

    broken: Callable[[Ward], AbstractContextManager[None]]
    arguments: tuple[str, ...] = ()
    consequences: frozenset[Code] = frozenset()
    kubeconfig: Callable[[Ward], Path] = lambda ward: ward.kubeconfig


BREAKS: Final[dict[Code, Break]] = {}


def breaks(code: Code, *consequences: Code, arguments: tuple[str, ...] = ()) -> Callable[[Breaking], Breaking]:
    """Register a generator that breaks something, and mends it when it goes on."""

    def register(breaking: Breaking) -> Breaking:
        BREAKS[code] = Break(contextlib.contextmanager(breaking), arguments, frozenset(consequences))
        return breaking

    return register


@breaks(Code.NOT_INSTALLED, arguments=("--controller-namespace", FACTORY))
def it_is_installed_in_another_namespace(_ward: Ward) -> Iterator[None]:
    yield


@breaks(Code.CRDS_MISSING)
def a_definition_is_gone(ward: Ward) -> Iterator[None]:
    with ward.without(f"{CRDS}/edgedevices.{names.GROUP}"):
        yield


@breaks(Code.CRDS_OUTDATED)
def a_definition_is_older(ward: Ward) -> Iterator[None]:
    path = f"{CRDS}/streams.{names.GROUP}"
    version = ward.rest.read(path)["spec"]["versions"][0]
    del version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["edgeNetwork"]
    version["schema"]["openAPIV3Schema"]["properties"]["spec"].pop("x-kubernetes-validations", None)
    with ward.changed(path, {"spec": {"versions": [version]}}):
        yield


@breaks(Code.CONFIGURATION_MISSING)
def there_is_no_configuration(ward: Ward) -> Iterator[None]:
    with ward.without(CONFIGMAP):
        yield


@breaks(Code.CONFIGURATION_INVALID)
def the_configuration_has_a_mistake(ward: Ward) -> Iterator[None]:
    with ward.changed(CONFIGMAP, {"data": {"config.yaml": "vault: {address: 'ftp://x'}"}}):
        yield


@breaks(Code.RECONCILER_ABSENT)
def no_reconciler_is_available(ward: Ward) -> Iterator[None]:
    with ward.changed(f"{DEPLOYMENTS}/network-controller", {"status": {"availableReplicas": 0}}, status=True):
        yield


@breaks(Code.RECONCILER_NOT_LEADING)
def the_lease_ran_out(ward: Ward) -> Iterator[None]:
    with ward.changed(LEASE, {"spec": {"renewTime": "2026-03-01T12:00:00.000000Z"}}):
        yield


@breaks(Code.RECONCILER_NOT_ANSWERING)
def the_leader_is_busy(ward: Ward) -> Iterator[None]:
    ward.pages.pages["/diagnostics"] = (503, "it took longer than 8 s: try again\n")
    yield


@breaks(Code.WEBHOOK_ABSENT)
def the_registration_is_gone(ward: Ward) -> Iterator[None]:
    with ward.without(REGISTRATION):
        yield


@breaks(Code.WEBHOOK_NOT_RUNNING)
def the_deployment_of_the_webhook_is_gone(ward: Ward) -> Iterator[None]:
    with ward.without(f"{DEPLOYMENTS}/network-webhook"):
        yield


@breaks(Code.WEBHOOK_WITHOUT_CA)
def the_registration_has_no_authority(ward: Ward) -> Iterator[None]:
    with _registered(ward, clientConfig={"url": f"https://127.0.0.1:{ward.webhook_port}/mutate"}):
        yield


@breaks(Code.WEBHOOK_CERTIFICATE_INVALID)
def the_certificate_has_ended(ward: Ward) -> Iterator[None]:
    with ward.changed(SECRET, ward.serve_certificate(timedelta(days=-1))):
        yield


@breaks(Code.WEBHOOK_CERTIFICATE_EXPIRING)
def the_certificate_was_not_renewed(ward: Ward) -> Iterator[None]:
    with ward.changed(SECRET, ward.serve_certificate(timedelta(days=2))):
        yield


@breaks(Code.WEBHOOK_UNREACHABLE)
def nobody_listens_where_the_webhook_is_registered(ward: Ward) -> Iterator[None]:
    client = ward.rest.read(REGISTRATION)["webhooks"][0]["clientConfig"]
    with _registered(ward, clientConfig={**client, "url": "https://127.0.0.1:1/mutate"}):
        yield


@breaks(Code.NAMESPACE_EXCLUDED)
def the_registration_leaves_the_namespace_alone(ward: Ward) -> Iterator[None]:
    excluded = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [FACTORY]}
    with _registered(ward, namespaceSelector={"matchExpressions": [excluded]}):
        yield


@breaks(Code.POD_NOT_LABELLED, arguments=_POD)
def the_pod_has_no_label(ward: Ward) -> Iterator[None]:
    with ward.pod("sensor-0", labelled=False):
        yield


@breaks(Code.SIDECAR_IMAGE_PULL, arguments=_POD)
def the_image_of_the_sidecar_cannot_be_pulled(ward: Ward) -> Iterator[None]:
    with ward.pod("sensor-0", sidecar={"state": {"waiting": {"reason": "ImagePullBackOff"}}}):
        yield


@breaks(Code.SIDECAR_NOT_STARTED, arguments=_POD)
def the_sidecar_does_not_start(ward: Ward) -> Iterator[None]:
    with ward.pod("sensor-0", sidecar={"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}}):
        yield


@breaks(Code.SIDECAR_NOT_READY, arguments=_POD)
def the_sidecar_waits_for_its_grant(ward: Ward) -> Iterator[None]:
    ward.pages.pages["/readyz"] = (503, "no grant yet: Vault refused the login\n")
    started = {"state": {"running": {"startedAt": "2026-03-01T12:00:00Z"}}, "ready": False, "started": False}
    with ward.pod("sensor-0", sidecar=started):
        yield


@contextlib.contextmanager
def _registered(ward: Ward, **changes: object) -> Iterator[None]:
    webhook = ward.rest.read(REGISTRATION)["webhooks"][0]
    with ward.changed(REGISTRATION, {"webhooks": [{**webhook, **changes}]}):
        yield
