"""Every key, code, metric and event has its line in the documentation, and no line is of one that is gone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import msgspec
import pytest
from prometheus_client.core import Metric

from blobflow import config_tables, events
from blobflow.cli.inputs import spec_keys as spec
from blobflow.cli.output import json_events
from blobflow.cli.runtime.metrics import MetricsState, age_families, metric_families
from blobflow.engine.pairs import Lookup, MissingPlatform
from blobflow.engine.results import report
from blobflow.oci.platform_choice import IndexMode
from blobflow.oci.tag_selection.rules import By
from blobflow.transports.registry import Profile
from blobflow.transports.registry.capabilities.profiles import profiles_by_name
from tools.checkout import TOP
from tools.documentation.documents import DOCS, spans_of


def code_in(page: str) -> set[str]:
    """The pieces of code in the sentences and tables of a page."""
    return {span.text for span in spans_of(DOCS / page)}


def fields_of(kind: Any) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(kind)}


DOCUMENTED: dict[str, tuple[str, set[str]]] = {
    "keys of a registry": ("config.md", fields_of(config_tables.HostTable)),
    "fields of a profile": ("config.md", fields_of(Profile)),
    "profiles": ("config.md", set(profiles_by_name())),
    "keys of a spec": ("spec.md", fields_of(spec.Spec) | fields_of(spec.Defaults)),
    "keys of an image": ("spec.md", fields_of(spec.Entry)),
    "rules for tags": ("spec.md", fields_of(spec.Tags)),
    "rules for names": ("spec.md", fields_of(spec.Rename) | fields_of(spec.Replacement)),
    "the report": ("report.md", fields_of(report.Report)),
    "totals": ("report.md", fields_of(report.Totals)),
    "targets": ("report.md", fields_of(report.TargetRecord)),
    "images": ("report.md", fields_of(report.ImageRecord)),
    "referrers": ("report.md", fields_of(report.ReferrerRecord)),
    "tags": ("report.md", fields_of(report.TagRecord)),
    "ranges": ("report.md", fields_of(report.RangesRecord)),
    "runs": ("report.md", fields_of(report.RunRecord)),
    "hosts": ("report.md", fields_of(report.HostRecord)),
}


@pytest.mark.parametrize(("page", "names"), DOCUMENTED.values(), ids=DOCUMENTED)
def test_every_name_is_documented(page: str, names: set[str]) -> None:
    assert names - code_in(page) == set()


def test_every_event_is_documented_with_its_fields() -> None:
    named = code_in("report.md")
    assert json_events.Summary in events.Event.__subclasses__()
    for kind in events.Event.__subclasses__():
        tag = str(kind.__struct_config__.tag)
        assert {tag, *fields_of(kind)} - named == set(), tag


def _samples() -> Iterator[Metric]:
    state = MetricsState(arrived={("a", "b"): 1.0})
    yield from metric_families(state)
    yield from age_families(state, 2.0)


def test_every_metric_of_runs_is_documented() -> None:
    found = {sample.name for family in _samples() for sample in family.samples}
    assert {name for name in found if not name.endswith("_created")} - _metrics_in_the_page() == set()


def test_every_metric_in_the_page_is_made_somewhere() -> None:
    """A counter's name gets _total from the library."""
    sources = "".join(path.read_text() for path in (TOP / "blobflow").rglob("metrics.py"))
    made = set(re.findall(r'"(blobflow_\w+)"', sources))
    lost = {
        name
        for name in _metrics_in_the_page()
        if name not in made and name.removesuffix("_total") not in made
    }
    assert lost == set()


def _metrics_in_the_page() -> set[str]:
    return {
        name for text in code_in("metrics.md") if (name := text.partition("{")[0]).startswith("blobflow_")
    }


def test_every_environment_variable_is_documented() -> None:
    sources = "".join(path.read_text() for path in (TOP / "blobflow").rglob("*.py"))
    used = set(re.findall(r'"(BLOBFLOW_[A-Z_]+)"', sources))
    assert used - code_in("config.md") == set()


def test_choices_in_the_pages_are_those_of_the_code() -> None:
    named = code_in("spec.md") | code_in("report.md")
    for choice in (IndexMode, Lookup, MissingPlatform, By, report.Status, report.TagStatus):
        assert set(_values(choice)) - named == set()


def _values(choice: Any) -> Iterator[str]:
    for value in get_args(choice):
        if isinstance(value, str):
            yield value
        elif isinstance(value, UnionType) or get_args(value):
            yield from _values(value)


def test_no_page_is_about_this_project_s_making() -> None:
    """What readers can't see, and hosts of registries of packages."""
    words = re.compile(r"\.\./shared|/work/|\bworktree\b|pypi\.org|issue #?\d+", re.IGNORECASE)
    pages = [*TOP.glob("*.md"), *DOCS.rglob("*.md")]
    assert {str(page): found for page in pages if (found := words.findall(Path(page).read_text()))} == {}


RUNS = {"cold": "cold", "cold, long path": "long-path", "nothing changed": "unchanged"}


def _rows(document: Path) -> list[list[str]]:
    lines = [line for line in document.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("page", ["README.md", "docs/performance.md"])
def test_what_is_compared_is_what_was_measured(page: str) -> None:
    recorded = _rows(TOP / "bench" / "README.md")
    (heading,) = [row for row in recorded if row[:2] == ["run", "subject"]]
    wanted = [heading.index(name) for name in ("wall s", "CPU s", "peak MB", "dst requests")]
    measured = {
        (row[0], row[1]): [row[place] for place in wanted] for row in recorded if len(row) == len(heading)
    }
    shown = [row for row in _rows(TOP / page) if row[0] in RUNS]
    assert len(shown) == 2 * len(RUNS)
    for scenario, tool, *figures in shown:
        assert figures == measured[RUNS[scenario], tool.split()[0]]
