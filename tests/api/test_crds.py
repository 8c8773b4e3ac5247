"""The chart's CRD files are what `edgefarm.api` says."""

import importlib.util
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_crd_files_of_the_chart_are_fresh() -> None:
    spec = importlib.util.spec_from_file_location("write_crds", ROOT / "charts" / "write_crds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.stale() == [], "run make crds"


def test_every_schema_field_of_a_spec_is_described() -> None:
    for path in (ROOT / "charts/edgefarm-network/files/crds").glob("*.yaml"):
        version = yaml.safe_load(path.read_text())["spec"]["versions"][0]
        fields = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        assert fields
        for name, field in fields.items():
            assert field.get("description"), f"{path.name}: spec.{name} has no description"
