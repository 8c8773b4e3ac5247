"""The documentation builds, its links lead somewhere, and every reason, alert and finding has its entry."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup

from cli.__main__ import build
from docs.hooks.outside import outside_links
from edgefarm import errors
from edgefarm.findings import Code
from tests.docs import reasons
from webhook.reasons import Reason as WebhookReason

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONDITIONS = (DOCS / "runbooks" / "conditions.md").read_text()
#: Never shown to the author of a pod: the pod is admitted.
ADMITTED = {"Injected", "NotForUs", "MirrorPod", "NotLabelled", "ExcludedNamespace", "OptedOut"}


def headings(page: str) -> set[str]:
    return set(re.findall(r"^### (\S+)$", page, re.MULTILINE))


def test_the_site_builds_without_a_warning(work: Path) -> None:
    command = [ROOT / ".venv" / "bin" / "mkdocs", "build", "--strict", "--site-dir", work / "site"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert built.returncode == 0, built.stderr
    assert (work / "site" / "runbooks" / "conditions" / "index.html").exists()


def test_the_reference_of_the_custom_resources_is_fresh() -> None:
    subprocess.run([sys.executable, DOCS / "write_reference.py", "--check"], check=True, timeout=30)


def test_links_out_of_the_documentation_lead_to_the_repository(caplog: pytest.LogCaptureFixture) -> None:
    text = "[a](../examples/edge) [b](../Makefile#x) [c](sub/page.md) [d](../docs/mesh.md)"
    rewritten = outside_links(text, "index.md", "https://example.test/r")
    assert "(https://example.test/r/tree/main/examples/edge)" in rewritten
    assert "(https://example.test/r/blob/main/Makefile#x)" in rewritten
    assert "(sub/page.md)" in rewritten
    with caplog.at_level(logging.WARNING):
        outside_links("[e](../../nowhere.md)", "runbooks/conditions.md", "https://example.test/r")
    assert "nowhere.md, which does not exist" in caplog.text


def test_every_reason_of_a_condition_or_event_has_an_entry() -> None:
    fine = set(re.findall(r"`([A-Z][A-Za-z]+)`", CONDITIONS.partition("## Servers")[0]))
    assert sorted(reasons.of_conditions_and_events() - headings(CONDITIONS) - fine) == []


def test_no_entry_is_about_a_reason_that_is_no_more() -> None:
    # An error without a reason of its own is called by its type; one reason stands in a pair.
    others = {name for name in dir(errors) if name[0].isupper()} | {"NotConfigured"}
    assert sorted(headings(CONDITIONS) - reasons.of_conditions_and_events() - others) == []


def test_why_a_pod_is_denied_and_an_agent_refused_is_said_in_their_pages() -> None:
    denied = {reason.value for reason in WebhookReason} - ADMITTED
    injection, mesh = (DOCS / "injection.md").read_text(), (DOCS / "mesh.md").read_text()
    assert [reason for reason in sorted(denied) if f"| `{reason}` |" not in injection] == []
    assert [reason for reason in sorted(reasons.of_refused_agents()) if f"`{reason}`" not in mesh] == []


def test_every_alert_of_the_chart_has_an_entry_and_no_entry_is_stale() -> None:
    template = ROOT / "charts" / "edgefarm-network" / "templates" / "monitoring-prometheusrule.yaml"
    alerts = set(re.findall(r"- alert: (\w+)", template.read_text()))
    assert headings((DOCS / "runbooks.md").read_text()) == alerts


def test_every_finding_of_doctor_has_an_entry_and_no_entry_is_stale() -> None:
    entries = set(re.findall(r"^#+ `?([a-z-]+)`?$", (DOCS / "runbooks" / "findings.md").read_text(), re.MULTILINE))
    assert entries == {code.value for code in Code}


def test_every_page_is_in_the_navigation_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    nav = yaml.safe_load(re.sub(r"!!python/name:\S+", "x", text))["nav"]
    listed = re.findall(r"[\w/.-]+\.md", str(nav))
    assert len(listed) == len(set(listed))


def test_every_command_that_the_documentation_names_is_one_of_edgefarms() -> None:
    root = typer.main.get_command(build())
    assert isinstance(root, TyperGroup)
    pages = [*DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md"), ROOT / "README.md"]
    named = {match for page in pages for match in re.findall(r"[`$] ?edgefarm ([a-z]+)\b", page.read_text())}
    assert sorted(named - root.commands.keys()) == []
    assert {"status", "doctor"} <= named
