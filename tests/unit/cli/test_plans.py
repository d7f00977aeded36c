"""What `plan`, `--dry-run` and `apply` say: a line an image on stdout, the totals last, HTTP on stderr."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deadlines import HANGS_AFTER
from tests.scenarios.command_line import NAMES, SAMPLE, Place, blobflow, place, source

__all__ = ["place", "source"]  # fixtures

LINE = re.compile(
    r"(\S+) -> (\S+): (present|failed: .*"
    r"|(?:copy (\d+) blobs?, )?(?:mount (\d+), )?put (\d+) manifests?, [\d.]+ [kMG]?B)(, .*)?"
)
LATER = "brought with an image above"


def images_in(text: str) -> list[str]:
    """The lines before the empty one."""
    return text.partition("\n\n")[0].splitlines()


def totals_in(text: str) -> list[str]:
    return text.partition("\n\n")[2].splitlines()


def copy_of(place: Place, name: str) -> tuple[str, str]:
    return f"{place.source}/{name}", f"{place.target}/m/{name}"


@pytest.fixture
def lock(place: Place) -> Iterator[Path]:
    path = place.folder / "mirror.lock"
    blobflow("plan", "--out", str(path), *place.set())
    yield path


def test_a_plan_lists_each_image_in_the_order_of_the_list_and_its_price_last(place: Place) -> None:
    done = blobflow("plan", *place.set())
    lines = images_in(done.stdout)
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), lines
    assert [(m[1], m[2]) for m in found if m] == [copy_of(place, name) for name in NAMES]
    totals = totals_in(done.stdout)
    assert totals[0] == f"images     {len(NAMES)}, of which 0 current"
    assert not any("->" in line for line in totals)
    assert done.stderr == ""


def test_the_lines_add_up_to_the_price(place: Place) -> None:
    plan = json.loads(blobflow("plan", "--json", *place.set()).stdout)
    found = [LINE.fullmatch(line) for line in images_in(blobflow("plan", *place.set()).stdout)]
    [target] = plan["price"]["targets"].values()
    assert sum(int(m[4] or 0) for m in found if m) == target["copies"] == len(SAMPLE.blobs)
    assert sum(int(m[5] or 0) for m in found if m) == plan["price"]["mounts"]
    assert sum(int(m[6] or 0) for m in found if m) == plan["price"]["manifests"]
    for field in ("copies", "mounts", "manifests", "bytes_to_write"):
        assert sum(image[field] for image in plan["images"]) == target[field]
    assert [image["source"] for image in plan["images"]] == [copy_of(place, name)[0] for name in NAMES]


@pytest.mark.parametrize("verb", [("plan",), ("sync", "--dry-run")])
def test_every_look_ahead_says_the_same(place: Place, verb: tuple[str, ...]) -> None:
    assert blobflow(*verb, *place.set()).stdout == blobflow("plan", *place.set()).stdout


def test_verbose_adds_the_requests_on_stderr_and_nothing_on_stdout(place: Place) -> None:
    quiet, loud = blobflow("plan", *place.set()), blobflow("plan", "-v", *place.set())
    assert loud.stdout == quiet.stdout
    assert f"HEAD http://{place.source}/v2/" in loud.stderr


def test_quiet_says_only_what_went_wrong(place: Place) -> None:
    assert blobflow("plan", "-q", *place.set()).output == ""
    assert blobflow("plan", "-q", "--exit-code", *place.set(), code=1).output == ""
    images = place.folder / "some.txt"
    images.write_text("shop/none:1\n")
    done = blobflow("plan", "-q", *place.set(images), code=3)
    assert done.stdout == ""
    assert f"failed: {place.source}/shop/none:1 -> " in done.stderr


def test_what_is_there_and_what_can_not_be_had_is_listed_too(place: Place) -> None:
    images = place.folder / "some.txt"
    images.write_text(f"shop/none:1\n{NAMES[0]}\n{NAMES[1]}\n")
    blobflow("copy", *copy_of(place, NAMES[0]))
    lines = images_in(blobflow("sync", "--dry-run", *place.set(images), code=3).stdout)
    assert lines[0].startswith(
        f"{place.source}/shop/none:1 -> {place.target}/m/shop/none:1: failed: source: "
    )
    assert lines[1] == "{} -> {}: present".format(*copy_of(place, NAMES[0]))
    assert re.fullmatch(r".*: copy \d+ blobs, .*", lines[2])
    told = blobflow("plan", "--json", *place.set(images), code=3)
    assert f"failed: {place.source}/shop/none:1 -> " in told.stderr, "standard output is for machines there"
    plan = json.loads(told.stdout)
    assert [image["status"] for image in plan["images"]] == ["failed", "current", "mirror"]


def test_a_copy_that_can_not_be_planned_ends_as_the_copy_would(place: Place) -> None:
    source, target = f"{place.source}/shop/none:1", f"{place.target}/m/shop/none:1"
    done = blobflow("copy", source, target, code=5)
    planned = blobflow("copy", "--dry-run", source, target, code=5)
    said = f"blobflow: source: {place.source} has no manifest shop/none:1 (MANIFEST_UNKNOWN: "
    assert planned.stderr.startswith(said)
    assert done.stderr.endswith(planned.stderr)


def test_a_plan_for_programs_is_not_taken_for_a_saved_one(place: Place) -> None:
    printed = place.folder / "plan.json"
    printed.write_text(blobflow("plan", "--json", *place.set()).stdout)
    refused = blobflow("apply", str(printed), code=7)
    assert "plan.json is not a plan saved by blobflow: it is what `plan --json`" in refused.stderr
    assert "--out -: give a file" in blobflow("plan", "--out", "-", *place.set(), code=2).stderr


def test_what_several_images_share_is_told_with_the_first(place: Place) -> None:
    source, target = copy_of(place, NAMES[0])
    done = blobflow("copy", "--dry-run", source, target, f"{target}-too")
    first, second = images_in(done.stdout)
    assert re.search(r": copy \d+ blobs, put \d+ manifests, ", first)
    assert second.endswith(f": {LATER}, 0 B")


def test_what_is_pruned_is_told(place: Place) -> None:
    arguments = [*place.set(), "--platform", "linux/arm64", "--index", "prune"]
    for verb in (("plan",), ("sync", "--dry-run")):
        lines = images_in(blobflow(*verb, *arguments).stdout)
        assert all(line.endswith(", pruned to linux/arm64/v8") for line in lines), lines
    plan = json.loads(blobflow("plan", "--json", *arguments).stdout)
    assert [image["platforms"] for image in plan["images"]] == [["linux/arm64/v8"]] * len(NAMES)
    kept = images_in(blobflow("plan", *place.set(), "--platform", "linux/arm64", "--index", "keep").stdout)
    assert all(line.endswith(", linux/arm64/v8 only") for line in kept), kept
    alone = images_in(blobflow("plan", *place.set(), "--index", "only").stdout)
    assert all(line.endswith(", index only") for line in alone), alone


def test_a_plan_that_is_applied_dry_says_what_is_left_of_it(place: Place, lock: Path) -> None:
    planned = blobflow("plan", *place.set()).stdout
    dry = blobflow("apply", "--dry-run", str(lock))
    assert images_in(dry.stdout) == images_in(planned)
    assert totals_in(dry.stdout)[0] == f"images     {len(NAMES)}, of which 0 current"
    blobflow("apply", "-q", str(lock))
    after = blobflow("apply", "--dry-run", str(lock)).stdout
    assert images_in(after) == ["{} -> {}: present".format(*copy_of(place, name)) for name in NAMES]
    assert totals_in(after)[0] == f"images     {len(NAMES)}, of which {len(NAMES)} current"


def test_a_plan_is_applied_twice_and_the_report_says_so(place: Place, lock: Path) -> None:
    first, second = applied(place, lock), applied(place, lock)
    assert [image["status"] for image in first["images"]] == ["done"] * len(NAMES)
    assert [image["source"] for image in first["images"]] == [copy_of(place, name)[0] for name in NAMES]
    assert first["totals"]["blobs_copied"] == len(SAMPLE.blobs)
    assert [image["status"] for image in second["images"]] == ["present"] * len(NAMES)
    assert second["totals"]["bytes_written"] == second["totals"]["manifests_put"] == 0
    assert second["totals"]["bytes_read"] == 0
    assert blobflow("plan", "--exit-code", *place.set()).exit_code == 0


def applied(place: Place, lock: Path, *options: str) -> Any:
    report = place.folder / "report.json"
    blobflow("apply", str(lock), "--report", str(report), *options)
    return json.loads(report.read_bytes())


def test_a_page_can_be_made_of_it(place: Place, lock: Path) -> None:
    page = place.folder / "run.html"
    blobflow("apply", str(lock), "--report", str(page))
    assert all(name in page.read_text() for name in NAMES)


@pytest.mark.parametrize(
    "option", [["--no-overwrite"], ["--foreign-layers"], ["--referrers", "off"], ["--compress", "zstd"]]
)
def test_what_the_plan_decided_is_not_decided_again(place: Place, lock: Path, option: list[str]) -> None:
    done = blobflow("apply", str(lock), *option, code=2)
    assert done.stderr.startswith(f"blobflow: {' '.join(option)}")
    assert "make it anew" in done.stderr and done.stderr.count("\n") == 1


def test_what_is_about_earlier_runs_is_refused(place: Place, lock: Path) -> None:
    assert "--audit" in blobflow("apply", str(lock), "--audit", "all", code=2).stderr


@pytest.mark.parametrize("option", [["--no-overwrite"], ["--referrers", "off"], ["--compress", "zstd"]])
def test_to_say_it_again_is_no_contradiction(place: Place, option: list[str]) -> None:
    lock = place.folder / "mirror.lock"
    blobflow("plan", "--out", str(lock), *option, *place.set())
    assert applied(place, lock, *option)["totals"]["failed"] == 0


def test_how_it_is_carried_out_is_the_runs_to_say(place: Place, lock: Path) -> None:
    assert applied(place, lock, "--verify", "blobs", "--fail-fast", "--concurrency", "1", "--cache", "off")


def test_a_plan_file_that_is_none_is_one_sentence(place: Place, lock: Path) -> None:
    whole = lock.read_bytes()
    edited = whole.replace(b'"copy"', b'"move"')
    for content, code in ((whole[: len(whole) // 2], 8), (edited, 8), (b"", 7), (b'{"version": 1}', 2)):
        lock.write_bytes(content)
        done = blobflow("apply", str(lock), code=code)
        assert done.stderr.startswith(f"blobflow: {lock} ") and done.stderr.count("\n") == 1
        assert done.stdout == ""


def piped(output: str | int, *argv: str) -> tuple[int, str]:
    """A process with another standard output; its exit code, and what it said on stderr."""
    command = [sys.executable, "-m", "blobflow", *argv]
    with open(output, "w", closefd=not isinstance(output, int)) as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=HANGS_AFTER)
    return done.returncode, done.stderr


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_reader_who_goes_away_does_not_make_a_mirror_current(place: Place, form: tuple[str, ...]) -> None:
    """As `plan --exit-code | head`, under `set -o pipefail`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert piped(writer, "plan", "--exit-code", *form, *place.set()) == (1, "")
        images = place.folder / "some.txt"
        images.write_text("shop/none:1\n")
        code, said = piped(writer, "plan", *form, *place.set(images))
    finally:
        os.close(writer)
    assert code == 3
    assert said.endswith("blobflow: 1 of 1 images could not be planned\n")


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("verb", [("plan",), ("plan", "--json"), ("sync",)])
def test_a_full_disk_under_standard_output_is_said(place: Place, verb: tuple[str, ...]) -> None:
    check_full_disk(*piped(str(FULL), *verb, *place.set()))


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("words", ["--help", "--version", "serve --help", "help serve", "completion bash"])
def test_a_full_disk_under_what_says_how_it_is_used_is_said(words: str) -> None:
    check_full_disk(*piped(str(FULL), *words.split()))


def check_full_disk(code: int, said: str) -> None:
    assert code == 8
    assert said.endswith(
        "blobflow: can't write standard output: the disk is full; free some space, or name another place\n"
    )
    assert said.count("blobflow: ") == 1


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
def test_what_a_run_did_is_told_though_its_report_can_not_be_written(place: Place) -> None:
    whole = place.folder / "report.json"
    reports = ("--report", str(FULL), "--report", str(whole))
    done = blobflow("sync", *reports, *place.set(), code=8)
    assert f"{len(NAMES)} images: {len(NAMES)} done" in done.stdout
    assert done.stderr.endswith(
        "can't write /dev/full: the disk is full; free some space, or name another place\n"
    )
    assert len(json.loads(whole.read_bytes())["images"]) == len(NAMES)
