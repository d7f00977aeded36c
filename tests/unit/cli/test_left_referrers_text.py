"""What a summary says of referrers that were left: each of a few, the reasons of many."""

from __future__ import annotations

from blobflow.cli.output.report_text import summary_lines
from blobflow.engine.results.report import ImageRecord, ReferrerRecord, Report, Totals

ALONE, OTHER = "its target holds images alone", "it is listed, and has no subject itself"


def report(count: int) -> Report:
    """Each image has a referrer that went along, and one that was left, the first for another reason."""
    images = tuple(
        ImageRecord(
            source=f"a/app:{number}",
            target=f"b/app:{number}",
            digest="",
            source_digest="",
            platforms=(),
            status="done",
            referrers=(
                ReferrerRecord(f"sha256:gone{number}", "", "", "api"),
                ReferrerRecord(f"sha256:left{number}", "", "", "api", ALONE if number else OTHER),
            ),
        )
        for number in range(count)
    )
    return Report(Totals(images=count), images)


def test_a_few_are_named() -> None:
    lines = summary_lines(report(3))
    assert "6 referrers, 3 of them left" in lines
    assert f"left: sha256:left0 of b/app:0: {OTHER}" in lines
    assert f"left: sha256:left2 of b/app:2: {ALONE}" in lines


def test_of_many_the_reasons_are_named_and_where_to_look() -> None:
    lines = summary_lines(report(40))
    assert "80 referrers, 40 of them left" in lines
    said = [line for line in lines if line.startswith("left: ")]
    assert said == [f"left: 39 referrers: {ALONE}", f"left: 1 referrer: {OTHER}"]
    assert "each of them is in a --report" in lines
