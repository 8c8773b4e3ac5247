"""Watches: order, selection, bookmarks, and what happens when the client asks for too much."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.kubernetes import LocalApiServer
from localcluster.process import LocalProcess, free_port
from tests.apiserver.rest import Json, Rest, pod


@pytest.fixture
def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def take(events: Iterator[Json], count: int) -> list[tuple[str, str]]:
    return [(e["type"], e["object"]["metadata"]["name"]) for e in itertools.islice(events, count)]


def test_changes_arrive_in_order(rest: Rest, maps: str) -> None:
    version = rest.read(maps)["metadata"]["resourceVersion"]
    with rest.watch(f"{maps}?resourceVersion={version}") as events:
        rest.create(maps, {"metadata": {"name": "a"}})
        rest.patch(f"{maps}/a", {"data": {"x": "y"}})
        rest.delete(f"{maps}/a")
        assert take(events, 3) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


def test_a_watch_goes_on_where_a_list_ended(rest: Rest, maps: str) -> None:
    version = rest.read(maps)["metadata"]["resourceVersion"]
    rest.create(maps, {"metadata": {"name": "a"}})
    rest.create(maps, {"metadata": {"name": "b"}})
    with rest.watch(f"{maps}?resourceVersion={version}") as events:
        assert take(events, 2) == [("ADDED", "a"), ("ADDED", "b")]


def test_a_watch_from_anywhere_begins_with_what_is_there(rest: Rest, maps: str) -> None:
    rest.create(maps, {"metadata": {"name": "a"}})
    with rest.watch(f"{maps}?resourceVersion=0") as events:
        assert take(events, 1) == [("ADDED", "a")]


def test_objects_that_enter_and_leave_the_selection_are_added_and_deleted(rest: Rest, maps: str) -> None:
    version = rest.read(maps)["metadata"]["resourceVersion"]
    with rest.watch(f"{maps}?resourceVersion={version}&labelSelector=x%3Dy") as events:
        rest.create(maps, {"metadata": {"name": "a"}})
        rest.patch(f"{maps}/a", {"metadata": {"labels": {"x": "y"}}})
        rest.patch(f"{maps}/a", {"data": {"k": "v"}})
        rest.patch(f"{maps}/a", {"metadata": {"labels": {"x": None}}})
        assert take(events, 3) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


def test_a_node_sees_the_pods_that_are_bound_to_it(rest: Rest, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    version = rest.read(pods)["metadata"]["resourceVersion"]
    with rest.watch(f"{pods}?resourceVersion={version}&fieldSelector=spec.nodeName%3Done") as events:
        rest.create(pods, pod("a"))
        binding = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "one"}}
        assert rest.post(f"{pods}/a/binding", binding).status == 201
        assert take(events, 1) == [("ADDED", "a")]


def test_initial_events_end_with_a_marked_bookmark(rest: Rest, maps: str) -> None:
    rest.create(maps, {"metadata": {"name": "a"}})
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    with rest.watch(f"{maps}?{query}") as events:
        first = next(events)
        if first["type"] == "ERROR":
            pytest.skip(first["object"]["message"])  # a real server on an etcd without progress requests
        second = next(events)
        assert (first["type"], second["type"]) == ("ADDED", "BOOKMARK")
        assert second["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_a_watch_ends_after_its_timeout(rest: Rest, maps: str) -> None:
    assert rest.get(f"{maps}?watch=true&timeoutSeconds=1&resourceVersion=0").text == ""


def test_one_object_can_be_watched(rest: Rest, maps: str) -> None:
    for name in ("a", "b"):
        rest.create(maps, {"metadata": {"name": name}})
    with rest.watch(f"{maps}?fieldSelector=metadata.name%3Db&resourceVersion=0") as events:
        assert take(events, 1) == [("ADDED", "b")]


def test_a_version_that_is_still_to_come_is_refused(rest: Rest, maps: str) -> None:
    answer = rest.get(f"{maps}?resourceVersion=99999999999&resourceVersionMatch=NotOlderThan")
    assert answer.status == 504
    assert "Too large resource version" in answer.body["message"]


def test_a_forgotten_version_is_gone_and_quiet_watches_get_bookmarks(work: Path, local_only: None) -> None:
    port = free_port()
    command = ["--data-dir", str(work), "--port", str(port), "--history", "10", "--bookmark-seconds", "0.2"]
    server = LocalApiServer.launch(work, command, "127.0.0.1", port)
    rest = Rest(server.url, server.ca, server.admin_token)
    try:
        maps = "/api/v1/namespaces/default/configmaps"
        version = rest.read(maps)["metadata"]["resourceVersion"]
        for number in range(20):
            rest.create(maps, {"metadata": {"name": f"m{number}"}})
        with rest.watch(f"{maps}?resourceVersion={version}") as events:
            event = next(events)
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        version = rest.read(maps)["metadata"]["resourceVersion"]
        with rest.watch(f"{maps}?resourceVersion={version}&allowWatchBookmarks=true") as events:
            rest.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "other"}})
            bookmark = next(e for e in events if int(e["object"]["metadata"]["resourceVersion"]) > int(version))
        assert bookmark["type"] == "BOOKMARK"
    finally:
        server.stop()


def test_the_server_ends_quickly_although_watches_are_open(work: Path, local_only: None) -> None:
    server = LocalApiServer.start(work)
    rest = Rest(server.url, server.ca, server.admin_token)
    process: LocalProcess = server.process
    with rest.watch("/api/v1/pods?resourceVersion=0"), rest.watch("/api/v1/namespaces?resourceVersion=0"):
        assert process.stop(grace=10) == 0
