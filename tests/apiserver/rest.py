"""A plain HTTP client for the API: what is sent and what comes back, with nothing in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3

Json = dict[str, Any]


class Answer:
    """A status, a body and the headers."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.data.decode()

    @property
    def body(self) -> Json:
        parsed: Json = json.loads(self.text)
        return parsed

    def __repr__(self) -> str:
        return f"{self.status} {self.text}"


class Rest:
    """Speaks to one API server with one token."""

    def __init__(self, url: str, ca: Path, token: str) -> None:
        self.url = url
        self.ca = ca
        self._pool = urllib3.PoolManager(ca_certs=str(ca), maxsize=8)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def as_token(self, token: str) -> Rest:
        return Rest(self.url, self.ca, token)

    def call(
        self, method: str, path: str, body: Any = None, content: str = "application/json", **headers: str
    ) -> Answer:
        """Any request."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**self._headers, "Content-Type": content, **{k.replace("_", "-"): v for k, v in headers.items()}}
        return Answer(self._pool.request(method, self.url + path, body=data, headers=sent, timeout=20, retries=False))

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any) -> Answer:
        return self.call("POST", path, body)

    def put(self, path: str, body: Any) -> Answer:
        return self.call("PUT", path, body)

    def patch(self, path: str, body: Any, kind: str = "merge-patch+json") -> Answer:
        return self.call("PATCH", path, body, f"application/{kind}")

    def delete(self, path: str, body: Any = None) -> Answer:
        return self.call("DELETE", path, body)

    def create(self, path: str, body: Json) -> Json:
        """POST that must succeed."""
        answer = self.post(path, body)
        assert answer.status == 201, answer
        return answer.body

    def read(self, path: str) -> Json:
        """GET that must succeed."""
        answer = self.get(path)
        assert answer.status == 200, answer
        return answer.body

    @contextmanager
    def watch(self, path: str) -> Iterator[Iterator[Json]]:
        """The events of a watch that is open on entry; ends with the block."""
        joint = "&" if "?" in path else "?"
        response = self._pool.request(
            "GET",
            f"{self.url}{path}{joint}watch=true&timeoutSeconds=20",
            headers=self._headers,
            timeout=25,
            preload_content=False,
            retries=False,
        )
        assert response.status == 200, response.data
        try:
            yield _events(response)
        finally:
            response.close()


def _events(response: urllib3.BaseHTTPResponse) -> Iterator[Json]:
    rest = b""
    for piece in response.stream(amt=None if not response.chunked else 65536):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)


def pod(name: str = "", **spec: Any) -> Json:
    """A small pod; `spec` replaces or adds fields."""
    containers = [{"name": "main", "image": "example/app:1"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "test"}},
        "spec": {"containers": containers, **spec},
    }


def deployment(name: str, **template: Any) -> Json:
    """A small deployment; `template` replaces or adds fields of its pod spec."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {**pod()["spec"], **template}},
        },
    }
