"""Keeps the webhook's certificate: the two Secrets and `caBundle`, as `reconciler.certs` plans them, and from drift."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from edgefarm import names
from reconciler import certs
from reconciler.configuration import Configuration
from reconciler.context import Context, Key, Mapper, Registration, Result, Watch
from reconciler.ports import MUTATING_WEBHOOK, SECRET, Kind, Object
from reconciler.status import merge_patch

REASON_CHANGED: Final = "WebhookCertificateChanged"
_SECRET_TYPES: Final = {names.WEBHOOK_CA_SECRET: "Opaque", names.WEBHOOK_SECRET: "kubernetes.io/tls"}
_SOONEST: Final = timedelta(seconds=1)


class WebhookCertificateController:
    """Reads the world, lets `certs.plan` decide, and writes what differs in the order that the plan asks for."""

    name = "webhook-certificate"

    def __init__(self, context: Context, settings: certs.CertificateSettings | None = None) -> None:
        self._context = context
        self._settings = settings or certs.CertificateSettings()
        #: The only root there is.
        self.key = Key(self.name, context.settings.namespace, names.WEBHOOK_CONFIGURATION)

    async def reconcile(self, key: Key) -> Result:
        """One pass; nothing is done before there is a configuration, or when somebody else issues the certificate."""
        context, configuration = self._context, self._context.configuration()
        if configuration is None or not configuration.webhook.issue_certificate:
            return Result()
        # Read afresh, not from a store: an authority that was made a moment ago must not be made again.
        ca_secret = await context.kube.get(SECRET, key.namespace, names.WEBHOOK_CA_SECRET)
        tls_secret = await context.kube.get(SECRET, key.namespace, names.WEBHOOK_SECRET)
        hosts = _hosts(key.namespace, configuration)
        now = context.clock()
        plan = certs.plan(
            certs.read_bundle(_data(ca_secret), _data(tls_secret)), now=now, names=hosts, settings=self._settings
        )
        await self._write_secret(names.WEBHOOK_CA_SECRET, ca_secret, plan.ca_secret)
        webhook = await self._write_ca_bundle(hosts, plan.ca_bundle)
        await self._write_secret(names.WEBHOOK_SECRET, tls_secret, plan.tls_secret)
        if plan.changes:
            context.log.info("the webhook's certificate changed", changes=list(plan.changes))
            if webhook is not None:
                context.events.normal(webhook, REASON_CHANGED, f"The reconciler {'; '.join(plan.changes)}.")
        return Result(max(plan.look_again_at - now, _SOONEST))

    async def _write_secret(self, name: str, secret: Object | None, data: Mapping[str, str]) -> None:
        if secret is None:
            metadata = {
                "namespace": self.key.namespace,
                "name": name,
                "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY},
            }
            await self._context.kube.create(
                SECRET,
                {
                    "apiVersion": SECRET.api_version,
                    "kind": SECRET.kind,
                    "metadata": metadata,
                    "type": _SECRET_TYPES[name],
                    "data": dict(data),
                },
            )
            return
        patch = merge_patch(_data(secret) or {}, data)
        if patch:
            version = {"resourceVersion": secret["metadata"]["resourceVersion"]}
            await self._context.kube.patch(SECRET, self.key.namespace, name, {"metadata": version, "data": patch})

    async def _write_ca_bundle(self, hosts: Sequence[str], bundle: bytes) -> Object | None:
        """Write `caBundle` where it differs; the webhook configuration, or None while there is none."""
        webhook = await self._context.kube.get(MUTATING_WEBHOOK, None, names.WEBHOOK_CONFIGURATION)
        if webhook is None:
            return None
        patch = ca_bundle_patch(webhook, self.key.namespace, hosts, bundle)
        if patch:
            await self._context.kube.patch(MUTATING_WEBHOOK, None, names.WEBHOOK_CONFIGURATION, patch)
        return webhook


def ca_bundle_patch(
    webhook: Mapping[str, Any], namespace: str, hosts: Sequence[str], bundle: bytes
) -> list[dict[str, Any]]:
    """JSON patch that gives every entry that leads to our webhook this `caBundle`; empty when all have it.

    An entry is ours when it names our Service, or a URL with one of the certificate's names.
    """
    wanted, patch = base64.b64encode(bundle).decode(), []
    for index, entry in enumerate(webhook.get("webhooks") or ()):
        client = entry.get("clientConfig") or {}
        if _is_ours(client, namespace, hosts) and client.get("caBundle") != wanted:
            # The test refuses the patch when entries have moved since they were read.
            patch.append({"op": "test", "path": f"/webhooks/{index}/name", "value": entry.get("name")})
            patch.append({"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": wanted})
    return patch


def build(context: Context) -> Registration:
    """The controller and its watches: one per object by name, so that no right to read other Secrets is needed."""
    controller = WebhookCertificateController(context)
    namespace = context.settings.namespace

    def watch(kind: Kind, name: str, where: str | None) -> Watch:
        return Watch(kind, _always(controller.key), namespace=where, fields=f"metadata.name={name}")

    watches = (
        watch(SECRET, names.WEBHOOK_CA_SECRET, namespace),
        watch(SECRET, names.WEBHOOK_SECRET, namespace),
        watch(MUTATING_WEBHOOK, names.WEBHOOK_CONFIGURATION, None),
    )
    return Registration(controller, watches, always=(controller.key,))


def _always(key: Key) -> Mapper:
    def mapper(_old: Object | None, _new: Object | None) -> Iterable[Key]:
        return (key,)

    return mapper


def _hosts(namespace: str, configuration: Configuration) -> tuple[str, ...]:
    """The names and addresses in the certificate: the Service's, and those of the configuration."""
    return tuple(dict.fromkeys((*names.webhook_hosts(namespace), *configuration.webhook.hosts)))


def _is_ours(client: Mapping[str, Any], namespace: str, hosts: Sequence[str]) -> bool:
    service = client.get("service")
    if service is not None:
        return bool(service.get("name") == names.WEBHOOK_SERVICE and service.get("namespace") == namespace)
    return urlsplit(client.get("url") or "").hostname in hosts


def _data(secret: Object | None) -> dict[str, str] | None:
    return None if secret is None else secret.get("data")
