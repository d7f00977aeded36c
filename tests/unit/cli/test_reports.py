"""Reports of runs as programs and CI systems read them: what they say of the run, their forms and schemas,
what may not be in them, and what differs from one to the next."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blobflow.cli.options.command_line import without_secrets
from blobflow.cli.output.difference_text import difference_lines
from blobflow.cli.output.html_report import render_html_report
from blobflow.cli.output.junit_report import render_junit_report
from blobflow.engine.pairs import Pair
from blobflow.engine.results.difference import compare_reports
from blobflow.engine.results.report import (
    HostRecord,
    ImageRecord,
    Report,
    RunRecord,
    Status,
    TagRecord,
    TargetRecord,
    Totals,
    encode_report,
    with_unresolved,
)
from blobflow.errors import InvalidConfig, NotFound
from blobflow.oci import parse_reference
from blobflow.reportfile import load_report
from blobflow.version import __version__
from tests.scenarios.command_line import NAMES, Place, blobflow, place, source
from tools import schemas

__all__ = ["place", "source"]  # fixtures

D1, D2 = ("sha256:" + letter * 64 for letter in "12")
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
BEGAN = datetime(2026, 11, 28, 3, 0, 0, 250_000, UTC)
NASTY = "]]><b>&\"'\x00\x1b[31m\ufffe\u202e\ud800 é 漢 😀"


def image(name: str, status: Status = "done", digest: str = D1, **facts: Any) -> ImageRecord:
    return ImageRecord(f"a.example/{name}", f"b.example/m/{name}", digest, digest, (), status, **facts)


def report(*images: ImageRecord, **facts: Any) -> Report:
    failed = sum(each.status == "failed" for each in images)
    totals = Totals(len(images), failed, bytes_read=2000, bytes_written=1500, requests=40, seconds=12.5)
    run = RunRecord(BEGAN, BEGAN + timedelta(seconds=12.5), "0.1.0", ("blobflow", "sync", "x y.yaml"))
    return Report(totals, images, (TargetRecord("b.example"),), run=run, **facts)


def written(folder: Path, name: str, content: Report) -> str:
    path = folder / name
    path.write_bytes(encode_report(content))
    return str(path)


# What a run writes


def test_a_report_and_events_say_when_by_what_with_whom(place: Place) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    files = [place.folder / f"run.{suffix}" for suffix in ("json", "html", "xml")]
    reports = [word for file in files for word in ("--report", str(file))]
    secrets = ["--source-creds", "joe:s3cret", "--target-creds=joe:s3cret"]
    argv = ["sync", *place.set(), "--log-format", "json", *secrets, *reports]
    events = [json.loads(line) for line in blobflow(*argv).stderr.splitlines()]
    run = json.loads(files[0].read_bytes())["run"]

    began, ended = (datetime.fromisoformat(run[name]) for name in ("started", "ended"))
    assert before <= began <= ended <= datetime.now(UTC)
    assert run["blobflow"] == __version__
    command = ["blobflow", *argv]
    command[command.index("joe:s3cret")] = "***"
    command[command.index("--target-creds=joe:s3cret")] = "--target-creds=***"
    assert run["command"] == command
    assert not [file for file in files if "s3cret" in file.read_text()]
    hosts = {host["host"]: host for host in run["hosts"]}
    assert hosts[place.source]["sides"] == ["source"] and hosts[place.target]["sides"] == ["target"]
    totals = json.loads(files[0].read_bytes())["totals"]
    for figure in ("requests", "bytes_read", "bytes_written"):
        assert sum(host[figure] for host in hosts.values()) == totals[figure]

    assert all(RFC_3339.fullmatch(event["time"]) and len(event["time"]) == 24 for event in events)
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    first, last = events[0], events[-1]
    assert (first["event"], first["command"]) == ("run", command)
    assert (first["sources"], first["targets"]) == ([place.source], [place.target])
    assert (last["event"], last["started"], last["ended"]) == ("summary", run["started"], run["ended"])

    page = files[1].read_text()
    assert began.strftime("%Y-%m-%d %H:%M:%S UTC") in page
    assert f"blobflow {__version__}" in page and place.source in page
    assert len(ET.parse(files[2]).findall("testsuite/testcase")) == len(NAMES)


def test_a_run_that_ends_early_says_why_in_every_report(place: Place) -> None:
    files = [place.folder / f"run.{suffix}" for suffix in ("json", "html", "xml")]
    reports = [word for file in files for word in ("--report", str(file))]
    rules = place.folder / "spec.yaml"
    rules.write_text("version: 1\ndefaults: {source: 127.0.0.1:1, targets: [127.0.0.1:2]}\nimages: [a:1]\n")
    blobflow("sync", str(rules), "--cache-dir", str(rules / "store"), *reports, code=8)
    error = json.loads(files[0].read_bytes())["run"]["error"]
    assert str(rules) in error
    page = unescape(files[1].read_text().replace("<wbr>", ""))
    assert f"The run ended early: {error}" in page
    assert "<title>blobflow: 1 image, 0 failed, ended early</title>" in page
    shown = blobflow("report", "show", str(files[0])).stdout
    assert f"it ended early: {error}" in shown.splitlines()
    assert "not finished" in render_html_report(
        report(image("x:1", "skipped", error="not finished: the run ended before"))
    )


def test_images_that_were_present_have_their_platforms_in_everything_that_is_told(place: Place) -> None:
    file = place.folder / "run.json"
    argv = ("sync", *place.set(), "--report", str(file))
    blobflow(*argv)
    first = json.loads(file.read_bytes())["images"]
    done = blobflow(*argv, "--log-format", "json")
    second = json.loads(file.read_bytes())
    assert [each["status"] for each in second["images"]] == ["present"] * len(NAMES)
    assert [each["platforms"] for each in second["images"]] == [each["platforms"] for each in first]
    assert all(each["platforms"] for each in first)
    assert second["totals"]["requests"] == 2 * len(NAMES), "no manifest was read for that"
    told = [json.loads(line) for line in done.stderr.splitlines()]
    platforms = {event["source"]: event["platforms"] for event in told if event["event"] == "image"}
    assert platforms == {each["source"]: each["platforms"] for each in first}
    plan = json.loads(blobflow("plan", *place.set(), "--json").stdout)
    assert [each["platforms"] for each in plan["images"]] == [each["platforms"] for each in first]
    assert list(plan).index("images") < list(plan).index("price")
    assert RFC_3339.fullmatch(plan["made"]["at"]) and plan["made"]["command"][:2] == ["blobflow", "plan"]
    # Another choice, which all that was put covers: those of the platforms that are chosen.
    blobflow(*argv, "--platform", "linux/arm64")
    chosen = json.loads(file.read_bytes())["images"]
    assert [each["status"] for each in chosen] == ["present"] * len(NAMES)
    assert {name.split(" ")[0][:11] for each in chosen for name in each["platforms"]} == {"linux/arm64"}


@pytest.mark.parametrize("index", ["keep", "prune"])
def test_a_part_of_an_index_that_was_present_has_the_platforms_of_that_part(place: Place, index: str) -> None:
    file = place.folder / "run.json"
    argv = ("sync", *place.set(), "--platform", "linux/arm64", "--index", index, "--report", str(file))
    statuses, platforms = [], []
    for _ in range(2):
        blobflow(*argv)
        images = json.loads(file.read_bytes())["images"]
        statuses.append({each["status"] for each in images})
        platforms.append([each["platforms"] for each in images])
    assert statuses == [{"done"}, {"present"}]
    assert platforms[0] == platforms[1] and all(len(each) == 1 for each in platforms[1])


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("docker://joe:s3cret@reg.example/x:1", "docker://***@reg.example/x:1"),
        ("https://joe:s3cret@reg.example/x", "https://***@reg.example/x"),
        ("https://reg.example/list?X-Amz-Signature=s3cret", "https://reg.example/list?***"),
        ("https://reg.example/list#s3cret", "https://reg.example/list#***"),
        ("joe:s3cret@reg.example:5000/x", "***@reg.example:5000/x"),
        ("https://joe:s/3/cret@reg.example/x", "https://***@reg.example/x"),
        ("joe:s3@cret@reg.example/x", "***@reg.example/x"),
        (f"docker://joe:s3cret@reg.example/x@{D1}", f"docker://***@reg.example/x@{D1}"),
        ("--dest-registry-token=s3cret", "--dest-registry-token=***"),
        ("Authorization: Bearer s3cret", "Authorization: ***"),
        (f"reg.example/x:1@{D1}", f"reg.example/x:1@{D1}"),
        ("--concurrency=4", "--concurrency=4"),
        ("oci:./layout:tag", "oci:./layout:tag"),
    ],
)
def test_no_secret_is_in_a_command_line_that_is_kept(word: str, shown: str) -> None:
    assert without_secrets(("sync", word)) == ("sync", shown)


@pytest.mark.parametrize(
    "option", ["--source-creds", "--creds", "--src-creds", "--password", "--token", "--header"]
)
def test_the_value_of_a_secret_option_is_hidden_and_a_login_file_is_not(option: str) -> None:
    assert without_secrets((option, "s3cret", "x")) == (option, "***", "x")
    shown = "@file" if option.endswith("creds") else "***"  # a password may begin with an @
    assert without_secrets((option, "@file")) == (option, shown)
    assert without_secrets((f"{option}=@file",)) == (f"{option}={shown}",)
    assert without_secrets(("--", option, "name")) == ("--", option, "name")


# JUnit


def cases(text: str) -> dict[str, ET.Element]:
    return {case.attrib["name"]: case for case in ET.fromstring(text).iter("testcase")}


def test_junit_has_a_case_an_image_and_counts_that_agree() -> None:
    told = report(
        image("ok:1"),
        image("there:1", "present"),
        image("bad:1", "failed", error="source: no tag bad:1"),
        image("left:1", "skipped", error="not finished: the run ended before"),
        image("arm:1", "skipped", reason="has none of linux/arm64"),
        tags=(TagRecord("b.example/m/x:9", D1, "failed", "405"), TagRecord("b.example/m/x:8", D1, "removed")),
    )
    root = ET.fromstring(render_junit_report(told))
    (suite,) = root
    counts = {name: suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "7", "failures": "2", "errors": "1", "skipped": "1"}
    assert suite.attrib["timestamp"] == "2026-11-28T03:00:00" and suite.attrib["time"] == "12.500"
    found = cases(render_junit_report(told))
    failure = found["a.example/bad:1 -> b.example/m/bad:1"].find("failure")
    assert failure is not None
    assert (failure.attrib["type"], failure.text) == ("source", "source: no tag bad:1")
    assert failure.attrib["message"] == failure.text
    assert found["a.example/arm:1 -> b.example/m/arm:1"].find("skipped") is not None
    assert found["a.example/left:1 -> b.example/m/left:1"].find("error") is not None
    assert len(found["a.example/ok:1 -> b.example/m/ok:1"]) == 0
    properties = {each.attrib["name"]: each.attrib["value"] for each in root.iter("property")}
    assert properties["blobflow.command"] == "blobflow sync 'x y.yaml'"


def test_junit_is_what_the_schemas_of_ant_and_jenkins_ask_for() -> None:
    """Ant's schema (JUnit.xsd) has the order of elements and the attributes that there must be; Jenkins'
    (junit-10.xsd) those that there may be."""
    other = ImageRecord("a.example/x:1", "oci:./layout:1", D1, D1, (), "done")
    told = report(image("bad:1", "failed", error="no"), other)
    told = msgspec.structs.replace(told, targets=(*told.targets, TargetRecord("oci:./layout")))
    root = ET.fromstring(render_junit_report(told))
    assert (root.tag, root.attrib) == ("testsuites", {})
    assert [suite.attrib["name"] for suite in root] == ["b.example", "oci:./layout"]
    for number, suite in enumerate(root):
        must = {"id", "package", "name", "hostname", "timestamp", "tests", "failures", "errors", "time"}
        assert must <= suite.attrib.keys() <= {*must, "skipped"}
        assert suite.attrib["id"] == str(number)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
        tags = [each.tag for each in suite]
        assert tags == ["properties", "testcase", "system-out", "system-err"]
        for case in suite.iter("testcase"):
            assert case.attrib.keys() == {"name", "classname", "time"}
            assert all(each.attrib.keys() == {"type", "message"} for each in case.iter("failure"))
    assert ET.fromstring(render_junit_report(Report(Totals(), ()))).tag == "testsuites"


def test_junit_holds_whatever_names_are_made_of() -> None:
    told = report(image(NASTY, "failed", error=NASTY), image(NASTY + "2", "skipped", reason=NASTY))
    text = render_junit_report(told)
    (first, _) = cases(text)
    assert first.startswith("a.example/]]><b>&\"'\\x00\\x1b[31m\\ufffe\\u202e\\ud800 é 漢 😀 -> ")


def test_json_holds_whatever_names_are_made_of_and_is_read_again() -> None:
    """The name of a file need not be UTF-8 (`os.fsdecode` makes halves of surrogate pairs of the rest)."""
    told = report(image(NASTY, "failed", error=NASTY), notes=("dir\udcff/l.txt",))
    content = encode_report(told)
    kept = load_report(content, "nasty.json")
    assert kept.notes == ("dir\\udcff/l.txt",)
    assert kept.images[0].error == NASTY.replace("\ud800", "\\ud800")
    assert (kept.run, kept.totals) == (told.run, told.totals)
    assert "é 漢 😀" in content.decode()


def test_a_run_over_a_list_whose_name_is_not_utf_8_is_reported(place: Place) -> None:
    images = place.folder / "l\udcff.txt"
    images.write_text(NAMES[0])
    out = place.folder / "r\udcff.json"
    blobflow("sync", *place.set(images), "--report", str(out), "-q")
    assert "l\\udcff.txt" in " ".join(load_report(out.read_bytes(), "r.json").run.command)


# Other forms, later


def test_a_json_report_becomes_what_the_run_would_have_written(tmp_path: Path) -> None:
    told = report(image("bad:1", "failed", error="source: no"), image("ok:1"))
    file = written(tmp_path, "run.json", told)
    assert load_report(Path(file).read_bytes(), file) == told
    assert blobflow("report", "junit", file).stdout == render_junit_report(told)
    out = tmp_path / "run.html"
    assert blobflow("report", "html", file, "--out", str(out)).output == ""
    assert out.read_text() == render_html_report(told)
    shown = blobflow("report", "show", file).stdout.splitlines()
    assert shown[:3] == [
        "2026-11-28 03:00:00 to 2026-11-28 03:00:12 UTC, by blobflow 0.1.0",
        "blobflow sync 'x y.yaml'",
        "2 images: 1 done, 1 failed",
    ]
    assert shown[-1] == "failed: a.example/bad:1 -> b.example/m/bad:1: source: no"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not a report of blobflow: "),
        (b"[1]", "is not a report of blobflow: "),
        (b'{"version":1,"totals":{"images":"many"},"images":[]}', "is no report that a run can have"),
        (
            b'{"version":1,"totals":{},"images":[],"run":{"ended":"0001-01-01T00:00:00+14:00"}}',
            "is no report",
        ),
        (b'{"totals":{},"images"', "is not as it was written, but cut or spoilt: "),
        (b'{"version":2,"totals":{},"images":[]}', "is a report of version 2, by a newer blobflow"),
        (b'{"version":1,"price":{}}', "it is what `plan --json` prints"),
        (b"<!DOCTYPE html>", "is a page or XML, not a JSON report"),
        (b"[" * 100_000, "is not a report of blobflow: "),
    ],
)
def test_what_is_no_report_is_said_in_a_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    done = blobflow("report", "show", str(file), code=None)
    assert done.exit_code in (2, 7, 8)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"blobflow: {file} is ") and sentence in line


def test_reports_of_earlier_and_later_versions_are_read(tmp_path: Path) -> None:
    old = json.loads(encode_report(report(image("ok:1"))))
    del old["run"]
    new = {**old, "run": {"started": None, "more": 1}, "more": [1]}
    for document in (old, new):
        read = load_report(json.dumps(document).encode(), "x")
        assert read.run == RunRecord()
        assert "<h1>" in render_html_report(read)
    with pytest.raises(InvalidConfig, match=r"x has more than the \d+ bytes that a report may"):
        load_report(bytes(512 * 1024 * 1024 + 1), "x")


def test_a_report_that_was_edited_has_its_times_in_utc(tmp_path: Path) -> None:
    content = encode_report(report(image("a:1"))).replace(b"03:00:00.250000Z", b"05:30:00.25+02:30")
    content = b"\xef\xbb\xbf" + content.replace(b"03:00:12.750000Z", b"03:00:12")
    run = load_report(content, "x").run
    assert (run.started, run.ended) == (BEGAN, datetime(2026, 11, 28, 3, 0, 12, tzinfo=UTC))
    (tmp_path / "run.json").write_bytes(content)
    assert "03:00:12" in blobflow("report", "html", str(tmp_path / "run.json")).stdout


# Differences

EARLIER = (
    image("same:1"),
    image("moved:1"),
    image("breaks:1"),
    image("heals:1", "failed", "", error="target: 500"),
    image("ill:1", "failed", "", error="source: gone"),
    image("gone:1"),
    image("arm:1", "skipped", "", reason="has no arm64"),
)
LATER = (
    image("same:1", "present"),
    image("moved:1", digest=D2),
    image("breaks:1", "failed", error="source: gone"),
    image("heals:1"),
    image("ill:1", "failed", "", error="source: gone still"),
    image("arm:1", "skipped", "", reason="has no arm64"),
    image("new:1"),
    image("stillborn:1", "failed", "", error="source: never there"),
)


def test_two_reports_are_compared_image_by_image() -> None:
    found = compare_reports(report(*EARLIER), report(*LATER))
    assert [each.source for each in found.failing] == ["a.example/breaks:1", "a.example/stillborn:1"]
    assert [each.source for each in found.mended] == ["a.example/heals:1"]
    assert [(each.source, each.why) for each in found.still_failing] == [
        ("a.example/ill:1", "source: gone still")
    ]
    assert [(each.source, each.before, each.after) for each in found.changed] == [
        ("a.example/moved:1", D1, D2)
    ]
    assert [name.split(" ")[0] for name in found.added] == ["a.example/new:1", "a.example/stillborn:1"]
    assert [name.split(" ")[0] for name in found.gone] == ["a.example/gone:1"]
    lines = difference_lines(found, report(*EARLIER), report(*LATER))
    assert lines[0] == "failing: a.example/breaks:1 -> b.example/m/breaks:1: source: gone"
    assert f"changed: a.example/moved:1 -> b.example/m/moved:1: was {D1}, is {D2}" in lines
    assert ["images", "7", "8", "+1"] in [line.split() for line in lines]


def test_equal_images_make_no_difference_whatever_the_totals(tmp_path: Path) -> None:
    before = report(*EARLIER)
    after = msgspec.structs.replace(before, totals=msgspec.structs.replace(before.totals, bytes_read=4000))
    files = written(tmp_path, "a.json", before), written(tmp_path, "b.json", after)
    shown = blobflow("report", "diff", *files, "--exit-code").stdout.splitlines()
    assert shown[0] == "still failing: a.example/heals:1 -> b.example/m/heals:1: target: 500"
    assert [line.split() for line in shown if line.startswith("read")] == [
        ["read", "2.0", "kB", "4.0", "kB", "x", "2.00"]
    ]
    assert not compare_reports(before, after).differs
    well = report(image("ok:1"))
    assert difference_lines(compare_reports(well, well), well, well)[0] == (
        "the same 1 image, and the same became of them"
    )


def test_a_difference_has_an_exit_code_for_who_asks_and_json(tmp_path: Path) -> None:
    files = written(tmp_path, "a.json", report(*EARLIER)), written(tmp_path, "b.json", report(*LATER))
    blobflow("report", "diff", *files)
    document = json.loads(blobflow("report", "diff", *files, "--json", "--exit-code", code=1).stdout)
    assert (document["version"], document["differs"]) == (1, True)
    assert document["changed"] == [
        {"source": "a.example/moved:1", "target": "b.example/m/moved:1", "before": D1, "after": D2}
    ]
    assert [run["started"] for run in document["runs"]] == ["2026-11-28T03:00:00.250000Z"] * 2
    blobflow("report", "diff", "-", "-", code=2)
    blobflow("report", "diff", files[0], str(tmp_path / "none.json"), code=2)


# Schemas


def test_the_schemas_that_are_published_are_those_of_what_is_written() -> None:
    assert schemas.stale() == [], "run python -m tools.schemas"


def test_every_key_that_is_written_is_in_the_schema(place: Place) -> None:
    """That a schema is what msgspec makes of the types says nothing of what is written beside them."""
    file = place.folder / "run.json"
    done = blobflow("sync", "-v", *place.set(), "--log-format", "json", "--report", str(file))
    kinds = json.loads(blobflow("report", "schema", "events").stdout)["$defs"]
    lines = [kind for kind in kinds.values() if "event" in kind["properties"]]
    by_event = {kind["properties"]["event"]["enum"][0]: kind for kind in lines}
    for line in done.stderr.splitlines():
        event = json.loads(line)
        kind = by_event[event["event"]]
        assert set(kind["required"]) <= event.keys() <= kind["properties"].keys()
    schema = json.loads(blobflow("report", "schema").stdout)
    document = json.loads(file.read_bytes())
    assert document.keys() == schema["$defs"]["Report"]["properties"].keys()
    for name, record in (("ImageRecord", document["images"][0]), ("RunRecord", document["run"])):
        assert record.keys() == schema["$defs"][name]["properties"].keys()
    assert all(kind["description"] for kind in schema["$defs"].values())


def test_hosts_of_what_could_not_be_planned_are_told_too() -> None:
    pair = Pair(parse_reference("c.example/x:1"), parse_reference("b.example/x:1"))
    run = RunRecord(hosts=(HostRecord("b.example", ("target",), 3),))
    told = with_unresolved(Report(Totals(), (), run=run), {pair: NotFound("no")})
    assert told.run.hosts == (HostRecord("b.example", ("target",), 3), HostRecord("c.example", ("source",)))
