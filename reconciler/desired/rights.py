"""Decides what the users of a Policy may do: what it says, and what of the network's streams follows from that."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edgefarm.api.policy import Permissions
from edgefarm.nats.jetstream_rights import StoredSubjects, consumer_rights
from edgefarm.nats.templates import PermissionTemplate, template_of_policy, unenforceable_subscriptions


@dataclass(frozen=True)
class Rights:
    """The template of a Policy's scoped key, and what of the Policy NATS cannot grant as written: `subscriptions` are
    filters, `streams` such with the stream's name before them."""

    template: PermissionTemplate
    subscriptions: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()


def rights_of(permissions: Permissions, streams: Collection[StoredSubjects], consumer: str) -> Rights:
    """A Policy's rights in a network with these streams; `consumer` is its name where it may see a part only.

    Who may consume must be able to publish the requests for it and to receive the answers, so the template counts it
    among those who publish, even when `allowpub` is empty: its allow list then has these requests and nothing else.
    """
    consuming = consumer_rights(permissions.allow_subscribe, permissions.deny_subscribe, streams, consumer)
    publish = {*permissions.allow_publish, *consuming.allow}
    return Rights(
        template=template_of_policy(
            publish, permissions.allow_subscribe, permissions.deny_publish, permissions.deny_subscribe
        ),
        subscriptions=unenforceable_subscriptions(publish, permissions.allow_subscribe, permissions.deny_subscribe),
        streams=tuple(sorted(consuming.withheld)),
    )
