"""Network and Policy objects: parsed to frozen types, or refused with the field and what to write instead."""

from datetime import timedelta
from typing import Any

import pytest

from edgefarm.api.network import Network
from edgefarm.api.policy import Permissions, Policy, permission_fields
from edgefarm.errors import EdgefarmError


def _object(kind: str, name: str, spec: Any, **metadata: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "ns", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 3}
    return {"kind": kind, "metadata": meta | metadata, "spec": spec}


def network(spec: Any, name: str = "foo", **metadata: Any) -> Network:
    return Network.parse(_object("Network", name, spec, **metadata))


def policy(spec: Any, name: str = "sensor", **metadata: Any) -> Policy:
    return Policy.parse(_object("Policy", name, spec, **metadata))


def test_a_full_network_is_read() -> None:
    parsed = network(
        {
            "namespaces": ["a", "b", "a"],
            "limits": {"filestorage": "1Gi", "immemorystorage": "10Mi"},
            "defaultNetworkPolicy": {"spec": {"allowpub": ["hello.>"], "denysub": ["secret"]}},
            "credentials": {"renewEvery": "1h", "lifetime": "30d"},
        },
        deletionTimestamp="2026-01-02T00:00:00Z",
    )
    assert parsed.namespaces == ("a", "b")
    assert (parsed.limits.file_storage, parsed.limits.memory_storage) == (2**30, 10 * 2**20)
    assert parsed.default_policy == Permissions(allow_publish=("hello.>",), deny_subscribe=("secret",))
    assert parsed.credentials.lifetime == timedelta(days=30)
    assert parsed.meta.deleting
    assert parsed.meta.generation == 3


def test_an_empty_network_allows_nothing() -> None:
    parsed = network({})
    assert (parsed.namespaces, parsed.limits.file_storage, parsed.default_policy) == ((), 0, None)


def test_permissions_survive_being_written_and_read() -> None:
    spec = {"allowpub": ["a.>"], "denysub": ["b.*"]}
    assert permission_fields(policy(spec).permissions) == spec


def test_a_policy_reads_its_rotation_times() -> None:
    parsed = policy({}, annotations={"network.edgefarm.io/rotate-keys-at": "2026-02-01T00:00:00Z"})
    assert parsed.rotate_keys_at is not None
    assert parsed.rotate_keys_at.isoformat() == "2026-02-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"limits": {"filestorage": "lots"}}, r"spec\.limits\.filestorage: .*500Mi"),
        (
            {"limits": {"immemorystorage": "1Mi", "inmemorystorage": "1Mi"}},
            r"spec\.limits\.immemorystorage: .*only inmemorystorage",
        ),
        ({"limits": {"files": "1Mi"}}, r"spec\.limits\.files: is not known; known here: filestorage"),
        ({"namespaces": "a"}, r"spec\.namespaces: must be a list of strings, not a string"),
        ({"namespaces": ["a", "b.c"]}, r"spec\.namespaces\[1\]: .*no dots"),
        ({"namespaces": [1]}, r"spec\.namespaces\[0\]: must be a string, not a number"),
        ({"defaultNetworkPolicy": {"ref": "p", "spec": {}}}, r"spec\.defaultNetworkPolicy\.spec: .*only one"),
        ({"defaultNetworkPolicy": {"spec": {"allowpub": ["a b"]}}}, r"defaultNetworkPolicy\.spec\.allowpub\[0\]"),
        ({"credentials": {"renewEvery": "often"}}, r"spec\.credentials\.renewEvery: 'often' is not a duration"),
        ({"credentials": {"renewEvery": "0s"}}, r"longer than zero"),
        ({"credentials": {"renewEvery": "1h", "lifetime": "1h"}}, r"at most two thirds of lifetime"),
        ({"typo": 1}, r"spec\.typo: is not known"),
        ([], r"spec: must be an object, not a list"),
        ({"limits": True}, r"spec\.limits: must be an object, not a boolean"),
    ],
)
def test_a_wrong_network_is_refused_with_the_field(spec: Any, message: str) -> None:
    with pytest.raises(EdgefarmError, match=message):
        network(spec)


@pytest.mark.parametrize("subject", ["", "a b", "a..b", ".a", "a.", "a.>.b", "a\tb", ">.a", "{{name()}}.x"])
@pytest.mark.parametrize("field", ["allowpub", "allowsub", "denypub", "denysub"])
def test_a_policy_with_a_wrong_subject_is_refused_with_its_place(field: str, subject: str) -> None:
    with pytest.raises(EdgefarmError, match=rf"spec\.{field}\[1\]: "):
        policy({field: ["fine.>", subject]})


@pytest.mark.parametrize("name", ["a.b", "A", "a" * 64])
def test_names_that_cannot_be_joined_are_refused(name: str) -> None:
    with pytest.raises(EdgefarmError, match="no dots"):
        network({}, name=name)
    with pytest.raises(EdgefarmError, match="no dots"):
        policy({}, name=name)


def test_a_rotation_time_without_a_zone_is_refused() -> None:
    with pytest.raises(EdgefarmError, match="write for example 2026-01-31T12:00:00Z"):
        policy({}, annotations={"network.edgefarm.io/rotate-keys-at": "yesterday"})
