"""The table of built-in resources and the registry that CustomResourceDefinitions extend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: Where objects of a resource are kept: (group, plural) of the version that is stored.
Bucket = tuple[str, str]


@dataclass(frozen=True)
class Resource:
    """One served resource in one version."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    #: Subresources with a path of their own, e.g. `status`.
    subresources: frozenset[str] = frozenset()
    #: Whether metadata.generation counts changes of what the user writes.
    generation: bool = False
    #: Whether an update without resourceVersion is accepted.
    unconditional_update: bool = True
    #: Answers a POST at once and stores nothing (reviews).
    virtual: bool = False
    #: Fields that are called differently in the stored version: (stored, served).
    renames: tuple[tuple[str, str], ...] = ()
    bucket: Bucket = ("", "")
    #: The version of the CustomResourceDefinition that made this resource; None: built in.
    definition: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.bucket == ("", ""):
            object.__setattr__(self, "bucket", (self.group, self.plural))

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """`deployments.apps`, as error messages name a resource."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def has_status(self) -> bool:
        return "status" in self.subresources

    @property
    def custom(self) -> bool:
        return self.definition is not None

    def to_served(self, stored: dict[str, Any]) -> dict[str, Any]:
        """The object as this version shows it; the argument itself when nothing differs."""
        if stored.get("apiVersion") == self.api_version and not self.renames:
            return stored
        served = {**stored, "apiVersion": self.api_version}
        for old, new in self.renames:
            if old in served:
                served[new] = served.pop(old)
        return served

    def to_stored(self, served: dict[str, Any], api_version: str) -> dict[str, Any]:
        """The object as it is kept, in the version `api_version`."""
        stored = {**served, "apiVersion": api_version}
        for old, new in self.renames:
            if new in stored:
                stored[old] = stored.pop(new)
        return stored


_STATUS: Final = frozenset({"status"})
_SCALED: Final = frozenset({"status", "scale"})
_POD: Final = frozenset({"status", "eviction", "binding", "log", "proxy"})
_ALL: Final = ("all",)

# (group, version, plural, kind, short names, options)
_BUILTIN: Final[tuple[Resource, ...]] = (
    Resource("", "v1", "namespaces", "Namespace", False, ("ns",), subresources=frozenset({"status", "finalize"})),
    Resource("", "v1", "pods", "Pod", True, ("po",), _ALL, _POD, generation=True),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",), (), frozenset({"token"})),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "configmaps", "ConfigMap", True, ("cm",)),
    Resource("", "v1", "services", "Service", True, ("svc",), _ALL, frozenset({"status", "proxy"})),
    Resource("", "v1", "events", "Event", True, ("ev",)),
    Resource("", "v1", "nodes", "Node", False, ("no",), (), _STATUS),
    Resource("", "v1", "endpoints", "Endpoints", True, ("ep",)),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",), (), _STATUS),
    Resource("apps", "v1", "deployments", "Deployment", True, ("deploy",), _ALL, _SCALED, generation=True),
    Resource("apps", "v1", "daemonsets", "DaemonSet", True, ("ds",), _ALL, _STATUS, generation=True),
    Resource("apps", "v1", "statefulsets", "StatefulSet", True, ("sts",), _ALL, _SCALED, generation=True),
    Resource("apps", "v1", "replicasets", "ReplicaSet", True, ("rs",), _ALL, _SCALED, generation=True),
    Resource("apps", "v1", "controllerrevisions", "ControllerRevision"),
    Resource("batch", "v1", "jobs", "Job", True, (), _ALL, _STATUS, generation=True),
    Resource("batch", "v1", "cronjobs", "CronJob", True, ("cj",), _ALL, _STATUS, generation=True),
    Resource("coordination.k8s.io", "v1", "leases", "Lease", unconditional_update=False),
    Resource(
        "events.k8s.io",
        "v1",
        "events",
        "Event",
        True,
        ("ev",),
        renames=(
            ("involvedObject", "regarding"),
            ("message", "note"),
            ("reportingComponent", "reportingController"),
            ("source", "deprecatedSource"),
            ("firstTimestamp", "deprecatedFirstTimestamp"),
            ("lastTimestamp", "deprecatedLastTimestamp"),
            ("count", "deprecatedCount"),
        ),
        bucket=("", "events"),
    ),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False),
    Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False),
    Resource(
        "admissionregistration.k8s.io",
        "v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        False,
        generation=True,
        unconditional_update=False,
    ),
    Resource(
        "admissionregistration.k8s.io",
        "v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        False,
        generation=True,
        unconditional_update=False,
    ),
    Resource(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        False,
        ("crd", "crds"),
        ("api-extensions",),
        _STATUS,
        generation=True,
        unconditional_update=False,
    ),
    Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", generation=True),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), (), _STATUS, True, False),
    Resource("", "v1", "persistentvolumes", "PersistentVolume", False, ("pv",), (), _STATUS),
    Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, ("pc",), generation=True),
    Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", False, ("sc",)),
    Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", False, (), (), _STATUS),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, ("netpol",), generation=True),
    Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", False, virtual=True),
    Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", False, virtual=True),
    Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False, virtual=True),
    Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False, virtual=True),
    Resource("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", False, virtual=True),
    Resource("authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", virtual=True),
)


class Registry:
    """What is served now, by (group, version, plural)."""

    def __init__(self) -> None:
        self._served: dict[tuple[str, str, str], Resource] = {(r.group, r.version, r.plural): r for r in _BUILTIN}

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._served.get((group, version, plural))

    def stored(self, bucket: Bucket) -> Resource:
        """A resource whose version is the one kept in this bucket."""
        return next(r for r in self._served.values() if (r.group, r.plural) == bucket == r.bucket)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._served.values())

    def group_versions(self) -> dict[str, list[str]]:
        """Served versions by group, the core group (`""`) first."""
        groups: dict[str, list[str]] = {}
        for resource in self._served.values():
            versions = groups.setdefault(resource.group, [])
            if resource.version not in versions:
                versions.append(resource.version)
        return groups

    def of(self, group: str, version: str) -> list[Resource]:
        return [r for r in self._served.values() if (r.group, r.version) == (group, version)]

    def replace_custom(self, bucket: Bucket, resources: list[Resource]) -> None:
        """Serve exactly these versions of one custom resource (none: stop serving it)."""
        self._served = {key: r for key, r in self._served.items() if not (r.custom and r.bucket == bucket)}
        self._served.update({(r.group, r.version, r.plural): r for r in resources})


def pods() -> Resource:
    return builtin("", "pods")


def builtin(group: str, plural: str) -> Resource:
    """A built-in resource by its names."""
    return next(r for r in _BUILTIN if (r.group, r.plural) == (group, plural))
