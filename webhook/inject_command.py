"""`python -m webhook inject`: shows, without a cluster, what the webhook would make of a manifest."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from edgefarm import __version__
from edgefarm.errors import EdgefarmError
from webhook.decide import Deny, Inject
from webhook.manifests import Outcome, outcomes
from webhook.settings import Injection, Vault


class _Unusable(EdgefarmError):
    """The input or an option cannot be used."""


def main(arguments: Sequence[str], program: str = "python -m webhook inject") -> int:
    """Exit status: 0 done, 1 at least one pod would be denied, 2 the input or an option cannot be used.

    `program` is what help calls the command.
    """
    options = _parse(arguments, program)
    try:
        yaml = _import_yaml()
        settings = _settings(options)
        found = list(outcomes(list(_documents(yaml, options.files)), settings, options.namespace))
        if not found:
            raise _Unusable("there is no object in the input")
    except EdgefarmError as error:
        sys.stderr.write(f"inject: {error}\n")
        return 2
    for outcome in found:
        _explain(outcome, sys.stderr)
    shown = [outcome for outcome in found if not isinstance(outcome.decision, Deny)]
    if options.diff:
        sys.stdout.writelines(line for outcome in shown for line in _diff(yaml, outcome))
    else:
        sys.stdout.write("---\n".join(_dump(yaml, outcome.after) for outcome in shown))
    return 0 if len(shown) == len(found) else 1


def _parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Show what the webhook makes of a manifest, without a cluster.",
        epilog=f"Example:\n  {program} --diff deployment.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="manifests (default: the standard input)")
    parser.add_argument("--diff", action="store_true", help="show what changes instead of the result")
    parser.add_argument("--namespace", "-n", default="default", help="for objects that name none (%(default)s)")
    parser.add_argument("--classic", action="store_true", help="as on a cluster without native sidecars")
    platform = parser.add_argument_group("what the platform would set")
    platform.add_argument("--image", default=f"edgefarm/network-sidecar:{__version__}", help="(%(default)s)")
    platform.add_argument("--vault-addr", default="https://vault.example:8200", help="(%(default)s)")
    platform.add_argument("--nats-url", default="tls://nats.example:4222", help="(%(default)s)")
    platform.add_argument("--ca-file", type=Path, help="PEM file that Vault and NATS are verified against")
    return parser.parse_args(arguments)


def _settings(options: argparse.Namespace) -> Injection:
    try:
        ca_bundle = options.ca_file.read_text(encoding="ascii") if options.ca_file else None
    except (OSError, UnicodeDecodeError) as error:
        raise _Unusable(f"--ca-file cannot be read: {error}") from error
    return Injection(
        image=options.image,
        vault=Vault(options.vault_addr),
        nats_url=options.nats_url,
        ca_bundle=ca_bundle,
        native=not options.classic,
    )


def _import_yaml() -> Any:
    # The webhook itself reads JSON only, so its image need not have PyYAML.
    try:
        import yaml
    except ImportError:
        raise _Unusable("this command needs PyYAML: pip install pyyaml") from None
    return yaml


def _documents(yaml: Any, files: Sequence[str]) -> Iterator[Any]:
    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Leaves times as the text that they are in Kubernetes."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for name in files or ["-"]:
        where = "standard input" if name == "-" else name
        try:
            text = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
            yield from yaml.load_all(text, Loader)
        except OSError as error:
            raise _Unusable(f"{where} cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise _Unusable(f"{where} is no YAML: {' '.join(str(error).split()) or 'nested too deeply'}") from error


def _dump(yaml: Any, document: Any) -> str:
    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Writes texts of several lines (certificates) as blocks, lists as kubectl does."""

        def ignore_aliases(self, _data: object) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return str(yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1_000_000))


def _diff(yaml: Any, outcome: Outcome) -> Iterator[str]:
    before, after = (_dump(yaml, document).splitlines(keepends=True) for document in (outcome.before, outcome.after))
    return difflib.unified_diff(before, after, outcome.title, f"{outcome.title} (injected)")


def _explain(outcome: Outcome, out: TextIO) -> None:
    decision = outcome.decision
    if decision is None:
        out.write(f"{outcome.title}: unchanged, there is no pod in it\n")
    elif isinstance(decision, Inject):
        plan = decision.plan
        what = "unchanged, it has the sidecar already" if outcome.before == outcome.after else "injected"
        out.write(
            f"{outcome.title}: {what} (network {plan.network}, mode {plan.options.mode}, "
            f"service account {plan.service_account} in namespace {plan.namespace})\n"
        )
        out.writelines(f"{outcome.title}: warning: {warning}\n" for warning in decision.warnings)
    else:
        what = "denied" if isinstance(decision, Deny) else "unchanged"
        hint = f"; {outcome.hint}" if outcome.hint else ""
        out.write(f"{outcome.title}: {what} ({decision.reason}): {decision.sentence}{hint}\n")
