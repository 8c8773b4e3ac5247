"""Copies of a network's default policy."""

from __future__ import annotations

from typing import Any

from edgefarm import names
from edgefarm.api.network import Network
from edgefarm.api.policy import Policy
from reconciler.desired.copies import CopyPlan, effective_policies, find_template, plan_copies
from reconciler.desired.resources import FoundPolicy
from tests.reconciler.objects import NOW, copy_of_default, network, policy

INLINE = network("foo", ["factory", "office"], defaultNetworkPolicy={"spec": {"allowpub": ["hello.>"]}})


def plan(
    subject: dict[str, Any],
    found: list[dict[str, Any]],
    *,
    namespaces: tuple[str, ...] = ("factory", "office"),
    refers_to: dict[str, Any] | None = None,
) -> CopyPlan:
    parsed = Network.parse(subject)
    template = find_template(parsed, FoundPolicy.read(refers_to) if refers_to else None)
    return plan_copies(parsed, template, namespaces, {each["metadata"]["namespace"]: each for each in found})


def test_each_existing_namespace_gets_a_copy_that_names_the_network() -> None:
    wanted = plan(INLINE, [], namespaces=("factory",))
    assert wanted.create == ("factory",)
    copy = wanted.wanted["factory"]
    assert copy["metadata"]["name"] == "foo"
    assert copy["metadata"]["labels"] == {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_OF_NETWORK: "foo"}
    assert copy["spec"] == {"network": "foo", "allowpub": ["hello.>"]}


def test_a_copy_that_is_as_it_shall_be_is_left_alone() -> None:
    found = copy_of_default(allowpub=["hello.>"])
    wanted = plan(INLINE, [found], namespaces=("factory",))
    assert (wanted.create, wanted.update, wanted.delete, wanted.taken) == ((), (), (), ())
    assert wanted.wanted == {"factory": found}


def test_an_edited_copy_is_put_back_with_its_annotations_kept() -> None:
    found = copy_of_default(allowpub=["everything.>"])
    found["metadata"]["annotations"] = {names.ANNOTATION_ROTATE_KEYS_AT: "2026-01-01T00:00:00Z"}
    wanted = plan(INLINE, [found], namespaces=("factory",))
    assert wanted.update == ("factory",)
    assert wanted.wanted["factory"]["spec"]["allowpub"] == ["hello.>"]
    assert wanted.wanted["factory"]["metadata"] == found["metadata"]


def test_copies_go_with_the_namespace_or_the_default_policy() -> None:
    copies = [copy_of_default(namespace=namespace, allowpub=["hello.>"]) for namespace in ("factory", "lab")]
    assert plan(INLINE, copies, namespaces=("factory",)).delete == ("lab",)
    assert plan(network("foo", ["factory"]), copies).delete == ("factory", "lab")


def test_a_users_own_policy_of_that_name_is_neither_changed_nor_deleted() -> None:
    own = policy("foo", "factory", network="foo")
    wanted = plan(INLINE, [own])
    assert (wanted.create, wanted.update, wanted.delete, wanted.taken) == (("office",), (), (), ("factory",))
    assert plan(network("foo", ["factory"]), [own]).delete == ()


def test_the_default_policy_may_be_referred_to() -> None:
    subject = network("foo", ["factory"], defaultNetworkPolicy={"ref": "basic"})
    wanted = plan(subject, [], namespaces=("factory",), refers_to=policy("basic", "network"))
    assert wanted.wanted["factory"]["spec"] == {"network": "foo", "allowpub": ["sensor.>"]}


def test_an_unusable_reference_leaves_existing_copies_in_place() -> None:
    subject = network("foo", ["factory"], defaultNetworkPolicy={"ref": "basic"})
    for refers_to, reason in (
        (None, "DefaultPolicyNotFound"),
        (policy("basic", "network", allowpub=["a b"]), "DefaultPolicyInvalid"),
    ):
        found = FoundPolicy.read(refers_to) if refers_to else None
        assert find_template(Network.parse(subject), found).reason == reason
        wanted = plan(subject, [copy_of_default()], refers_to=refers_to)
        assert (wanted.create, wanted.update, wanted.delete) == ((), (), ())


def test_one_pass_decides_with_the_copies_it_is_about_to_make() -> None:
    stale = copy_of_default(namespace="lab")
    edited = copy_of_default(namespace="factory", allowpub=["everything.>"])
    own = policy("sensor")
    wanted = plan(INLINE, [stale, edited])
    effective = effective_policies([Policy.parse(each) for each in (stale, edited, own)], "foo", wanted, NOW)
    found = {(each.meta.namespace, each.meta.name): each.permissions.allow_publish for each in effective}
    assert found == {
        ("factory", "foo"): ("hello.>",),
        ("office", "foo"): ("hello.>",),
        ("factory", "sensor"): ("sensor.>",),
    }
