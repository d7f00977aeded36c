"""The page of a run, parsed as a browser does: its figures, what waited for what, and nothing that acts."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec

from blobflow.cli.output.dedup_stats import collect_dedup_stats
from blobflow.cli.output.html_report import render_html_report
from blobflow.cli.output.html_timeline import assign_lanes
from blobflow.cli.output.report_text import summary_lines
from blobflow.cli.output.timeline import MAX_RANGES, RangeSpan, StepSpan, Timeline
from blobflow.engine.execution import Run
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.steps import Need
from blobflow.engine.results.report import (
    ImageRecord,
    RangesRecord,
    Report,
    RunRecord,
    TargetRecord,
    Totals,
    WorkerRecord,
)
from blobflow.events import Event, PhaseStarted, RangeRead, StepDone, StepFailed, StepStarted
from blobflow.oci import digest_of, parse_reference
from blobflow.oci.sample_images import sample_set
from blobflow.settings import Settings
from blobflow.signatures.contract import Acceptance, Verdict
from tests.library import mirror
from tests.scenarios.registries import blobs_of, fill, registries

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
VOID = ("meta", "rect", "wbr", "input")


class Page(HTMLParser):
    """What a reader sees: tables by their id, titles of bars, text; and every tag and attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.titles: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self._rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]
        if tag not in VOID:
            self._open.append(tag)
        match tag:
            case "table":
                self._rows = self.tables[dict(attributes)["id"] or ""] = []
            case "tr":
                self._rows.append([])
            case "td" | "th":
                self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self._open or "th" in self._open:
            self._rows[-1][-1] += data
        elif self._open and self._open[-1] == "title" and "svg" in self._open:
            self.titles.append(data)
        elif "style" not in self._open and "script" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def image(name: str, status: str = "done", error: str = "") -> ImageRecord:
    return ImageRecord(f"a.example/{name}", f"b.example/{name}", A, A, ("linux/amd64",), status, error)  # type: ignore[arg-type]


def span(step: int, ready: float, began: float, ended: float, **facts: object) -> StepSpan:
    known = {"kind": "copy", "digest": A, "target": "b.example/x", "size": 1000, "end": "done"} | facts
    return StepSpan(step=step, ready=ready, began=began, ended=ended, **known)  # type: ignore[arg-type]


def told(timeline: Timeline, clock: list[float], *events: tuple[float, Event]) -> None:
    for at, event in events:
        clock[0] = at
        timeline(event)


def test_a_timeline_knows_what_each_step_waited_for_and_how_long_for_a_place() -> None:
    clock, passed = [10.0], list[Event]()
    timeline = Timeline(passed.append, lambda: clock[0])
    told(
        timeline,
        clock,
        (11, PhaseStarted("transfer", 1)),
        (11.5, StepStarted(0, "copy", A, "b/x", 5)),
        (12, StepStarted(1, "copy", B, "b/x", 6)),
        (13, StepDone(0, "copy", A, "b/x", 5)),
        (14, StepDone(1, "copy", B, "b/x", 6)),
        (16, StepStarted(2, "put", C, "b/x", 7)),
        (17, StepFailed(2, "put", C, "b/x", "no")),
        (18, StepStarted(3, "copy", C, "b/x", 7)),
    )
    clock[0] = 20.0
    needs = [(), (), (Need(0), Need(1)), ()]
    spans = timeline.spans(needs)
    assert [(s.step, s.ready, s.began, s.ended, s.end, s.waited_for) for s in spans] == [
        (0, 1.0, 1.5, 3.0, "done", None),
        (1, 1.0, 2.0, 4.0, "done", None),
        (2, 4.0, 6.0, 7.0, "failed", 1),
        (3, 1.0, 8.0, 10.0, "cut", None),
    ]
    assert len(passed) == 8


def test_a_refused_mount_and_the_copy_that_it_became_are_two_spans_of_one_step() -> None:
    clock = [0.0]
    timeline = Timeline(lambda event: None, lambda: clock[0])
    told(
        timeline,
        clock,
        (1, StepStarted(0, "mount", A, "b/x", 5)),
        (2, StepStarted(0, "copy", A, "b/x", 5)),
        (3, StepDone(0, "copy", A, "b/x", 5)),
    )
    assert [(s.kind, s.began, s.ended, s.end) for s in timeline.spans()] == [
        ("mount", 1, 2, "refused"),
        ("copy", 2, 3, "done"),
    ]


def test_spans_that_overlap_are_in_lanes_of_their_own_and_take_one_that_is_free() -> None:
    spans = [span(0, 0, 0, 4), span(1, 0, 1, 2), span(2, 0, 3, 5), span(3, 0, 4, 5)]
    placed = [(lane, free, each.step) for lane, free, each in assign_lanes(spans)]
    assert placed == [(0, 0, 0), (1, 0, 1), (1, 2, 2), (0, 4, 3)]


