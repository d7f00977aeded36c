"""The named runs at a small scale: everything moves, by every tool that is here, and is counted.

Nothing here looks at a clock.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from bench import run
from bench.archive_loads import names_in, write_archive
from bench.measurements import Median, medians
from bench.named_runs import FLOORS
from bench.programs import Options
from bench.pump import Line, layers_of
from tools import imageset
from tools.checkout import TOP
from tools.imageset import Layout
from tools.registry.zeros import zero_registry_process


@pytest.fixture
def tiny_set(tmp_path: Path) -> Layout:
    return imageset.synthetic(tmp_path / "tiny-set", seed=1, images=2, layer_size=8 * 1024)


def measured(names: list[str], folder: Path, *more: str | Path) -> dict[str, dict[str, Median]]:
    """Medians of one round, by run and subject; everything has to end well."""
    record = folder / "record.json"
    options = ["--rounds", "1", "--folder", folder, "--json", record, *more]
    assert run.main([*names, *map(str, options)]) == 0
    found = msgspec.json.decode(record.read_bytes(), type=run.Recorded).medians
    assert [each.failed for subjects in found.values() for each in subjects.values() if each.failed] == []
    return found


def test_the_same_mirror_by_two_tools_is_counted_and_plotted(
    programs: None, tiny_set: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.svg"
    options: list[str | Path] = [
        "--tools",
        "blobflow,skopeo",
        "--tuning",
        "default",
        "--set",
        tiny_set.path,
        "--svg",
        plot,
    ]
    found = measured(["cold", "unchanged", "second-prefix"], tmp_path, *options)
    blobs, images = tiny_set.unique_bytes, len(tiny_set.images)
    assert found["cold"]["blobflow"].figures["bytes_read"] == blobs
    for tool in ("blobflow", "skopeo"):
        assert found["cold"][tool].figures["bytes_written"] >= blobs
        assert found["unchanged"][tool].figures["bytes_written"] == 0
    assert found["unchanged"]["blobflow"].figures["target_requests"] == images
    assert found["unchanged"]["skopeo"].figures["target_requests"] > images
    assert found["second-prefix"]["skopeo"].figures["mounts"] > 0
    assert "skopeo takes" in capsys.readouterr().out
    ElementTree.parse(plot)


def test_under_faults_and_to_three_targets_blobflow_brings_everything(
    programs: None, tiny_set: Layout, tmp_path: Path
) -> None:
    options: list[str | Path] = ["--tools", "blobflow", "--set", tiny_set.path]
    measured(["faults"], tmp_path, "--scale", "0.001", *options)
    fan_out = measured(["fan-out"], tmp_path, *options)["fan-out"]["blobflow"].figures
    assert fan_out["bytes_read"] == tiny_set.unique_bytes
    assert fan_out["bytes_written"] == 3 * tiny_set.unique_bytes


def test_a_giant_layer_comes_over_a_slow_line_by_blobflow_and_by_raw_connections(
    programs: None, tmp_path: Path
) -> None:
    found = measured(["giant-layer"], tmp_path, "--tools", "blobflow", "--scale", "0.004")["giant-layer"]
    assert found.keys() == {"blobflow", "8 raw connections", "floor of 8 connections"}
    whole = found["blobflow"].figures["bytes_written"]
    assert whole > 2 * 1024 * 1024
    for subject in ("blobflow", "8 raw connections"):
        figures = found[subject].figures
        assert figures["bytes_read"] == pytest.approx(whole, rel=0.001), f"{subject} reads each byte once"
        assert figures["bytes_written"] == pytest.approx(whole, rel=0.001)
        assert figures["path_cpu"] > 0


def test_many_tags_that_are_current_are_asked_for_and_nothing_moves(programs: None, tmp_path: Path) -> None:
    found = measured(["many-tags"], tmp_path, "--tools", "blobflow", "--scale", "0.02")["many-tags"]
    assert found["blobflow"].figures["source_requests"] == found["blobflow"].figures["target_requests"] == 40
    assert found["blobflow"].figures["bytes_written"] == 0


def test_a_far_source_has_a_floor_and_an_earlier_build_its_turn(
    programs: None, tiny_set: Layout, tmp_path: Path
) -> None:
    """The checkout of the earlier build is ours, over this environment."""
    earlier = tmp_path / "earlier"
    (earlier / ".venv" / "bin").mkdir(parents=True)
    for package in ("blobflow", "bench", "tools"):
        (earlier / package).symlink_to(TOP / package)
    interpreter = earlier / ".venv" / "bin" / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    options: list[str | Path] = ["--tools", "blobflow", "--set", tiny_set.path, "--against", earlier]
    found = measured(["far-source", "load"], tmp_path, *options)
    assert found["far-source"].keys() == {"blobflow", "earlier build", "floor of 8 connections"}
    assert found["far-source"]["earlier build"].figures["bytes_written"] == tiny_set.unique_bytes
    assert found["load"].keys() >= {"blobflow", "earlier build"}


def test_an_archive_of_the_set_is_loaded_by_blobflow_and_skopeo(programs: None, tmp_path: Path) -> None:
    found = measured(["load"], tmp_path, "--tools", "blobflow,skopeo", "--scale", "0.0005")["load"]
    assert found.keys() == {"blobflow", "blobflow, a second time", "gunzip, skopeo"}
    requests = {name: each.figures["target_requests"] for name, each in found.items()}
    assert requests["blobflow, a second time"] == 15 < requests["blobflow"]


def test_an_archive_has_every_image_of_the_set_and_is_what_skopeo_reads(
    programs: None, tiny_set: Layout, tmp_path: Path
) -> None:
    archive = tmp_path / "images.tar.gz"
    write_archive(tiny_set, archive)
    assert names_in(archive) == list(tiny_set.images)
    name = names_in(archive)[0]
    plain = tmp_path / "images.tar"
    plain.write_bytes(gzip.decompress(archive.read_bytes()))
    subprocess.run(["skopeo", "inspect", f"docker-archive:{plain}:{name}"], check=True, capture_output=True)


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


def test_a_set_comes_over_one_line_and_by_workers_with_a_line_each(programs: None, tmp_path: Path) -> None:
    """By two of the numbers of workers that the run has: they differ in nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.workers.WORKERS", (1, 2))
        found = medians(FLOORS["workers"].measure(Options(tmp_path, scale=0.001)))["workers"]
    assert found.keys() == {"blobflow", "blobflow, 1 worker", "blobflow, 2 workers"}
    for subject, each in found.items():
        assert not each.failed, (subject, each.failed)
        assert each.figures["bytes_read"] == each.figures["bytes_written"] > 8 * 5 * 10_000
    assert len({each.figures["bytes_read"] for each in found.values()}) == 1, "each blob once"


def test_a_plan_is_carried_out_between_places_in_memory_alone_and_by_workers(tmp_path: Path) -> None:
    found = medians(FLOORS["cluster-10000"].measure(Options(tmp_path, scale=0.002)))["cluster-10000"]
    assert found.keys() == {"blobflow", "blobflow, 2 workers"}
    for subject, each in found.items():
        assert not each.failed, (subject, each.failed)
        # 20 images of 4 platforms: a config and 4 layers are an image's own, 4 are shared by 10 of them.
        assert each.figures["blobs"] == 20 * 4 * 5 + 2 * 4 * 4
    assert found["blobflow, 2 workers"].figures["scheduler_peak"] > 0


@pytest.mark.parametrize("name", ["giant-8", "giant-tls", "store-in", "store-out"])
def test_a_run_against_the_pump_ends_well_on_both_sides(name: str, tmp_path: Path) -> None:
    if "tls" in name and shutil.which("openssl") is None:
        pytest.skip("needs openssl (Debian: apt-get install openssl)")
    found = medians(FLOORS[name].measure(Options(tmp_path, scale=0.0005)))[name]
    assert {"blobflow", "pump"} <= found.keys()
    assert [measured.failed for measured in found.values() if measured.failed] == []
