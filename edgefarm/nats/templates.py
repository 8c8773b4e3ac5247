"""Owns the permissions of the users we issue: templates of scoped signing keys, in the layout of NATS' JWT claims."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgefarm.nats.subjects import covers
from edgefarm.nats.subscriptions import Subscriptions, enforceable

#: Where replies and JetStream acknowledgements arrive; Dapr's NATS client cannot be given another prefix.
INBOX: Final = "_INBOX.>"
#: Where the hub answers the reconciler in the system account. Leafs see which reply subject a changed account JWT is
#: sent with; they may not publish there, so they can neither forge the hub's answer nor spend their uplinks on one.
CONTROLLER_INBOX: Final = "_CONTROLLER"
_EVERYTHING: Final = ">"
_UNLIMITED: Final = -1


@dataclass(frozen=True)
class PermissionTemplate:
    """What users under a scoped signing key may do.

    As in NATS an empty allow list allows everything that is not denied; `template_of_policy` never leaves it at that.
    """

    pub_allow: tuple[str, ...] = ()
    pub_deny: tuple[str, ...] = ()
    sub_allow: tuple[str, ...] = ()
    sub_deny: tuple[str, ...] = ()
    connection_types: tuple[str, ...] = ("STANDARD",)

    def claims(self) -> dict[str, Any]:
        """The `template` member of a scoped key. Limits must be present: the server reads a missing one as 0."""
        return {
            "pub": _permission(self.pub_allow, self.pub_deny),
            "sub": _permission(self.sub_allow, self.sub_deny),
            "subs": _UNLIMITED,
            "data": _UNLIMITED,
            "payload": _UNLIMITED,
            "allowed_connection_types": list(self.connection_types),
        }


#: How the reconciler asks the hub's servers about themselves, and has one of them read its configuration again.
SERVERS_STATE: Final = "$SYS.REQ.SERVER.PING.VARZ"
SERVERS_STREAMS: Final = "$SYS.REQ.SERVER.PING.JSZ"
SERVER_RELOAD: Final = "$SYS.REQ.SERVER.*.RELOAD"

#: What the reconciler's own user in the system account may do: push, list, look up and delete account JWTs, see which
#: leafs are connected, and look after servers that it runs itself.
SYSTEM_CONTROLLER_TEMPLATE: Final = PermissionTemplate(
    pub_allow=(
        "$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP",
        "$SYS.REQ.CLAIMS.DELETE",
        "$SYS.REQ.CLAIMS.LIST",
        "$SYS.REQ.CLAIMS.UPDATE",
        SERVER_RELOAD,
        SERVERS_STREAMS,
        "$SYS.REQ.SERVER.PING.LEAFZ",
        SERVERS_STATE,
    ),
    # Who comes and goes in the system account itself: leafs. LEAFNODE.CONNECT is sent only between gateways.
    sub_allow=(
        "$SYS.ACCOUNT.{{account-subject()}}.CONNECT",
        "$SYS.ACCOUNT.{{account-subject()}}.DISCONNECT",
        f"{CONTROLLER_INBOX}.>",
    ),
)

#: What the reconciler's own user in a network may do: manage streams and consumers, in the hub and in every leaf.
JETSTREAM_CONTROLLER_TEMPLATE: Final = PermissionTemplate(pub_allow=("$JS.*.API.>", "$JS.API.>"), sub_allow=(INBOX,))


#: What NACK's user in a network may do: look at, make, change and delete streams, in the hub and in every leaf, but not
#: consume from them. Its client receives answers nowhere else.
NACK_TEMPLATE: Final = PermissionTemplate(
    pub_allow=tuple(
        f"{api}.STREAM.{verb}.*" for api in ("$JS.*.API", "$JS.API") for verb in ("CREATE", "DELETE", "INFO", "UPDATE")
    ),
    sub_allow=(INBOX,),
)

#: What a node agent may do in the agents' account: speak, and be spoken to, below its own key only.
AGENT_TEMPLATE: Final = PermissionTemplate(
    pub_allow=("agent.{{subject()}}.up.>",), sub_allow=("agent.{{subject()}}.down.>",)
)

#: What the reconciler's own user there may do: hear and ask all agents, but not speak in the place of one.
AGENTS_CONTROLLER_TEMPLATE: Final = PermissionTemplate(pub_allow=("agent.*.down.>",), sub_allow=("agent.*.up.>",))


def template_of_policy(
    allowpub: Iterable[str], allowsub: Iterable[str], denypub: Iterable[str], denysub: Iterable[str]
) -> PermissionTemplate:
    """The permissions of a Policy. Equal policies give equal templates, whatever the order of their subjects.

    An empty allow list means "nothing" here and "everything" in NATS, so it becomes a deny of `>`. Who may publish may
    also receive replies and acknowledgements, unless `denysub` covers all inboxes. What `unenforceable_subscriptions`
    names is not granted.
    """
    publish = set(allowpub)
    subscriptions = _subscriptions(publish, allowsub, denysub)
    return PermissionTemplate(
        pub_allow=tuple(sorted(publish)),
        pub_deny=tuple(sorted(set(denypub))) if publish else (_EVERYTHING,),
        sub_allow=tuple(sorted(subscriptions.allow)),
        sub_deny=tuple(sorted(subscriptions.deny)) if subscriptions.allow else (_EVERYTHING,),
    )


def unenforceable_subscriptions(
    allowpub: Iterable[str], allowsub: Iterable[str], denysub: Iterable[str]
) -> tuple[str, ...]:
    """Filters of `allowsub` ending in `*` that NATS could only grant together with all that lies below them, because
    another filter (or the inboxes of a publisher) lies there, too; see `edgefarm.nats.subscriptions`."""
    return tuple(sorted(_subscriptions(set(allowpub), allowsub, denysub).dropped))


def _subscriptions(publish: Collection[str], allowsub: Iterable[str], denysub: Iterable[str]) -> Subscriptions:
    subscribe, denied = set(allowsub), set(denysub)
    if publish and not any(covers(pattern, INBOX) for pattern in denied):
        subscribe.add(INBOX)
    return enforceable(subscribe, denied)


def _permission(allow: Sequence[str], deny: Sequence[str]) -> dict[str, list[str]]:
    return {name: list(subjects) for name, subjects in (("allow", allow), ("deny", deny)) if subjects}
