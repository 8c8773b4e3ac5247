"""Owns what leafs may do: with one connection in the system account, with the other in their network's account.

Seen from the hub a leaf is one client: "publish" is what goes from the node to the hub, "subscribe" what comes from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from edgefarm import names
from edgefarm.nats.subjects import covers, intersection, overlaps
from edgefarm.nats.templates import INBOX, PermissionTemplate

#: What a leaf may do in the system account: look up account JWTs, and be told of changed ones. It may answer nobody.
SYSTEM_LEAF_TEMPLATE: Final = PermissionTemplate(
    pub_allow=("$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP",),
    sub_allow=(
        "$SYS.REQ.ACCOUNT.*.CLAIMS.UPDATE",
        "$SYS.REQ.CLAIMS.DELETE",
        "$SYS.REQ.CLAIMS.UPDATE",
        "$SYS._INBOX.>",
    ),
    connection_types=("LEAFNODE",),
)

#: JetStream between servers, in both directions: answers to the making of consumers, messages for mirrors and streams
#: with sources, flow control.
_PLUMBING: Final = (INBOX, "$JSC.R.*", "$JS.FC.>", "$JS.M.>", "$JS.S.>")
#: What consumers on a node need of the hub's streams; who may consume what is for the Policies to say.
_MAIN_API: Final = tuple(
    f"$JS.{names.MAIN_DOMAIN}.API.{request}"
    for request in (
        "CONSUMER.CREATE.>",
        "CONSUMER.DURABLE.CREATE.>",
        "CONSUMER.INFO.>",
        "CONSUMER.MSG.NEXT.>",
        "INFO",
        "STREAM.INFO.*",
        "STREAM.NAMES",
    )
)
#: What no Policy makes a leaf pass on: changes to the streams of the hub or of another node, and servers' own subjects.
_NEVER_PUBLISHED: Final = (
    "$JS.API.>",
    "$SYS.>",
    *(
        f"$JS.*.API.{request}.>"
        for request in (
            "ACCOUNT",
            "CONSUMER.DELETE",
            "CONSUMER.LEADER",
            "CONSUMER.PAUSE",
            "META",
            "SERVER",
            "STREAM.CREATE",
            "STREAM.DELETE",
            "STREAM.LEADER",
            "STREAM.MSG.DELETE",
            "STREAM.PEER",
            "STREAM.PURGE",
            "STREAM.RESTORE",
            "STREAM.SNAPSHOT",
            "STREAM.UPDATE",
        )
    ),
)


def template_of_leaf(
    network: str, *, publications: Collection[str], subscriptions: Collection[str], stored: Collection[str]
) -> PermissionTemplate:
    """What the leafs of an EdgeNetwork may pass on in their network: what its Policies allow, and JetStream's plumbing.

    `publications` and `subscriptions` are those that the network's Policies allow. `stored` are the subjects of the
    streams on the nodes. A leaf does not get them from elsewhere, because the stream of every node would store what one
    of them published, and a stream that collects them would hold it many times.

    These are lists of what is allowed wherever that is possible. A leaf applies what it is denied to receive to what it
    sends as well (nats-server 2.15, `mperms` in client.go), so denied subjects no longer reach live subscribers in the
    hub. Only where a Policy subscribes to more than what is stored, and another one may publish all that, is there no
    other way.

    Users have to be named `names.leaf_user`: only requests for the JetStream of that node come to them. A holder that
    chooses another name can take the place of another node of this network, never that of the hub.
    """
    received = {
        pattern
        for pattern in _received(publications, subscriptions, stored)
        if not pattern.startswith("$") and not any(covers(kept, pattern) for kept in stored)
    }
    denied = {kept for kept in stored if any(overlaps(kept, pattern) for pattern in received)}
    if any(pattern[0] in "*>" for pattern in received):
        denied |= {"$JS.API.>", "$SYS.>"}
    own_api = f"$JS.{names.leaf_domain_prefix(network)}{{{{name()}}}}.API.>"
    return PermissionTemplate(
        pub_allow=tuple(sorted({*publications, *_PLUMBING, *_MAIN_API, "$JS.ACK.>"})),
        pub_deny=_NEVER_PUBLISHED,
        sub_allow=tuple(sorted({*received, *_PLUMBING, own_api})),
        sub_deny=tuple(sorted(denied)),
        connection_types=("LEAFNODE",),
    )


def _received(publications: Collection[str], subscriptions: Collection[str], stored: Collection[str]) -> Iterator[str]:
    """The subscriptions; those that reach further than an allow list may are narrowed to what somebody may publish."""
    for wanted in subscriptions:
        partly_stored = any(overlaps(kept, wanted) and not covers(kept, wanted) for kept in stored)
        if partly_stored or wanted[0] in "*>":
            yield from (common for sent in publications if (common := intersection(wanted, sent)) is not None)
        else:
            yield wanted
