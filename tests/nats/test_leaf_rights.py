"""What the rights of leafs follow from, as values; `test_leaf_permissions.py` tries them on real servers."""

from __future__ import annotations

import pytest

from edgefarm.nats.leaf_rights import template_of_leaf
from edgefarm.nats.templates import PermissionTemplate


def template(
    publications: tuple[str, ...] = ("a.>", "b.>"),
    subscriptions: tuple[str, ...] = ("a.>", "b.>"),
    stored: tuple[str, ...] = (),
    network: str = "foo",
) -> PermissionTemplate:
    return template_of_leaf(network, publications=publications, subscriptions=subscriptions, stored=stored)


def received(found: PermissionTemplate) -> set[str]:
    """What comes from the hub, JetStream's own subjects aside."""
    return {subject for subject in found.sub_allow if not subject.startswith(("$", "_INBOX"))}


def test_a_leaf_receives_what_policies_subscribe_to_but_nothing_that_is_stored() -> None:
    assert received(template()) == {"a.>", "b.>"}
    assert received(template(stored=("a.>",))) == {"b.>"}
    assert received(template(subscriptions=("a.x", "b.*"), stored=("a.*", "b.y.z"))) == {"b.*"}


def test_nothing_is_denied_where_a_list_of_what_is_allowed_will_do() -> None:
    assert template(stored=("a.>",)).sub_deny == ()
    assert template(stored=("c.>",)).sub_deny == ()


def test_a_subscription_to_more_than_is_stored_is_narrowed_to_what_is_published() -> None:
    found = template(publications=("a.stored", "a.live"), subscriptions=("a.>",), stored=("a.stored",))
    assert received(found) == {"a.live"}
    assert found.sub_deny == ()


def test_a_subscription_to_everything_is_narrowed_to_what_is_published() -> None:
    found = template(subscriptions=(">",), stored=("a.>",))
    assert received(found) == {"b.>"}
    assert found.sub_deny == ()


def test_where_nothing_else_will_do_what_is_stored_is_denied() -> None:
    found = template(publications=("a.>",), subscriptions=("a.>",), stored=("a.stored",))
    assert received(found) == {"a.>"}
    assert found.sub_deny == ("a.stored",)
    found = template(publications=(">",), subscriptions=(">",), stored=("a.stored",))
    assert set(found.sub_deny) == {"a.stored", "$JS.API.>", "$SYS.>"}


@pytest.mark.parametrize("subject", ["$JS.main.API.>", "$JS.>", "$SYS.>", "$JS.API.CONSUMER.CREATE.S", "$KV.x.>"])
def test_no_policy_makes_a_leaf_receive_requests_to_servers(subject: str) -> None:
    assert subject not in template(subscriptions=(subject,)).sub_allow
    assert subject not in template(publications=(subject,), subscriptions=(">",)).sub_allow


@pytest.mark.parametrize(
    ("network", "own"), [("foo", "$JS.foo-{{name()}}.API.>"), ("foo-bar", "$JS.foo-bar__{{name()}}.API.>")]
)
def test_a_leafs_name_is_only_a_part_of_the_domain_that_it_answers_for(network: str, own: str) -> None:
    assert own in template(network=network).sub_allow


def test_equal_policies_give_equal_templates_whatever_their_order() -> None:
    one = template(("a", "b"), ("c", "d"), ("e", "f"))
    assert one == template(("b", "a"), ("d", "c"), ("f", "e"))


def test_leafs_connect_as_leafs_only() -> None:
    assert template().connection_types == ("LEAFNODE",)
