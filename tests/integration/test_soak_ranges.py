"""A soak: a giant layer over a line that cuts each connection after some megabytes, read by ranges."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.checkout import TOP
from tools.processes import BLOBFLOW, environment
from tools.registry.zeros import zero_registry_process

MIB = 1024 * 1024
GIB = 1024 * MIB
# What is read of a blob over such a line at most, for each of its bytes.
MOST_READ = 1.2


@pytest.mark.parametrize(
    ("size", "rate", "cut"),
    [
        (48 * MIB, 3_000_000, 3_000_000),
        pytest.param(4 * GIB, 16_000_000, 12_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(1200)]),
    ],
)
def test_a_giant_layer_arrives_whole_over_a_line_that_cuts_every_connection(
    tmp_path: Path, size: int, rate: int, cut: int
) -> None:
    report = tmp_path / "report.json"
    with zero_registry_process(1, size) as source, zero_registry_process() as target:
        words = [sys.executable, "-m", "tools.network_path", "--to", source, "--rate", str(rate)]
        words += ["--cut-mean", str(cut), "--seed", "18"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=TOP) as path:
            try:
                assert path.stdout is not None
                far = path.stdout.readline().split()[-1]
                copy = ["copy", f"{far}/giant:1", f"{target}/giant:1", "--cache", "all"]
                subprocess.run(
                    [*BLOBFLOW, *copy, "--report", str(report)],
                    cwd=TOP,
                    env=environment(tmp_path),
                    check=True,
                )
            finally:
                path.terminate()
                said, _ = path.communicate()
        told = json.loads(report.read_text())
        print(said, told["totals"], told["ranges"])
        assert told["totals"]["failed"] == 0
        assert told["totals"]["bytes_read"] <= MOST_READ * size
        assert told["ranges"]["blobs"] and told["ranges"]["bytes"] > size / 2
        assert int(said.split()[2]) > size / cut / 3, "or the line was no bad one"
