"""The comparison and the runs against floors, at a small scale: everything moves, and is counted.

Nothing here looks at a clock.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from contextlib import closing
from pathlib import Path

import pytest

from bench.measurements import medians
from bench.named_runs import FLOORS, Options
from bench.pump import Line, layers_of
from tools import compare, imageset
from tools.imageset import Layout
from tools.registry.zeros import zero_registry_process


@pytest.fixture
def tiny_set(tmp_path: Path) -> Layout:
    return imageset.synthetic(tmp_path / "tiny-set", seed=1, images=2, layer_size=8 * 1024)


def test_the_same_mirror_by_two_tools_is_counted_and_plotted(
    programs: None, tiny_set: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, plot = tmp_path / "record.json", tmp_path / "plot.svg"
    options = [
        "--rounds",
        "1",
        "--tools",
        "blobflow,skopeo",
        "--tuning",
        "default",
        "--folder",
        str(tmp_path),
    ]
    files = ["--json", str(record), "--svg", str(plot)]
    assert compare.main([str(tiny_set.path), *options, *files]) == 0
    found = json.loads(record.read_text())["medians"]
    blobs, images = tiny_set.unique_bytes, len(tiny_set.images)
    assert found["cold"]["blobflow"]["figures"]["bytes_read"] == blobs
    for tool in ("blobflow", "skopeo"):
        assert found["cold"][tool]["figures"]["bytes_written"] >= blobs
        assert found["unchanged"][tool]["figures"]["bytes_written"] == 0
    assert found["unchanged"]["blobflow"]["figures"]["target_requests"] == images
    assert found["unchanged"]["skopeo"]["figures"]["target_requests"] > images
    assert "skopeo takes" in capsys.readouterr().out
    ElementTree.parse(plot)


def test_under_faults_and_to_three_targets_blobflow_brings_everything(
    programs: None, tiny_set: Layout, tmp_path: Path
) -> None:
    options = ["--rounds", "1", "--tools", "blobflow", "--tuning", "default", "--scale", "0.001"]
    scenarios = ["--scenario", "faults", "--scenario", "fan-out", "--folder", str(tmp_path)]
    record = tmp_path / "record.json"
    assert compare.main([str(tiny_set.path), *options, *scenarios, "--json", str(record)]) == 0
    fan_out = json.loads(record.read_text())["medians"]["fan-out"]["blobflow"]["figures"]
    assert fan_out["bytes_read"] == tiny_set.unique_bytes
    assert fan_out["bytes_written"] == 3 * tiny_set.unique_bytes


def test_the_pump_moves_every_layer_of_the_zero_registry() -> None:
    with zero_registry_process(3, 100_000) as source, zero_registry_process() as target:
        command = [sys.executable, "-m", "bench.pump", "--from", source, "--to", target, "--streams", "2"]
        subprocess.run(command, check=True)
        layers = layers_of(source, None)
        assert [size for _, size in layers] == [100_000, 100_064, 100_128]
        with closing(Line(target, None)) as line:
            for digest, size in layers:
                answer = line.ask(f"HEAD /v2/giant/blobs/{digest}")
                assert answer.headers["content-length"] == str(size)


@pytest.mark.parametrize("name", ["giant-8", "giant-tls", "store-in", "store-out"])
def test_a_run_against_the_pump_ends_well_on_both_sides(name: str, tmp_path: Path) -> None:
    if "tls" in name and shutil.which("openssl") is None:
        pytest.skip("needs openssl (Debian: apt-get install openssl)")
    found = medians(FLOORS[name].measure(Options(tmp_path, scale=0.0005)))[name]
    assert {"blobflow", "pump"} <= found.keys()
    assert [measured.failed for measured in found.values() if measured.failed] == []
