"""The page of a run in a real browser: it shows what the JSON report says, and needs nothing but itself."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.deadlines import HANGS_AFTER
from tools import imageset
from tools.processes import blobflow, blobflow_serve, environment

WIDTH, HEIGHT = 1200, 1600


def browse(page: Path, folder: Path, *arguments: str) -> str:
    """Have Debian's chromium load the page, without a network; what it says of it."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium (Debian: apt-get install chromium)")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    away = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"]
    command = [program, *quiet, *away, f"--window-size={WIDTH},{HEIGHT}", *arguments, page.as_uri()]
    done = subprocess.run(
        command, env=environment(folder), capture_output=True, text=True, timeout=HANGS_AFTER, check=True
    )
    return done.stdout


def test_a_browser_shows_the_figures_of_the_report(
    small_set: imageset.Layout, tmp_path: Path, home: Path
) -> None:
    images = tmp_path / "images.txt"
    images.write_text("\n".join([*small_set.images, "no/such:image"]))
    page, document = tmp_path / "run.html", tmp_path / "run.json"
    with blobflow_serve(tmp_path / "source") as source, blobflow_serve(tmp_path / "target") as target:
        imageset.push(small_set.path, source.host)
        where = ["--from", source.host, "--to", f"{target.host}/m", "--images", str(images)]
        done = blobflow("sync", *where, "--report", page, "--report", document, home=home)
    assert done.code == 3, done.err
    report = json.loads(document.read_text())
    totals = report["totals"]

    shown = browse(page, tmp_path, "--dump-dom")

    count = len(small_set.images)
    assert f"<title>blobflow: {count + 1} images, 1 failed</title>" in shown
    assert re.search(rf">{count + 1}: {count} done, 0 present, 1 failed, 0 skipped</td>", shown)
    assert f">{totals['blobs_copied']} copied, {totals['blobs_mounted']} mounted, 0 present</td>" in shown
    assert f">{totals['requests']}</td>" in shown
    steps = totals["blobs_copied"] + totals["blobs_mounted"] + totals["manifests_put"]
    assert len(re.findall(r"<g><title>step \d+: ", shown)) >= steps
    assert shown.index("no manifest no/such:image") < shown.index("<h2>Totals</h2>")

    picture = tmp_path / "run.png"
    browse(page, tmp_path, f"--screenshot={picture}")
    head = picture.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    assert struct.unpack(">II", head[16:]) == (WIDTH, HEIGHT)
