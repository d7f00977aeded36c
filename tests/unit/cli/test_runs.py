"""Verbs at work, against embedded registries that `blobflow serve` runs as processes of their own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from blobflow.cli import cli
from blobflow.cli.runtime.event_loop import SHUTDOWN, run_loop
from blobflow.engine.transfer.runner import Transfer
from tests.deadlines import HANGS_AFTER
from tests.scenarios.command_line import NAMES, SAMPLE, Place, blobflow, place, serving, source

__all__ = ["place", "source"]  # fixtures

CHILDREN = 3  # architectures of each image


def report_of(place: Place, *argv: str, code: int = 0) -> Any:
    path = place.folder / "report.json"
    path.unlink(missing_ok=True)
    blobflow(*argv, "--report", str(path), code=code)
    return json.loads(path.read_bytes())


def test_a_set_is_mirrored_and_the_second_run_asks_one_question_a_tag_and_side(place: Place) -> None:
    first = report_of(place, "sync", *place.set())
    assert first["version"] == 1
    assert [image["status"] for image in first["images"]] == ["done"] * len(NAMES)
    assert first["totals"]["blobs_copied"] == len(SAMPLE.blobs)
    for image, name in zip(first["images"], NAMES, strict=True):
        assert image["source"] == f"{place.source}/{name}"
        assert image["target"] == f"{place.target}/m/{name}"
        assert image["digest"] == image["source_digest"] == SAMPLE.images[name].digest
        assert len(image["platforms"]) == CHILDREN

    second = report_of(place, "sync", *place.set())
    assert [image["status"] for image in second["images"]] == ["present"] * len(NAMES)
    assert second["totals"]["requests"] == 2 * len(NAMES)
    assert second["totals"]["bytes_written"] == 0


def test_each_of_four_targets_has_a_price_and_a_row_in_the_report(place: Place) -> None:
    size = sum(map(len, SAMPLE.blobs.values()))
    report_of(place, "sync", *place.set())
    with ExitStack() as stack:
        others = [stack.enter_context(serving(place.folder / name)) for name in ("a", "b")]
        with serving(place.folder / "gone") as gone:
            targets = [place.target, *others, gone]
            among = (*place.set(), *(word for host in targets[1:] for word in ("--to", f"{host}/m")))
            prices = json.loads(blobflow("plan", *among, "--json").stdout)["price"]["targets"]
            assert prices.keys() == set(targets)
            assert [prices[host]["copies"] for host in targets] == [0] + [len(SAMPLE.blobs)] * 3
            assert [prices[host]["bytes_to_write"] > size for host in targets] == [False] + [True] * 3
            rows = [
                line for line in blobflow("plan", *among).stdout.splitlines() if line.startswith("target")
            ]
            assert sorted(row.partition(" to ")[2].partition(": ")[0] for row in rows) == sorted(targets)
            assert all(f"{len(SAMPLE.blobs)} blobs, " in row for row in rows if place.target not in row)
        report = place.folder / "report.json"
        shown = blobflow("sync", *among, "--report", str(report), code=3)
    current, first, second, failed = json.loads(report.read_bytes())["targets"]
    counts = {"done": 0, "present": 0, "failed": 0, "skipped": 0}
    moved = ("blobs_copied", "blobs_mounted", "manifests_put", "bytes_written", "bytes_mounted")
    nothing = dict.fromkeys(moved, 0)
    assert current == {"target": place.target, **counts, "present": len(NAMES), **nothing}
    assert failed == {"target": gone, **counts, "failed": len(NAMES), **nothing}
    for row, host in zip((first, second), others, strict=True):
        assert (row["target"], row["done"], row["blobs_copied"]) == (host, len(NAMES), len(SAMPLE.blobs))
        assert row["bytes_written"] > size
    told = [line.split()[:3] for line in shown.stdout.splitlines() if line.split()[0] in targets]
    words = [["3", "present"], ["3", "done"], ["3", "done"], ["3", "failed"]]
    assert told == [[host, *said] for host, said in zip(targets, words, strict=True)]


def test_progress_goes_to_stderr_and_the_summary_to_stdout(place: Place) -> None:
    done = blobflow("sync", *place.set())
    lines = done.stderr.splitlines()
    assert sorted(re.sub(r"\d+/", "", line, count=1) for line in lines) == sorted(
        f"Progress: {len(NAMES)} {name} done" for name in NAMES
    )
    assert done.stdout.startswith(f"{len(NAMES)} images: {len(NAMES)} done\n")


def test_quiet_says_nothing_when_all_is_well(place: Place) -> None:
    assert blobflow("sync", "-q", *place.set()).output == ""


def test_verbose_shows_the_requests(place: Place) -> None:
    assert f"HEAD http://{place.source}/v2/" in blobflow("sync", "-v", *place.set()).stderr


def test_events_are_json_lines_to_the_last(place: Place) -> None:
    done = blobflow("sync", "--log-format", "json", *place.set())
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.stdout == ""
    assert [event["event"] for event in events].count("image") == len(NAMES)
    assert events[-1]["event"] == "summary"
    assert events[-1]["totals"]["images"] == len(NAMES)


def test_a_dry_run_moves_nothing(place: Place) -> None:
    assert "0 current" in blobflow("sync", "--dry-run", *place.set()).stdout
    plan = json.loads(blobflow("plan", "--json", *place.set()).stdout)
    assert plan["price"]["images_current"] == 0


def test_a_plan_is_priced_saved_applied_and_then_current(place: Place) -> None:
    saved = place.folder / "plan.json"
    done = blobflow("plan", "--json", "--exit-code", "--out", str(saved), *place.set(), code=1)
    plan = json.loads(done.stdout)
    assert plan["price"]["images"] == len(NAMES)
    assert plan["price"]["blobs_unique"] == len(SAMPLE.blobs)
    assert plan["price"]["bytes_to_read"] == SAMPLE.unique_bytes
    assert {image["digest"] for image in plan["images"]} == {image.digest for image in SAMPLE.images.values()}
    assert {image["status"] for image in plan["images"]} == {"mirror"}

    applied = report_of(place, "apply", str(saved))
    assert [image["status"] for image in applied["images"]] == ["done"] * len(NAMES)
    assert applied["totals"]["blobs_mounted"] == plan["price"]["mounts"]
    assert {image["target"] for image in applied["images"]} == {f"{place.target}/m/{n}" for n in NAMES}

    text = blobflow("plan", "--exit-code", *place.set()).stdout
    assert f"images     {len(NAMES)}, of which {len(NAMES)} current" in text
    assert text.count(": present\n") == len(NAMES)


def test_what_is_no_plan_is_not_applied(place: Place) -> None:
    saved = place.folder / "plan.json"
    saved.write_text('{"price": 1}')
    assert "plan.json is not a plan" in blobflow("apply", str(saved), code=7).stderr
    assert "can't read" in blobflow("apply", str(place.folder / "none"), code=2).stderr


def test_a_missing_image_fails_alone_and_the_set_exits_with_3(place: Place) -> None:
    images = place.folder / "some.txt"
    images.write_text(f"{NAMES[0]}\nshop/none:1\n")
    path = place.folder / "report.json"
    done = blobflow("sync", "--report", str(path), *place.set(images), code=3)
    statuses = {image["source"]: image["status"] for image in json.loads(path.read_bytes())["images"]}
    assert statuses == {f"{place.source}/{NAMES[0]}": "done", f"{place.source}/shop/none:1": "failed"}
    assert done.stderr.endswith("blobflow: 1 of 2 images did not arrive\n")
    assert f"failed: {place.source}/shop/none:1 -> {place.target}/m/shop/none:1: source: " in done.stderr

    planned = blobflow("plan", *place.set(images), code=3)
    assert planned.stderr == "blobflow: 1 of 2 images could not be planned\n", "which is on stdout"


def test_a_copy_writes_its_digest_and_takes_the_sources_tag(place: Place) -> None:
    name, digests = NAMES[0], place.folder / "digest"
    copied = f"{place.target}/copied"
    blobflow("copy", f"{place.source}/{name}", copied, f"{copied}:other", "--digestfile", str(digests))
    assert digests.read_text() == SAMPLE.images[name].digest
    tag = name.partition(":")[2]
    for reference in (f"{copied}:{tag}", f"docker://{copied}:other"):
        raw = CliRunner().invoke(cli, ["inspect", "--raw", reference]).stdout_bytes
        assert raw == SAMPLE.images[name].raw


def test_a_copy_that_fails_exits_with_its_own_code_and_one_sentence(place: Place) -> None:
    done = blobflow("copy", f"{place.source}/shop/none:1", f"{place.target}/x", code=5)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("blobflow: source: ")
    assert "shop/none" in last
    assert done.stderr.count("source: ") == 1


def test_an_unreachable_host_exits_with_4(place: Place) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        done = blobflow("inspect", f"{host}/a:1", code=4)
    assert host in done.stderr
    assert done.stderr.count("\n") == 1


def test_inspect_shows_every_platform(place: Place) -> None:
    name = NAMES[0]
    text = blobflow("inspect", f"{place.source}/{name}").stdout
    assert SAMPLE.images[name].digest in text
    assert {"linux/amd64", "linux/arm64/v8"} < set(text.splitlines())
    assert text.count("  config  sha256:") == CHILDREN

    found = json.loads(blobflow("inspect", "--json", f"{place.source}/{name}").stdout)
    assert found["digest"] == SAMPLE.images[name].digest
    assert [len(child["layers"]) for child in found["manifests"]] == [4] * CHILDREN
    assert {child["platform"]["architecture"] for child in found["manifests"]} == {"amd64", "arm64", "arm"}

    raw = CliRunner().invoke(cli, ["inspect", "--raw", f"{place.source}/{name}"]).stdout_bytes
    assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == SAMPLE.images[name].digest


def test_inspect_gives_one_form_at_a_time(place: Place) -> None:
    done = blobflow("inspect", "--raw", "--json", "r:1/a", code=2)
    assert done.stderr.startswith("blobflow: --raw and --json exclude each other")


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0"])
def test_serve_stays_on_loopback_unless_told(listen: str, tmp_path: Path) -> None:
    done = blobflow("serve", "--listen", listen, "--root", str(tmp_path / "r"), code=2)
    assert "--htpasswd" in done.stderr
    assert "--anonymous" in done.stderr
    assert not (tmp_path / "r").exists()


# Ends


def test_a_failed_set_exits_with_3_also_when_nobody_reads_the_summary(place: Place) -> None:
    images = place.folder / "none.txt"
    images.write_text("shop/none:1\n")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "blobflow", "sync", *place.set(images)],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=HANGS_AFTER,
        )
    assert done.returncode == 3
    assert done.stderr.endswith("blobflow: 1 of 1 images did not arrive\n")
    assert f"failed: {place.source}/shop/none:1 -> {place.target}/m/shop/none:1: source: " in done.stderr


@pytest.mark.parametrize("form", [(), ("--quiet",), ("--verify", "content")])
def test_of_one_copy_that_failed_one_sentence_is_said(place: Place, form: tuple[str, ...]) -> None:
    source = f"{place.source}/shop/none:1"
    done = blobflow("copy", source, f"{place.target}/m/none:1", *form, code=5)
    (line,) = done.stderr.splitlines()
    assert done.output == done.stderr
    assert line.startswith(f"blobflow: source: {place.source} has no manifest shop/none:1")


def test_a_copy_to_several_targets_says_what_failed_once_for_each(place: Place) -> None:
    source, targets = f"{place.source}/shop/none:1", [f"{place.target}/m/{name}:1" for name in "ab"]
    done = blobflow("copy", "-q", source, *targets, code=5)
    lines = done.stderr.splitlines()
    assert lines[-1] == "blobflow: 2 of 2 targets did not get the image"
    assert [line.partition(": source: ")[0] for line in lines[:-1]] == [
        f"failed: {source} -> {target}" for target in targets
    ]


def test_a_copy_of_a_file_that_holds_no_image_says_it_once_whatever_the_targets(place: Place) -> None:
    archive = place.folder / "none.tar"
    archive.write_bytes(bytes(10240))
    targets = [f"{place.target}/{name}:1" for name in "ab"]
    done = blobflow("copy", "-q", f"docker-archive:{archive}", *targets, code=7)
    assert done.stderr == f"blobflow: source: {archive} is empty: it holds no image\n"


def test_an_interrupted_run_leaves_its_report(tmp_path: Path) -> None:
    """The source takes the connection and never answers, so that the run is surely under way."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        report = tmp_path / "report.json"
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "blobflow",
                "copy",
                f"{host}/a:1",
                "127.0.0.1:9/a",
                "--report",
                str(report),
            ],
            env={**os.environ, "HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        listener.settimeout(HANGS_AFTER)
        connection, _ = listener.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=HANGS_AFTER)
    assert process.returncode == 130
    assert errors.splitlines() == [
        "0 of 1 image is at the target, 1 left (0 B written); the same command goes on",
        "blobflow: interrupted",
    ]
    assert "Traceback" not in errors
    (image,) = json.loads(report.read_bytes())["images"]
    assert (image["source"], image["status"]) == (f"{host}/a:1", "skipped")


