"""Create, read, update, list: metadata, conflicts, paging, selectors and errors as Kubernetes has them."""

from __future__ import annotations

import pytest

from tests.apiserver.rest import Json, Rest, deployment, pod


def configmap(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.fixture
def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def test_a_new_object_gets_uid_time_and_version(rest: Rest, maps: str) -> None:
    made = rest.create(maps, configmap("a", x="y"))
    assert made["metadata"]["uid"]
    assert made["metadata"]["creationTimestamp"].endswith("Z")
    assert int(made["metadata"]["resourceVersion"]) > 0
    assert "generation" not in made["metadata"]
    assert rest.read(f"{maps}/a") == made


def test_generate_name_appends_five_characters(rest: Rest, maps: str) -> None:
    made = rest.create(maps, {"metadata": {"generateName": "some-"}})
    assert len(made["metadata"]["name"]) == len("some-") + 5


def test_a_second_object_of_the_same_name_already_exists(rest: Rest, maps: str) -> None:
    rest.create(maps, configmap("a"))
    answer = rest.post(maps, configmap("a"))
    assert (answer.status, answer.body["reason"]) == (409, "AlreadyExists")
    assert answer.body["message"] == 'configmaps "a" already exists'


def test_an_absent_object_is_not_found(rest: Rest, maps: str) -> None:
    answer = rest.get(f"{maps}/none")
    assert answer.status == 404
    assert answer.body["message"] == 'configmaps "none" not found'
    assert answer.body["details"] == {"name": "none", "kind": "configmaps"}


def test_an_absent_namespace_is_not_found_on_create(rest: Rest) -> None:
    answer = rest.post("/api/v1/namespaces/absent/configmaps", configmap("a"))
    assert (answer.status, answer.body["message"]) == (404, 'namespaces "absent" not found')


def test_an_update_with_an_old_version_conflicts(rest: Rest, maps: str) -> None:
    first = rest.create(maps, configmap("a", x="1"))
    assert rest.put(f"{maps}/a", {**first, "data": {"x": "2"}}).status == 200
    answer = rest.put(f"{maps}/a", {**first, "data": {"x": "3"}})
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert "the object has been modified" in answer.body["message"]


def test_an_update_without_version_is_accepted_where_kubernetes_accepts_it(rest: Rest, maps: str) -> None:
    rest.create(maps, configmap("a", x="1"))
    assert rest.put(f"{maps}/a", configmap("a", x="2")).body["data"] == {"x": "2"}


def test_a_lease_needs_a_version_on_update(rest: Rest, namespace: str) -> None:
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}
    rest.create(leases, lease)
    answer = rest.put(f"{leases}/l", lease)
    assert answer.status == 422
    assert answer.body["details"]["causes"][0]["field"] == "metadata.resourceVersion"
    assert "must be specified for an update" in answer.body["message"]


def test_an_update_that_changes_nothing_keeps_the_version(rest: Rest, maps: str) -> None:
    first = rest.create(maps, configmap("a", x="1"))
    again = rest.put(f"{maps}/a", first)
    assert again.body["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_a_dry_run_stores_nothing(rest: Rest, maps: str) -> None:
    answer = rest.post(f"{maps}?dryRun=All", configmap("a"))
    assert answer.status == 201
    assert rest.get(f"{maps}/a").status == 404


def test_a_wrong_uid_precondition_refuses_the_deletion(rest: Rest, maps: str) -> None:
    rest.create(maps, configmap("a"))
    answer = rest.delete(f"{maps}/a", {"preconditions": {"uid": "other"}})
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert rest.get(f"{maps}/a").status == 200


def test_a_name_that_is_no_dns_name_is_invalid(rest: Rest, maps: str) -> None:
    answer = rest.post(maps, configmap("Not_Valid"))
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.body["message"].startswith(
        'ConfigMap "Not_Valid" is invalid: metadata.name: Invalid value: "Not_Valid": '
    )


def test_a_body_of_another_kind_is_a_bad_request(rest: Rest, maps: str) -> None:
    answer = rest.post(maps, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}})
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")


