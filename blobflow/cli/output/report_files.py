"""A report in the forms that files have: JSON, a page for people, JUnit XML for CI systems. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from blobflow.engine.results.report import encode_report

if TYPE_CHECKING:
    from blobflow.cli.output.timeline import RangeSpan, StepSpan
    from blobflow.engine.plan.planned import Planned
    from blobflow.engine.results.report import Report

ReportForm = Literal["json", "html", "junit"]
# What a file's suffix says; any other is JSON's.
_FORMS: dict[str, ReportForm] = {".html": "html", ".htm": "html", ".xml": "junit"}


def form_of(file: Path) -> ReportForm:
    """The form that a file's suffix asks for."""
    return _FORMS.get(file.suffix.lower(), "json")


def render_report(
    report: Report,
    form: ReportForm,
    spans: Sequence[StepSpan] = (),
    planned: Planned | None = None,
    ranges: Sequence[RangeSpan] = (),
) -> bytes:
    """The file's content. What a page shows besides the report: see `render_html_report`."""
    match form:
        case "html":
            from blobflow.cli.output.html_report import render_html_report

            return render_html_report(report, spans, planned, ranges).encode()
        case "junit":
            from blobflow.cli.output.junit_report import render_junit_report

            return render_junit_report(report).encode()
        case _:
            return encode_report(report)
