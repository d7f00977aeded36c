"""Text from strangers on its way to people: what acts or hides is shown as what it is, and the rest stays."""

from __future__ import annotations

import json
import re
import traceback

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.cli.output.access_log import access_line_formatter
from blobflow.cli.output.html_report import render_html_report
from blobflow.cli.output.image_text import image_lines
from blobflow.cli.output.stdio import print_lines, sanitize_log_output
from blobflow.engine.results.report import ImageRecord, Report, Totals
from blobflow.oci import Digest, digest_of, media, parse_manifest, parse_reference
from blobflow.operations.inspection import Inspection
from blobflow.printable import LONGEST, printable
from blobflow.server import AccessRecord, CommonLogFormat, json_line
from blobflow.server.admin.overview import ImageRow, OverviewRows, RepositoryRow, TagRow, UpstreamRow
from blobflow.server.admin.page import render, with_age

# A character of each kind, and what is shown for it.
ACTING = {
    "NUL": ("\x00", r"\x00"),
    "backspace": ("\b", r"\x08"),
    "tab": ("\t", r"\t"),
    "line feed": ("\n", r"\n"),
    "carriage return": ("\r", r"\r"),
    "escape": ("\x1b", r"\x1b"),
    "DEL": ("\x7f", r"\x7f"),
    "next line (C1)": ("\x85", r"\x85"),
    "control sequence introducer (C1)": ("\x9b", r"\x9b"),
    "no-break space": ("\xa0", r"\xa0"),
    "soft hyphen": ("\xad", r"\xad"),
    "combining grapheme joiner": ("\u034f", r"\u034f"),
    "Arabic letter mark": ("\u061c", r"\u061c"),
    "Hangul filler": ("\u3164", r"\u3164"),
    "zero width space": ("\u200b", r"\u200b"),
    "zero width joiner": ("\u200d", r"\u200d"),
    "left-to-right mark": ("\u200e", r"\u200e"),
    "right-to-left mark": ("\u200f", r"\u200f"),
    "line separator": ("\u2028", r"\u2028"),
    "paragraph separator": ("\u2029", r"\u2029"),
    "left-to-right embedding": ("\u202a", r"\u202a"),
    "right-to-left override": ("\u202e", r"\u202e"),
    "word joiner": ("\u2060", r"\u2060"),
    "left-to-right isolate": ("\u2066", r"\u2066"),
    "pop directional isolate": ("\u2069", r"\u2069"),
    "braille blank": ("\u2800", r"\u2800"),
    "byte order mark": ("\ufeff", r"\ufeff"),
    "interlinear annotation": ("\ufff9", r"\ufff9"),
    "half of a surrogate pair": ("\ud800", r"\ud800"),
    "byte that is no UTF-8": ("\udcff", r"\udcff"),
    "private use": ("\ue000", r"\ue000"),
    "unassigned": ("\u0378", r"\u0378"),
    "tag": ("\U000e0041", r"\U000e0041"),
    "variation selector 17": ("\U000e0100", r"\U000e0100"),
}
READABLE = ["v1.2-rc_3", "中文", "é e\u0301", "עברית", "عربي", "हिन्दी", "🐳 ❤️", "Ω≈ç√", "a\\b", " ", ""]
each_acting = pytest.mark.parametrize(("char", "shown"), ACTING.values(), ids=ACTING)


def harmless(text: str) -> bool:
    """Whether each line is one that `printable` leaves as it is."""
    return all(printable(line, len(line)) == line for line in text.split("\n"))


@each_acting
def test_what_acts_or_hides_is_shown_as_its_escape(char: str, shown: str) -> None:
    assert printable(f"a{char}b") == f"a{shown}b"


@pytest.mark.parametrize("text", READABLE)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(st.text(st.characters(categories=None)), st.integers(0, 40))
def test_whatever_it_is_one_line_comes_out_and_no_more_than_was_asked_for(text: str, most: int) -> None:
    shown = printable(text, most)
    assert len(shown) <= max(most, 1)
    assert shown.isprintable()
    assert harmless(shown)


def test_a_long_text_ends_in_dots_also_where_only_its_escapes_are_long() -> None:
    assert printable("x" * LONGEST) == "x" * LONGEST
    assert printable("x" * (LONGEST + 1)) == "x" * (LONGEST - 1) + "…"
    assert printable("\u202e" * 5, 10) == r"\u202e\u2" + "…"


