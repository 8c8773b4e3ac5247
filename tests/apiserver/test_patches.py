"""JSON, merge, strategic merge and apply patches."""

from __future__ import annotations

import pytest

from tests.apiserver.rest import Json, Rest, deployment


@pytest.fixture
def path(rest: Rest, namespace: str) -> str:
    """A deployment with two containers."""
    folder = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    containers = [
        {"name": "main", "image": "example/app:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"name": "helper", "image": "example/helper:1"},
    ]
    rest.create(folder, deployment("web", containers=containers))
    return f"{folder}/web"


def containers(obj: Json) -> dict[str, Json]:
    return {container["name"]: container for container in obj["spec"]["template"]["spec"]["containers"]}


def template(**spec: object) -> Json:
    return {"spec": {"template": {"spec": spec}}}


def test_json_patch_applies_operations_in_order(rest: Rest, path: str) -> None:
    operations = [
        {"op": "test", "path": "/spec/replicas", "value": 1},
        {"op": "replace", "path": "/spec/replicas", "value": 2},
        {"op": "add", "path": "/metadata/labels", "value": {"a/b": "c"}},
    ]
    changed = rest.patch(path, operations, "json-patch+json").body
    assert (changed["spec"]["replicas"], changed["metadata"]["labels"]) == (2, {"a/b": "c"})


def test_a_failed_test_operation_is_unprocessable(rest: Rest, path: str) -> None:
    operations = [{"op": "test", "path": "/spec/replicas", "value": 9}]
    assert rest.patch(path, operations, "json-patch+json").status == 422


def test_merge_patch_replaces_lists_and_removes_nulls(rest: Rest, path: str) -> None:
    patch = template(containers=[{"name": "only", "image": "example/only:1"}])
    assert set(containers(rest.patch(path, patch).body)) == {"only"}


def test_strategic_merge_merges_lists_by_their_keys(rest: Rest, path: str) -> None:
    patch = template(containers=[{"name": "main", "image": "example/app:2", "env": [{"name": "C", "value": "3"}]}])
    changed = containers(rest.patch(path, patch, "strategic-merge-patch+json").body)
    assert changed["main"]["image"] == "example/app:2"
    assert {v["name"] for v in changed["main"]["env"]} == {"A", "B", "C"}
    assert changed["helper"]["image"] == "example/helper:1"


def test_strategic_merge_deletes_by_directive(rest: Rest, path: str) -> None:
    patch = template(containers=[{"name": "helper", "$patch": "delete"}])
    assert set(containers(rest.patch(path, patch, "strategic-merge-patch+json").body)) == {"main"}


def test_strategic_merge_replaces_by_directive(rest: Rest, path: str) -> None:
    patch = template(containers=[{"$patch": "replace"}, {"name": "only", "image": "example/only:1"}])
    assert set(containers(rest.patch(path, patch, "strategic-merge-patch+json").body)) == {"only"}


def test_strategic_merge_orders_by_directive(rest: Rest, path: str) -> None:
    spec = {
        "$setElementOrder/containers": [{"name": "helper"}, {"name": "main"}],
        "containers": [{"name": "helper", "image": "example/helper:2"}],
    }
    changed = rest.patch(path, template(**spec), "strategic-merge-patch+json").body
    assert [c["name"] for c in changed["spec"]["template"]["spec"]["containers"]] == ["helper", "main"]


def test_strategic_merge_replaces_atomic_lists(rest: Rest, path: str) -> None:
    for key in ("one", "two"):
        patch = template(tolerations=[{"key": key, "operator": "Exists"}])
        changed = rest.patch(path, patch, "strategic-merge-patch+json").body
    tolerations = changed["spec"]["template"]["spec"]["tolerations"]
    assert [toleration["key"] for toleration in tolerations] == ["two"]


def test_finalizers_merge_as_a_set(rest: Rest, path: str) -> None:
    for finalizer in ("example.org/a", "example.org/b", "example.org/a"):
        patch = {"metadata": {"finalizers": [finalizer]}}
        changed = rest.patch(path, patch, "strategic-merge-patch+json").body
    assert sorted(changed["metadata"]["finalizers"]) == ["example.org/a", "example.org/b"]
    removal = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.org/a"]}}
    assert rest.patch(path, removal, "strategic-merge-patch+json").body["metadata"]["finalizers"] == ["example.org/b"]


def test_a_patch_with_an_old_version_conflicts(rest: Rest, path: str) -> None:
    version = rest.read(path)["metadata"]["resourceVersion"]
    rest.patch(path, {"spec": {"replicas": 2}})
    stale = {"metadata": {"resourceVersion": version}, "spec": {"replicas": 3}}
    assert rest.patch(path, stale).status == 409


def applied(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def apply(rest: Rest, path: str, obj: Json, manager: str, *, force: bool = False) -> Json:
    query = f"?fieldManager={manager}" + ("&force=true" if force else "")
    answer = rest.patch(path + query, obj, "apply-patch+yaml")
    assert answer.status in (200, 201), answer
    return answer.body


@pytest.fixture
def config(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps/c"


def test_apply_creates_and_records_the_manager(rest: Rest, config: str) -> None:
    made = apply(rest, config, applied("c", a="1"), "one")
    (entry,) = made["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("one", "Apply")
    assert entry["fieldsV1"]["f:data"]["f:a"] == {}


def test_apply_removes_what_the_manager_no_longer_names(rest: Rest, config: str) -> None:
    apply(rest, config, applied("c", a="1", b="2"), "one")
    rest.patch(config, {"data": {"other": "kept"}})
    assert apply(rest, config, applied("c", a="1"), "one")["data"] == {"a": "1", "other": "kept"}


def test_apply_keeps_a_field_that_another_manager_applies_too(rest: Rest, config: str) -> None:
    apply(rest, config, applied("c", a="1", b="2"), "one")
    apply(rest, config, applied("c", b="2"), "two")
    assert apply(rest, config, applied("c", a="1"), "one")["data"] == {"a": "1", "b": "2"}


def test_apply_conflicts_with_another_manager_unless_forced(rest: Rest, config: str) -> None:
    apply(rest, config, applied("c", a="1"), "one")
    answer = rest.patch(f"{config}?fieldManager=two", applied("c", a="2"), "apply-patch+yaml")
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert answer.body["message"] == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    assert apply(rest, config, applied("c", a="2"), "two", force=True)["data"] == {"a": "2"}


def test_apply_merges_lists_by_their_keys(rest: Rest, path: str) -> None:
    obj = deployment("web", containers=[{"name": "main", "image": "example/app:3"}])
    changed = containers(apply(rest, path, obj, "one", force=True))
    assert changed["main"]["image"] == "example/app:3"
    assert {v["name"] for v in changed["main"]["env"]} == {"A", "B"}
    assert "helper" in changed


def test_applying_the_same_again_changes_nothing(rest: Rest, path: str) -> None:
    obj = deployment("web", containers=[{"name": "main", "image": "example/app:3"}])
    first = apply(rest, path, obj, "one", force=True)
    assert apply(rest, path, obj, "one")["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_apply_needs_a_manager(rest: Rest, config: str) -> None:
    assert rest.patch(config, applied("c"), "apply-patch+yaml").status in (400, 422)


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"$retainKeys": 5}},
        {"spec": {"template": {"spec": {"containers": [{"image": "no/name"}]}}}},
    ],
)
def test_directives_and_items_of_wrong_types_are_refused(rest: Rest, path: str, patch: Json) -> None:
    assert rest.patch(path, patch, "strategic-merge-patch+json").status >= 400  # a real server answers some with 500


def test_applying_a_list_of_wrong_items_is_refused(rest: Rest, path: str) -> None:
    obj = deployment("web", containers=[5, "x"])
    answer = rest.patch(f"{path}?fieldManager=one&force=true", obj, "apply-patch+yaml")
    assert answer.status >= 400
