"""Reads from the Kubernetes API as kubectl's user does; with `kubeconfig.py` the only importer of the official client.

Nothing is ever written through it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlencode

import urllib3
from kubernetes.client import ApiException, Configuration
from kubernetes.client.rest import RESTClientObject

from cli.kubeconfig import Wanted, load
from cli.output import shortened
from edgefarm import __version__
from edgefarm.errors import KubernetesRefused, KubernetesUnavailable
from reconciler.ports import Kind, Object

_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 15.0
_PAGE: Final = 500
_LONGEST_MESSAGE: Final = 300


@dataclass(frozen=True)
class Answer:
    """What stands behind the API server's proxy answered; `body` is None when it was no JSON object."""

    status: int
    body: Mapping[str, Any] | None
    text: str


class Kube:
    """One API server, as one user sees it.

    Every method only asks, and raises KubernetesUnavailable (no answer, 401, 429, 5xx) and KubernetesRefused (`status`
    403: a right is missing, which the message names; 404: the kind does not exist there).
    """

    def __init__(self, configuration: Configuration, namespace: str) -> None:
        self.namespace = namespace
        """The namespace that the context names, else `default`."""
        self.server = str(configuration.host)
        configuration.retries = False
        if not configuration.verify_ssl:
            # The kubeconfig says so (insecure-skip-tls-verify); a warning at each request would help nobody.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)

    @classmethod
    def open(cls, wanted: Wanted) -> Kube:
        """Find the cluster and the user's login; nothing is sent yet, but a login command of the kubeconfig is run.

        Raises KubernetesUnavailable when there is none or its description cannot be used.
        """
        return cls(*load(wanted))

    def close(self) -> None:
        """Close the connections."""
        self._rest.close()

    def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """The object as raw JSON, or None when there is none of that name."""
        status, data = self._send(kind.path(namespace, name))
        if status == HTTPStatus.NOT_FOUND:
            return None
        if status != HTTPStatus.OK:
            raise _error(status, data, _Right("get", kind, namespace))
        return _object(data)

    def list(self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = "") -> list[Object]:
        """All objects of a namespace (None: of all) as raw JSON, read in pages."""
        selectors = {name: text for name, text in (("labelSelector", labels), ("fieldSelector", fields)) if text}
        items: list[Object] = []
        position: dict[str, str] = {}
        limit = {"limit": str(_PAGE)}
        while True:
            status, data = self._send(kind.path(namespace), {**selectors, **limit, **position})
            if status == HTTPStatus.GONE and position:
                # The list expired between two pages: once more, in one piece.
                items, position, limit = [], {}, {}
                continue
            if status != HTTPStatus.OK:
                raise _error(status, data, _Right("list", kind, namespace))
            page = _object(data)
            items += ({"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in page.get("items") or ())
            if not (more := page.get("metadata", {}).get("continue")):
                return items
            position = {"continue": more}

    def ask_pod(
        self,
        namespace: str,
        pod: str,
        port: int,
        path: str,
        query: Mapping[str, str],
        *,
        seconds: float = _READ_SECONDS,
    ) -> Answer:
        """GET a page of a pod through the API server's proxy, which needs the right `get` on `pods/proxy`.

        What the pod answers is returned whatever its status; only a refusal by the API server itself raises.
        """
        where = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}:{port}/proxy/{path.lstrip('/')}"
        status, data = self._send(where, query, seconds)
        body = _try_object(data)
        if body is not None and body.get("kind") == "Status" and status >= HTTPStatus.BAD_REQUEST:
            raise _error(status, data, _Right("get", _POD_PROXY, namespace))
        return Answer(status, body, data.decode(errors="replace"))

    def would_create(self, kind: Kind, namespace: str, obj: Object) -> Object:
        """The object as it would be stored: admission is run as for a real request, but nothing is kept.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
        """
        status, data = self._send(kind.path(namespace), {"dryRun": "All"}, body=obj)
        if status not in (HTTPStatus.OK, HTTPStatus.CREATED):
            raise _error(status, data, _Right("create", kind, namespace))
        return _object(data)

    def _send(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        seconds: float = _READ_SECONDS,
        *,
        body: Mapping[str, Any] | None = None,
    ) -> tuple[int, bytes]:
        bearer = self._configuration.auth_settings().get("BearerToken")
        headers = {"Accept": "application/json", "User-Agent": f"edgefarm/{__version__}"}
        if bearer and bearer["value"]:
            headers["Authorization"] = bearer["value"]
        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            timeouts = (_CONNECT_SECONDS, seconds)
            if body is None:
                response = self._rest.request("GET", url, headers=headers, _request_timeout=timeouts)
            else:
                headers["Content-Type"] = "application/json"
                response = self._rest.request("POST", url, headers=headers, body=body, _request_timeout=timeouts)
            status, data = int(response.status), bytes(response.read())
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            raise KubernetesUnavailable(
                f"the Kubernetes API at {self.server} cannot be reached ({_reason(error)}): "
                "see that the cluster runs and that the kubeconfig's context is the right one"
            ) from error
        if status == HTTPStatus.UNAUTHORIZED:
            raise KubernetesUnavailable(
                f"the Kubernetes API at {self.server} does not accept your login: log in again, "
                "or choose another --context"
            )
        return status, data


_POD_PROXY: Final = Kind("", "v1", "pods/proxy", "Pod")


@dataclass(frozen=True)
class _Right:
    """What a request needed."""

    verb: str
    kind: Kind
    namespace: str | None

    def __str__(self) -> str:
        resource = f"{self.kind.plural}.{self.kind.group}" if self.kind.group else self.kind.plural
        where = f"in namespace {self.namespace!r}" if self.namespace else "in all namespaces"
        return f"{self.verb} {resource}" + (f" {where}" if self.kind.namespaced else "")


def _error(status: int, data: bytes, right: _Right) -> KubernetesRefused | KubernetesUnavailable:
    """The API server's answer as one sentence with what to do."""
    message = str((_try_object(data) or {}).get("message") or data[:200].decode(errors="replace").strip())
    said = shortened(message, _LONGEST_MESSAGE) or "no reason given"
    if status == HTTPStatus.FORBIDDEN:
        return KubernetesRefused(f"you lack the right to {right}: ask an administrator for it", status)
    if status == HTTPStatus.NOT_FOUND and right.verb == "list":
        return KubernetesRefused(
            f"the cluster has no {right.kind.plural}.{right.kind.group or 'core'}: install the chart edgefarm-network",
            status,
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return KubernetesUnavailable(f"the Kubernetes API cannot {right} now (status {status}): {said}")
    return KubernetesRefused(f"the Kubernetes API refused to {right} (status {status}): {said}", status)


def _object(data: bytes) -> Object:
    answer = _try_object(data)
    if answer is None:
        raise KubernetesUnavailable(
            "the Kubernetes API answered something that is not JSON: is there a proxy on the way?"
        )
    return answer


def _try_object(data: bytes) -> Object | None:
    try:
        answer = json.loads(data)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError | urllib3.exceptions.ReadTimeoutError):
        return "no answer in time"
    return shortened(str(getattr(error, "reason", None) or error) or type(error).__name__, _LONGEST_MESSAGE)
