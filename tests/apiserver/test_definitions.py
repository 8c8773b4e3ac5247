"""CustomResourceDefinitions: what they serve, and defaults, pruning, schema and CEL rules of their objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.apiserver.rest import Answer, Json, Rest
from tests.apiserver.waiting import eventually

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SPEC: Json = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 100},
        "mode": {"type": "string", "enum": ["a", "b"], "default": "a", "maxLength": 1},
        "word": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 4},
        "limit": {
            "x-kubernetes-int-or-string": True,
            # Without bounds a real server refuses the rules as too costly.
            "maxLength": 20,
            "x-kubernetes-validations": [
                {
                    "rule": "isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('1k'))",
                    "message": "write a quantity above 1k",
                }
            ],
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "names": {
            "type": "array",
            "x-kubernetes-list-type": "set",
            "items": {"type": "string", "maxLength": 20},
            "maxItems": 3,
        },
        "ports": {
            "type": "array",
            "maxItems": 5,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "maxLength": 20},
                    "port": {
                        "type": "integer",
                        "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "port is immutable"}],
                    },
                    "protocol": {"type": "string", "default": "TCP"},
                },
            },
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "dashed-name": {"type": "string", "maxLength": 20},
    },
    "x-kubernetes-validations": [
        {"rule": "self.size < 50", "messageExpression": "'too big for mode ' + self.mode"},
        {"rule": "self.mode == oldSelf.mode", "message": "mode is immutable", "fieldPath": ".mode"},
        {"rule": "!has(self.names) || self.names.all(n, n.startsWith('x'))", "message": "names begin with x"},
        {
            "rule": "!has(self.dashed__dash__name) || self.dashed__dash__name != 'bad'",
            "message": "not bad",
            "reason": "FieldValueForbidden",
        },
    ],
}


def definition(group: str, kind: str = "Thing", spec: Json = SPEC, **version: Any) -> Json:
    plural = f"{kind.lower()}s"
    schema = {
        "type": "object",
        "properties": {
            "spec": spec,
            "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
        },
        "x-kubernetes-validations": [{"rule": "self.metadata.name != 'reserved'", "message": "reserved name"}],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema},
                    **version,
                }
            ],
        },
    }


def established(rest: Rest, name: str) -> bool:
    conditions = rest.read(f"{CRDS}/{name}").get("status", {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


@pytest.fixture(scope="module")
def group(rest: Rest) -> str:
    """The API group of a definition that is served."""
    name = "definitions.example.org"
    rest.create(CRDS, definition(name))
    eventually(lambda: established(rest, f"things.{name}"))
    eventually(lambda: rest.get(f"/apis/{name}/v1/things").status == 200)
    return name


@pytest.fixture
def things(group: str, namespace: str) -> str:
    return f"/apis/{group}/v1/namespaces/{namespace}/things"


def thing(group: str, **spec: Any) -> Json:
    return {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec}


def refused(answer: Answer) -> str:
    assert (answer.status, answer.body["reason"]) == (422, "Invalid"), answer
    return str(answer.body["message"])


def test_defaults_are_filled_in_and_unknown_fields_pruned(rest: Rest, group: str, things: str) -> None:
    body = thing(group, size=1, unknown=1, free={"anything": 1}, ports=[{"name": "http", "more": 1}])
    made = rest.create(things, body)
    assert made["spec"] == {
        "size": 1,
        "mode": "a",
        "free": {"anything": 1},
        "ports": [{"name": "http", "protocol": "TCP"}],
    }
    assert made["metadata"]["generation"] == 1


def test_unknown_fields_warn_or_fail_as_asked(rest: Rest, group: str, things: str) -> None:
    body = thing(group, size=1, unknown=1)
    warned = rest.post(f"{things}?fieldValidation=Warn", body)
    assert warned.headers["Warning"] == '299 - "unknown field \\"spec.unknown\\""'
    strict = rest.post(f"{things}?fieldValidation=Strict", body)
    assert strict.status == 400
    assert 'strict decoding error: unknown field "spec.unknown"' in strict.body["message"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "spec.size: Required value"),
        ({"size": "1"}, 'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"'),
        ({"size": 0}, "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"),
        ({"size": 1, "mode": "c"}, 'spec.mode: Unsupported value: "c": supported values: "a", "b"'),
        ({"size": 1, "word": "A"}, "spec.word: Invalid value: \"A\": spec.word in body should match '^[a-z]+$'"),
        ({"size": 1, "word": "abcde"}, "spec.word: Too long: may not be more than 4 bytes"),
        ({"size": 1, "names": ["x", "x"]}, 'spec.names[1]: Duplicate value: "x"'),
        ({"size": 1, "names": ["x1", "x2", "x3", "x4"]}, "spec.names: Too many: 4: must have at most 3 items"),
        ({"size": 60}, "too big for mode a"),
        ({"size": 1, "names": ["y"]}, "names begin with x"),
        ({"size": 1, "limit": 5}, "spec.limit: Invalid value: 5: write a quantity above 1k"),
        ({"size": 1, "limit": "many"}, 'spec.limit: Invalid value: "many": write a quantity above 1k'),
        ({"size": 1, "dashed-name": "bad"}, "spec: Forbidden: not bad"),
    ],
)
def test_invalid_objects_are_refused_in_kubernetes_words(
    rest: Rest, group: str, things: str, spec: Json, message: str
) -> None:
    assert message in refused(rest.post(things, thing(group, **spec)))


def test_rules_at_the_root_see_the_name(rest: Rest, group: str, things: str) -> None:
    body = {**thing(group, size=1), "metadata": {"name": "reserved"}}
    assert "reserved name" in refused(rest.post(things, body))


def test_transition_rules_compare_with_the_old_object(rest: Rest, group: str, things: str) -> None:
    rest.create(things, thing(group, size=1, limit="2k", ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}]))
    message = refused(rest.patch(f"{things}/t", {"spec": {"mode": "b"}}))
    assert "spec.mode: Invalid value" in message
    assert "mode is immutable" in message
    swapped = {"spec": {"ports": [{"name": "b", "port": 2}, {"name": "a", "port": 9}]}}
    assert "port is immutable" in refused(rest.patch(f"{things}/t", swapped))
    reordered = {"spec": {"ports": [{"name": "b", "port": 2}, {"name": "a", "port": 1}]}}
    assert rest.patch(f"{things}/t", reordered).status == 200


def test_an_update_needs_a_version(rest: Rest, group: str, things: str) -> None:
    rest.create(things, thing(group, size=1))
    assert "must be specified for an update" in refused(rest.put(f"{things}/t", thing(group, size=2)))


def test_status_and_spec_are_written_apart(rest: Rest, group: str, things: str) -> None:
    made = rest.create(things, {**thing(group, size=1), "status": {"ready": True}})
    assert "status" not in made
    changed = rest.patch(f"{things}/t/status", {"status": {"ready": True, "junk": 1}, "spec": {"size": 9}}).body
    assert (changed["status"], changed["spec"]["size"]) == ({"ready": True}, 1)
    assert changed["metadata"]["generation"] == 1
    assert rest.patch(f"{things}/t", {"spec": {"size": 2}}).body["metadata"]["generation"] == 2


def test_strategic_merge_is_not_offered(rest: Rest, group: str, things: str) -> None:
    rest.create(things, thing(group, size=1))
    assert rest.patch(f"{things}/t", {"spec": {"size": 2}}, "strategic-merge-patch+json").status == 415


def test_apply_merges_lists_by_the_schema(rest: Rest, group: str, things: str) -> None:
    for manager, port in (("one", "a"), ("two", "b")):
        body = thing(group, size=1, ports=[{"name": port}])
        answer = rest.patch(f"{things}/t?fieldManager={manager}", body, "apply-patch+yaml")
        assert answer.status in (200, 201), answer
    assert [port["name"] for port in answer.body["spec"]["ports"]] == ["a", "b"]


def test_printer_columns_show_in_tables(rest: Rest, fresh: Callable[[str], str], namespace: str) -> None:
    group = f"{fresh('g')}.example.org"
    columns = [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]
    columns.append({"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'})
    rest.create(CRDS, definition(group, additionalPrinterColumns=columns))
    eventually(lambda: rest.get(f"/apis/{group}/v1/things").status == 200)
    things = f"/apis/{group}/v1/namespaces/{namespace}/things"
    rest.create(things, thing(group, size=3))
    table = rest.get(things, Accept="application/json;as=Table;v=v1;g=meta.k8s.io").body
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Size", "Ready"]
    assert table["rows"][0]["cells"] == ["t", 3, None]


def test_a_deleted_definition_takes_its_objects_along(rest: Rest, fresh: Callable[[str], str], namespace: str) -> None:
    group = f"{fresh('g')}.example.org"
    rest.create(CRDS, definition(group))
    eventually(lambda: rest.get(f"/apis/{group}/v1/things").status == 200)
    rest.create(f"/apis/{group}/v1/namespaces/{namespace}/things", thing(group, size=1))
    rest.delete(f"{CRDS}/things.{group}")
    eventually(lambda: rest.get(f"{CRDS}/things.{group}").status == 404)
    eventually(lambda: rest.get(f"/apis/{group}/v1/things").status == 404)


def test_definitions_that_make_no_sense_are_refused(rest: Rest, fresh: Callable[[str], str]) -> None:
    group = f"{fresh('g')}.example.org"
    wrong_name = {**definition(group), "metadata": {"name": "other.example.org"}}
    assert "metadata.name" in refused(rest.post(CRDS, wrong_name))
    bad_rule = definition(
        group,
        spec={"type": "object", "x-kubernetes-validations": [{"rule": "self.a ==", "message": "no"}]},
    )
    assert "x-kubernetes-validations[0].rule" in refused(rest.post(CRDS, bad_rule))
    untyped = definition(group, spec={"properties": {}})
    assert "type: Required value" in refused(rest.post(CRDS, untyped))
    pattern = definition(group, spec={"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}})
    assert "openAPIV3Schema" in refused(rest.post(CRDS, pattern))