# Through every door


@each_acting
def test_the_page_of_the_registry_shows_it_harmless(char: str, shown: str) -> None:
    evil = f"x{char}<y"
    digest = Digest("sha256:" + "a" * 64)
    tag = TagRow(evil, digest, (ImageRow(evil, 1),), 1)
    page = render(
        OverviewRows(None, (RepositoryRow(evil, None, (tag,), False),), evil, (UpstreamRow(evil, 1, 1, 1),))
    )
    html = with_age(page, 3).decode("utf-8")
    assert harmless(html)
    assert html.count(f"x{shown}&lt;y") == 4


@each_acting
def test_the_page_of_a_run_shows_it_harmless(char: str, shown: str) -> None:
    evil = f"x{char}y"
    record = ImageRecord(evil, evil, "", "", (evil,), "failed", evil)
    html = render_html_report(Report(Totals(images=1), (record,), notes=(evil,)))
    assert harmless(html)
    assert html.count(f"x{shown}y") == 7


@each_acting
def test_inspect_shows_it_harmless_in_every_place_of_a_manifest(char: str, shown: str) -> None:
    evil = f"x{char.encode('utf-8', 'replace').decode()}y"
    shown = printable(evil)
    blob = {"mediaType": evil, "digest": digest_of(b"{}"), "size": 2}
    child = {
        "mediaType": f"a.manifest.{evil}",
        "digest": digest_of(b"{}"),
        "size": 2,
        "platform": {"os": evil, "architecture": evil, "variant": evil, "os.version": evil},
    }
    document = {
        "mediaType": media.OCI_INDEX,
        "schemaVersion": 2,
        "manifests": [child, blob],
        "annotations": {evil: evil},
    }
    root = parse_manifest(json.dumps(document).encode())
    lines = image_lines(Inspection(parse_reference("127.0.0.1:5000/a:1"), root, ()))
    assert all(map(harmless, lines))
    assert "\n".join(lines).count(shown) == 8


ACCESS = AccessRecord("::1", "GET", "/v2/", "", 200, 0, 2, 0.1, "curl")


@each_acting
@pytest.mark.parametrize("form", ["brief", "common", "combined", "json"])
def test_a_line_of_the_access_log_is_a_line_whoever_asked(form: str, char: str, shown: str) -> None:
    evil = f"x{char}y"
    hostile = msgspec.structs.replace(
        ACCESS, path=evil, query=evil, user_agent=evil, referer=evil, user=evil, method=evil, remote=evil
    )
    line = access_line_formatter(form)(hostile)  # type: ignore[arg-type]
    assert harmless(line)
    line.encode("utf-8")
    if form == "json":
        assert json.loads(line)["user_agent"] == evil, "nothing is lost for programs"
        assert line.isascii()
    else:
        assert line.count(f"x{shown}y") >= 4


def test_quotes_and_backslashes_in_a_log_stay_within_their_field() -> None:
    agent = '\\" 200 "' + "\\" * 2000
    line = CommonLogFormat(combined=True).line(msgspec.structs.replace(ACCESS, user_agent=agent))
    fields = re.findall(r'"((?:[^"\\]|\\.|\\…)*)"', line)
    assert fields[0] == "GET /v2/ HTTP/1.1"
    assert len(fields) == 3
    assert line.endswith('…"')


def test_plain_accesses_are_json_as_they_were() -> None:
    assert msgspec.json.decode(json_line(ACCESS), type=AccessRecord) == ACCESS


@each_acting
def test_what_is_said_is_a_line_each(char: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_lines(f"x{char}y", "z", err=True)
    assert capsys.readouterr().err == f"x{shown}y\nz\n"


def test_what_libraries_log_is_harmless_tracebacks_included(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    sanitize_log_output()
    handler = logging.lastResort
    assert handler is not None
    try:
        raise ValueError("no \x1b[2J\u202e")
    except ValueError as error:
        found = (ValueError, error, error.__traceback__)
        record = logging.LogRecord("aiohttp", logging.ERROR, "", 1, "of \x9b%s", ("\x07",), found)
        assert "\x1b" in "".join(traceback.format_exception(error))
    handler.handle(record)
    text = capsys.readouterr().err
    assert text.startswith("of \\x9b\\x07\nTraceback")
    assert text.endswith("ValueError: no \\x1b[2J\\u202e\n")
    assert harmless(text)