def test_what_workers_did_is_drawn_for_each() -> None:
    clock, passed = [10.0], list[Event]()
    timeline = Timeline(passed.append, lambda: clock[0])
    told(
        timeline,
        clock,
        (11, StepStarted(0, "copy", A, "b/x", 5, "", "w<1>")),
        (12, StepStarted(1, "mount", B, "b/y", 5)),
        (13, StepStarted(0, "copy", A, "b/x", 5, "", "w2")),  # the first one died
        (14, StepDone(0, "copy", A, "b/x", 5)),
        (15, StepDone(1, "mount", B, "b/y", 5)),
    )
    spans = timeline.spans()
    assert [(s.step, s.worker, s.end) for s in spans] == [
        (0, "w<1>", "cut"),
        (1, "", "done"),
        (0, "w2", "done"),
    ]
    report = Report(
        Totals(), (), run=RunRecord(workers=(WorkerRecord("w<1>", 0, 0, 1), WorkerRecord("w2", 1, 5)))
    )
    page = Page(render_html_report(report, spans))
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert labels == ["Timeline of b", "Timeline of b, by worker w2", "Timeline of b, by worker w<1>"]
    assert any("by worker w2" in title for title in page.titles)
    assert page.tables["workers"][1:] == [["w<1>", "0", "0 B", "1"], ["w2", "1", "5 B", "0"]]
    assert "1 blob brought by 1 worker" in summary_lines(report)
    assert "workers" not in Page(render_html_report(Report(Totals(), ()))).tables
    assert not [line for line in summary_lines(Report(Totals(), ())) if "worker" in line]


def test_ranges_are_lanes_of_their_blob() -> None:
    clock, passed = [10.0], list[Event]()
    timeline = Timeline(passed.append, lambda: clock[0])
    read = [
        (12.0, RangeRead("a.example", A, 1, 0, 1_000_000, 1.5)),
        (13.0, RangeRead("a.example", A, 2, 1_000_000, 1_000_000, 2.0)),
        (14.0, RangeRead("<b>", B, 1, 0, 500_000, 1.0)),
    ]
    told(timeline, clock, *read)
    assert timeline.ranges[1] == RangeSpan("a.example", A, 2, 1_000_000, 1_000_000, 1.0, 3.0)
    page = Page(render_html_report(Report(Totals(), ()), [span(0, 0, 0, 5)], ranges=timeline.ranges))
    assert "1.0 MB from byte 1000000 on; 1.00 s to 3.00 s" in page.titles
    assert f"{A[7:19]} from a.example, by ranges" in page.text and "from <b>, by ranges" in page.text
    tops = [float(value) for name, value in page.attributes if name == "y"]
    assert len(set(tops)) >= 2
    for _ in range(MAX_RANGES):
        timeline(read[0][1])
    assert len(timeline.ranges) == MAX_RANGES
    assert "by ranges" not in Page(render_html_report(Report(Totals(), ()), [span(0, 0, 0, 5)])).text


def test_a_summary_tells_what_was_read_by_ranges_and_what_was_not_after_all() -> None:
    ranges = RangesRecord(2, 40, 300_000_000, {"another ETag": 1, "wrong bytes": 2})
    lines = summary_lines(Report(Totals(), (), ranges=ranges))
    assert "2 large blobs read by several ranges at once: 300 MB by 40 ranges" in lines
    assert "1 blob read by one stream after all: a range had another ETag" in lines
    assert "2 blobs read by one stream after all: a range had wrong bytes" in lines
    assert not [line for line in summary_lines(Report(Totals(), ())) if "range" in line]


def test_failures_come_first() -> None:
    report = Report(Totals(2, 1), (image("good:1"), image("bad:1", "failed", "source: no such thing")))
    text = render_html_report(report, [span(0, 0, 0, 1, end="failed", error="cut off")])
    page = Page(text)
    heads = [text.index(f"<h2>{word}</h2>") for word in ("Images", "Totals", "Timeline")]
    assert page.text.count("source: no such thing") == 0 and text.index("no such thing") < heads[0]
    assert heads == sorted(heads)
    assert page.tables["failed-images"][1] == ["a.example/bad:1", "b.example/bad:1", "source: no such thing"]
    assert page.tables["failed-steps"][1][-1] == "cut off"
    assert [row[2] for row in page.tables["images"][1:]] == ["failed", "done"]