def demo(tmp_path: Path) -> subprocess.Popen[str]:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "blobflow", "demo"],
        env={**os.environ, "TMPDIR": str(folder), "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("verb", ["copy", "export tar", "export local", "save", "save --file"])
def test_sigterm_that_leaves_an_image_unread_is_an_interruption_whatever_was_to_become_of_it(
    verb: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the failure of who looks for what the run would have brought."""
    transfer = Transfer.run

    async def wound_down(self: Transfer) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)  # the handler tells the loop
        assert SHUTDOWN.get().winding_down
        await transfer(self)

    monkeypatch.setattr(Transfer, "run", wound_down)
    out, image = place.folder / "out", f"{place.source}/{NAMES[0]}"
    report = place.folder / "report.json"
    words = {
        "copy": ("copy", image, f"{place.target}/m/one:1"),
        "export tar": ("export", image, "-o", f"type=tar,dest={out}"),
        "export local": ("export", image, "-o", f"type=local,dest={out}"),
        "save": ("save", "--from", place.source, "--images", str(place.list), "-o", str(out)),
        "save --file": (
            *("save", "--from", place.source, "--images", str(place.list), "-o", str(out)),
            *("--file", str(place.list)),
        ),
    }[verb]
    done = blobflow(*words, "--report", str(report), code=130)
    assert done.stderr.splitlines()[-1] == "blobflow: interrupted"
    assert not out.exists()
    assert {each["status"] for each in json.loads(report.read_text())["images"]} == {"skipped"}


def test_the_demo_mirrors_a_set_and_then_moves_nothing(tmp_path: Path) -> None:
    process = demo(tmp_path)
    text, progress = process.communicate(timeout=HANGS_AFTER)
    assert process.returncode == 0, progress
    assert "8 images: 8 done" in text
    assert "8 images: 8 present" in text
    assert "the second moved nothing, in 16 requests." in text
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["tmp"]


def test_an_interrupted_demo_cleans_up(tmp_path: Path) -> None:
    process = demo(tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Source registry http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=HANGS_AFTER)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_run_may_open_as_many_files_as_the_system_lets_it() -> None:
    """Each blob that waits for a slow target has files open, and connections need theirs."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))

    async def work() -> int:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    try:
        assert run_loop(work()) > 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