def test_a_body_that_names_another_namespace_is_a_bad_request(rest: Rest, maps: str) -> None:
    answer = rest.post(maps, {"metadata": {"name": "a", "namespace": "other"}})
    assert answer.status == 400
    assert "does not match the namespace sent on the request" in answer.body["message"]


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'"text"', b"\xff\xfe"])
def test_garbage_is_a_bad_request(rest: Rest, maps: str, garbage: bytes) -> None:
    assert rest.call("POST", maps, garbage).status == 400


def test_lists_come_in_pages_that_continue(rest: Rest, maps: str) -> None:
    for name in "abcde":
        rest.create(maps, configmap(name))
    first = rest.read(f"{maps}?limit=2")
    assert [item["metadata"]["name"] for item in first["items"]] == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 3
    second = rest.read(f"{maps}?limit=10&continue={first['metadata']['continue']}")
    assert [item["metadata"]["name"] for item in second["items"]] == ["c", "d", "e"]
    assert "continue" not in second["metadata"]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("tier=web", ["a"]),
        ("tier==web", ["a"]),
        ("tier!=web", ["b", "c"]),
        ("tier in (web, db)", ["a", "b"]),
        ("tier notin (web)", ["b", "c"]),
        ("tier", ["a", "b"]),
        ("!tier", ["c"]),
        ("tier=db,app=x", ["b"]),
        ("tier in (web,db),app=x", ["a", "b"]),
    ],
)
def test_label_selectors(rest: Rest, maps: str, selector: str, found: list[str]) -> None:
    for name, labels in {"a": {"tier": "web", "app": "x"}, "b": {"tier": "db", "app": "x"}, "c": {}}.items():
        rest.create(maps, {"metadata": {"name": name, "labels": labels}})
    query = selector.replace(" ", "%20").replace("!", "%21").replace("=", "%3D")
    listed = rest.read(f"{maps}?labelSelector={query}")
    assert [item["metadata"]["name"] for item in listed["items"]] == found