def test_who_signed_has_a_column_where_a_policy_was_asked() -> None:
    met = Acceptance("sigstoreSigned", "the key app.pub", B, C)
    verdict = Verdict(digest_of(b""), "a.example", (met, met))
    judged = msgspec.structs.replace(image("a:1"), signatures=(verdict,))
    table = Page(render_html_report(Report(Totals(2), (judged, image("b:1"))))).tables["images"]
    assert [row[5:] for row in table] == [["Signed by"], ["the key app.pub"], [""]]
    assert len(Page(render_html_report(Report(Totals(1), (image("b:1"),)))).tables["images"][0]) == 5


def test_a_run_without_failures_has_no_such_section() -> None:
    assert "failures" not in dict.fromkeys(
        v for _, v in Page(render_html_report(Report(Totals(), ()))).attributes
    )


def test_totals_are_those_of_the_report() -> None:
    totals = Totals(3, 0, 5, 2, 4, 6, 1_500_000, 2_500_000, 77, 12.34)
    report = Report(totals, (image("a:1"), image("b:1", "present")), (TargetRecord("b.example", 1, 1),))
    page = Page(render_html_report(report))
    assert dict(page.tables["totals"][1:]) == {
        "Images": "2: 1 done, 1 present, 0 failed, 0 skipped",
        "Blobs": "5 copied, 2 mounted, 4 present",
        "Manifests": "6 put",
        "Read": "1.5 MB",
        "Written": "2.5 MB",
        "Requests": "77",
        "Took": "12.3 s",
    }
    assert page.tables["targets"][1][:5] == ["b.example", "1", "1", "0", "0"]
    audited = Page(render_html_report(Report(Totals(audited=1, incomplete=2), ())))
    assert audited.tables["totals"][-1] == ["Audited", "1 root, 2 images incomplete"]


NASTY = "<script>alert(1)</script>\"'&\x1b[31m\u202e"
NASTY_VERDICT = Verdict(digest_of(b""), NASTY, (Acceptance(NASTY, NASTY, NASTY, NASTY),))


def test_what_others_chose_can_do_nothing() -> None:
    report = Report(
        Totals(1, 1),
        (ImageRecord(NASTY, NASTY, NASTY, NASTY, (NASTY,), "failed", NASTY, signatures=(NASTY_VERDICT,)),),
        (TargetRecord(NASTY),),
        notes=(NASTY,),
    )
    spans = [span(0, 0, 1, 2, target=NASTY, error=NASTY, digest=NASTY, end="failed")]
    text = render_html_report(report, spans)
    page = Page(text)
    assert {"img", "link", "iframe", "object"}.isdisjoint(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "action")]
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert page.tags.count("script") == text.count("<script") == 1
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert re.findall(r"https?:", text) == []
    assert page.tables["failed-images"][1][0] == NASTY.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")


async def test_the_page_of_a_real_run_has_its_figures(tmp_path: Path) -> None:
    sample = sample_set(3, images=3, layer_size=4096)
    async with registries(tmp_path, ["source", "target"]) as [source, target]:
        fill(source.store, sample)
        pairs = [
            Pair(parse_reference(f"{source.host}/{n}"), parse_reference(f"{target.host}/{n}"))
            for n in sample.images
        ]
        timeline = Timeline(lambda event: None)
        runs: list[Run] = []
        report = await mirror(pairs, Settings(cache="off"), observer=timeline, on_start=runs.append)
    (run,) = runs
    assert report.ok
    assert run.planned is not None
    spans = timeline.spans(run.planned.plan.needs)
    page = Page(render_html_report(report, spans, run.planned))

    copies = [each for each in spans if each.kind == "copy" and each.end == "done"]
    assert len(copies) == report.totals.blobs_copied
    assert sum(title.split(": ")[1].startswith("copy ") for title in page.titles) == len(copies)
    assert all(0 <= each.ready <= each.began <= each.ended for each in spans)
    by_step = {each.step: each for each in spans}
    puts = [each for each in spans if each.kind == "put"]
    assert all(put.waited_for is not None for put in puts)
    assert all(by_step[put.waited_for].ended <= put.began for put in puts if put.waited_for is not None)

    sizes = {digest: len(content) for digest, content in sample.blobs.items()}
    named = {name: blobs_of(sample, name) for name in sample.images}
    sharing = collect_dedup_stats(run.planned)
    assert sharing.unique == sum(sizes[digest] for digest in set().union(*named.values()))
    assert sharing.named == sum(sizes[digest] for blobs in named.values() for digest in blobs)
    shared = {share.image.partition("/")[2]: share.shared for share in sharing.images}
    for name, blobs in named.items():
        others = set().union(*(more for other, more in named.items() if other != name))
        assert shared[name] == sum(sizes[digest] for digest in blobs & others)
    assert [row[0] for row in page.tables["shares"][1:]] == [share.image for share in sharing.images]
    assert len(page.tables["images"]) == 1 + len(pairs)
