"""Finds the cluster and the login that a user means, as kubectl does: by kubeconfig or a pod's account."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kubernetes.client import Configuration
from kubernetes.config import ConfigException, load_incluster_config
from kubernetes.config.incluster_config import SERVICE_CERT_FILENAME
from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

from cli.output import shortened
from edgefarm.errors import KubernetesUnavailable

KUBECONFIG: Final = "KUBECONFIG"
_DEFAULT_KUBECONFIG: Final = "~/.kube/config"
_IN_CLUSTER: Final = "KUBERNETES_SERVICE_HOST"
_NAMESPACE: Final = "default"
_LONGEST_PROBLEM: Final = 300


@dataclass(frozen=True)
class Wanted:
    """Which cluster a user means: `--kubeconfig`, else the variable KUBECONFIG (several files), else kubectl's default;
    `--context`, else the current one."""

    environ: Mapping[str, str]
    kubeconfig: str | None = None
    context: str | None = None


def load(wanted: Wanted) -> tuple[Configuration, str]:
    """The client's configuration, and the namespace that the context names (else `default`).

    A login command of the kubeconfig is run. Raises KubernetesUnavailable when there is no cluster or its description
    cannot be used.
    """
    configuration = Configuration()
    files = _files(wanted)
    try:
        if files is not None:
            return configuration, _load(files, wanted.context, configuration)
        load_incluster_config(client_configuration=configuration)
        return configuration, _own_namespace()
    except KubernetesUnavailable:
        raise
    except ConfigException as error:
        raise KubernetesUnavailable(f"the kubeconfig {files or 'of this pod'} cannot be used: {error}") from error
    except Exception as error:  # noqa: BLE001 - the loader raises whatever a malformed file makes it trip over
        raise KubernetesUnavailable(
            f"the kubeconfig {files or 'of this pod'} cannot be used ({type(error).__name__}): "
            "see that `kubectl get namespaces` works with it"
        ) from None


def _files(wanted: Wanted) -> str | None:
    """The files to read, as KUBECONFIG has them; None: this is a pod of the cluster."""
    if wanted.kubeconfig is not None:
        if not Path(wanted.kubeconfig).expanduser().is_file():
            raise KubernetesUnavailable(f"--kubeconfig: there is no file {wanted.kubeconfig!r}")
        return wanted.kubeconfig
    named = wanted.environ.get(KUBECONFIG) or _DEFAULT_KUBECONFIG
    if any(Path(name).expanduser().is_file() for name in named.split(":") if name):
        return named
    if wanted.environ.get(_IN_CLUSTER):
        return None
    raise KubernetesUnavailable(
        f"there is no kubeconfig: {named} does not exist; set {KUBECONFIG} or write --kubeconfig FILE"
    )


def _load(files: str, context: str | None, configuration: Configuration) -> str:
    """Fill in the configuration; the context's namespace."""
    merged = KubeConfigMerger(files)
    if context is not None:
        known = [entry["name"] for entry in merged.config.value.get("contexts") or ()]
        if context not in known:
            raise KubernetesUnavailable(
                f"--context: {files} has no context {context!r}, but {', '.join(known) or 'none'}"
            )
    loader = KubeConfigLoader(merged.config, active_context=context, config_base_path=None)
    with _logged_errors() as problems:
        loader.load_and_set(configuration)
    if problems:
        # The loader only logs that a login command failed, and goes on without a login.
        raise KubernetesUnavailable(
            f"the login command of the kubeconfig failed: {shortened(problems[0], _LONGEST_PROBLEM)}"
        )
    return str(loader.current_context["context"].get("namespace") or _NAMESPACE)


@contextmanager
def _logged_errors() -> Iterator[list[str]]:
    """What is logged as an error meanwhile, which is kept from the terminal."""
    problems: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            problems.append(record.getMessage())

    root, collector = logging.getLogger(), Collector(logging.ERROR)
    root.addHandler(collector)
    try:
        yield problems
    finally:
        root.removeHandler(collector)


def _own_namespace() -> str:
    try:
        return Path(SERVICE_CERT_FILENAME).with_name("namespace").read_text().strip()
    except OSError:
        return _NAMESPACE