def test_field_selectors(rest: Rest, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    rest.create(pods, pod("a", nodeName="one"))
    rest.create(pods, pod("b"))
    assert [p["metadata"]["name"] for p in rest.read(f"{pods}?fieldSelector=spec.nodeName%3Done")["items"]] == ["a"]
    assert [p["metadata"]["name"] for p in rest.read(f"{pods}?fieldSelector=spec.nodeName%3D")["items"]] == ["b"]
    assert len(rest.read(f"{pods}?fieldSelector=status.phase%3DPending")["items"]) == 2
    answer = rest.get(f"{pods}?fieldSelector=spec.unknown%3Dx")
    assert answer.status == 400
    assert "field label not supported: spec.unknown" in answer.body["message"]


def test_generation_counts_changes_of_the_spec_only(rest: Rest, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    assert rest.create(path, deployment("web"))["metadata"]["generation"] == 1
    labelled = rest.patch(f"{path}/web", {"metadata": {"labels": {"a": "b"}}}).body
    assert labelled["metadata"]["generation"] == 1
    status = {"status": {"replicas": 1, "observedGeneration": 1}}
    assert rest.patch(f"{path}/web/status", status).body["metadata"]["generation"] == 1
    assert rest.patch(f"{path}/web", {"spec": {"replicas": 3}}).body["metadata"]["generation"] == 2


def test_the_status_is_written_through_its_subresource_only(rest: Rest, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    made = rest.create(path, {**deployment("web"), "status": {"replicas": 7}})
    assert "replicas" not in made.get("status", {})
    assert "replicas" not in rest.patch(f"{path}/web", {"status": {"replicas": 7}}).body.get("status", {})
    changed = rest.patch(f"{path}/web/status", {"status": {"replicas": 7}, "spec": {"replicas": 9}}).body
    assert (changed["status"]["replicas"], changed["spec"]["replicas"]) == (7, 1)


def test_a_finalizer_holds_an_object_until_it_is_removed(rest: Rest, maps: str) -> None:
    rest.create(maps, {"metadata": {"name": "a", "finalizers": ["example.org/hold"]}})
    deleted = rest.delete(f"{maps}/a")
    assert deleted.status == 200
    held = rest.read(f"{maps}/a")
    assert held["metadata"]["deletionTimestamp"]
    added = rest.patch(f"{maps}/a", {"metadata": {"finalizers": ["example.org/hold", "example.org/more"]}})
    assert added.status == 422
    assert rest.patch(f"{maps}/a", {"metadata": {"finalizers": None}}).status == 200
    assert rest.get(f"{maps}/a").status == 404


def test_a_pod_on_a_node_waits_for_its_kubelet(rest: Rest, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    rest.create(pods, pod("bound", nodeName="one", terminationGracePeriodSeconds=7))
    deleted = rest.delete(f"{pods}/bound").body
    assert deleted["metadata"]["deletionGracePeriodSeconds"] == 7
    assert rest.read(f"{pods}/bound")["metadata"]["deletionTimestamp"]
    rest.delete(f"{pods}/bound", {"gracePeriodSeconds": 0})
    assert rest.get(f"{pods}/bound").status == 404


def test_a_pod_without_a_node_is_gone_at_once(rest: Rest, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    rest.create(pods, pod("free"))
    assert rest.delete(f"{pods}/free").status == 200
    assert rest.get(f"{pods}/free").status == 404


def test_delete_collection_deletes_what_the_selector_selects(rest: Rest, maps: str) -> None:
    rest.create(maps, {"metadata": {"name": "a", "labels": {"x": "y"}}})
    rest.create(maps, {"metadata": {"name": "b"}})
    assert rest.delete(f"{maps}?labelSelector=x%3Dy").status == 200
    assert [item["metadata"]["name"] for item in rest.read(maps)["items"]] == ["b"]


def test_a_deleted_namespace_takes_its_content_along(rest: Rest, namespace: str, maps: str, local_only: None) -> None:
    rest.create(maps, {"metadata": {"name": "held", "finalizers": ["example.org/hold"]}})
    rest.create(maps, configmap("free"))
    rest.delete(f"/api/v1/namespaces/{namespace}")
    assert rest.read(f"/api/v1/namespaces/{namespace}")["status"]["phase"] == "Terminating"
    assert rest.get(f"{maps}/free").status == 404
    refused = rest.post(maps, configmap("late"))
    assert refused.status == 403
    assert "because it is being terminated" in refused.body["message"]
    rest.patch(f"{maps}/held", {"metadata": {"finalizers": None}})
    assert rest.get(f"/api/v1/namespaces/{namespace}").status == 404


def test_a_namespace_carries_its_name_as_a_label(rest: Rest, namespace: str) -> None:
    made = rest.read(f"/api/v1/namespaces/{namespace}")
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": namespace}
    assert made["status"]["phase"] == "Active"


def test_secrets_encode_string_data(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/secrets"
    made = rest.create(path, {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    assert (made["data"], made["type"]) == ({"a": "Yg=="}, "Opaque")
    assert "stringData" not in made


def test_events_are_the_same_objects_in_both_groups(rest: Rest, namespace: str) -> None:
    about = {"kind": "Pod", "namespace": namespace, "name": "p", "uid": "1", "apiVersion": "v1"}
    event = {
        "metadata": {"name": "e"},
        "involvedObject": about,
        "reason": "Because",
        "message": "text",
        "type": "Normal",
    }
    rest.create(f"/api/v1/namespaces/{namespace}/events", event)
    seen = rest.read(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events/e")
    assert (seen["note"], seen["regarding"]["name"]) == ("text", "p")
    found = rest.read(f"/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name%3Dp")
    assert len(found["items"]) == 1


def test_scale_reads_and_writes_the_replicas(rest: Rest, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    rest.create(path, deployment("web"))
    assert rest.patch(f"{path}/web/scale", {"spec": {"replicas": 4}}).body["spec"]["replicas"] == 4
    assert rest.read(f"{path}/web")["spec"]["replicas"] == 4
    assert rest.read(f"{path}/web/scale")["status"]["selector"] == "app=web"


def test_tables_and_metadata_are_served_on_request(rest: Rest, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    rest.create(pods, pod("a"))
    table = rest.get(pods, Accept="application/json;as=Table;v=v1;g=meta.k8s.io,application/json").body
    assert table["kind"] == "Table"
    assert [c["name"] for c in table["columnDefinitions"]][:5] == ["Name", "Ready", "Status", "Restarts", "Age"]
    assert table["rows"][0]["cells"][:3] == ["a", "0/1", "Pending"]
    accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    partial = rest.get(pods, Accept=accept).body
    assert partial["kind"] == "PartialObjectMetadataList"
    assert "spec" not in partial["items"][0]


def test_callers_without_a_valid_token_are_unauthorized(rest: Rest) -> None:
    for token in ("", "wrong", "eyJhbGciOiJub25lIn0.e30."):
        answer = rest.as_token(token).get("/api/v1/nodes")
        if token:
            assert (answer.status, answer.body["reason"]) == (401, "Unauthorized")
        else:
            assert answer.status in (401, 403)  # a real server knows anonymous users


def test_health_is_open_to_everybody(rest: Rest) -> None:
    for path in ("/healthz", "/readyz", "/livez"):
        assert rest.as_token("").get(path).text == "ok"


def test_unknown_resources_and_methods_are_refused(rest: Rest, maps: str) -> None:
    assert rest.get("/apis/none.example/v1/things").status == 404
    assert rest.get("/api/v1/things").status == 404
    assert rest.call("PATCH", maps, {}, "application/merge-patch+json").status == 405
    assert rest.call("PATCH", f"{maps}/a", b"x", "text/plain").status == 415


@pytest.mark.parametrize(
    "metadata",
    [
        "text",
        [1],
        {"name": 5},
        {"name": ["a"]},
        {"name": "a", "labels": ["x"]},
        {"name": "a", "labels": {"a": 1}},
        {"name": "a", "finalizers": "x"},
        {"name": "a", "ownerReferences": [1]},
    ],
)
def test_metadata_of_wrong_types_is_a_bad_request(rest: Rest, maps: str, metadata: object) -> None:
    assert rest.post(maps, {"metadata": metadata}).status == 400


@pytest.mark.parametrize(
    "query", ["limit=x", "resourceVersion=x", "labelSelector=%3D%3D%3D", "fieldSelector=x", "continue=x"]
)
def test_query_parameters_that_make_no_sense_are_bad_requests(rest: Rest, maps: str, query: str) -> None:
    assert rest.get(f"{maps}?{query}").status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"k8s\x00",
        b"k8s\x00\x0a\xff",
        b"not the envelope",
        # A ConfigMap whose metadata (field 1) is a number where a message belongs.
        b"k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x02\x08\x05",
        # A ConfigMap with a map entry that is cut off.
        b"k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x03\x12\x05\x0a",
    ],
)
def test_broken_protobuf_is_a_bad_request(rest: Rest, maps: str, body: bytes) -> None:
    answer = rest.call("POST", maps, body, "application/vnd.kubernetes.protobuf")
    assert answer.status in (400, 415, 422), answer  # a real server reads an empty message as an empty object


@pytest.mark.parametrize("patch", [b"{", b"[]", b"5", b'[{"op":"jump"}]', b'{"metadata":5}', b'{"data":[1]}'])
@pytest.mark.parametrize("kind", ["json-patch+json", "merge-patch+json", "strategic-merge-patch+json"])
def test_broken_patches_are_refused(rest: Rest, maps: str, patch: bytes, kind: str) -> None:
    rest.create(maps, configmap("a", x="y"))
    if (patch, kind) == (b"[]", "json-patch+json"):
        assert rest.call("PATCH", f"{maps}/a", patch, f"application/{kind}").status == 200
    else:
        assert 400 <= rest.call("PATCH", f"{maps}/a", patch, f"application/{kind}").status < 500
