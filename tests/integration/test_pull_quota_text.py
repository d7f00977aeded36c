"""The allowance of a source that counts, as the command line tells of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.oci.sample_images import sample_set
from blobflow.transports.store import Store
from tests.scenarios.registries import fill

IMAGES = sample_set(7, images=3, layer_size=64)
MANIFESTS = 12  # three indexes of three images each


@contextmanager
def hub(root: Path, left: int) -> Iterator[str]:
    """The faulty registry as a process, with the images, counting GETs of manifests; its host:port."""
    with closing(Store.open(root)) as store:
        fill(store, IMAGES)
    fault = f"* /manifests/ times=0 rationed limit=100 left={left}"
    command = [sys.executable, "-m", "tools.registry.faulty", "--root", str(root), "--fault", fault]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip().removeprefix("listening on http://")
        finally:
            process.terminate()


@pytest.fixture
def blobflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for variable in ("DOCKER_CONFIG", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "BLOBFLOW_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    images = tmp_path / "images.txt"
    images.write_text("\n".join(IMAGES.images))
    yield images


def run(verb: str, host: str, images: Path, *more: str, code: int = 0) -> Result:
    places = ("--from", host, "--to", f"{host}/copy", "--images", str(images))
    done = CliRunner().invoke(cli, (verb, *places, *more))
    assert done.exit_code == code, done.output
    return done


def test_a_run_that_would_exceed_the_allowance_says_so_and_exits_with_5(
    blobflow: Path, tmp_path: Path
) -> None:
    with hub(tmp_path / "hub", left=5) as host:
        told = run("sync", host, blobflow, code=5).stderr
        assert f"blobflow: source: {host} lets 5 more manifests be read for now (100 in 6 h)" in told
        assert "at least 6 to read; run it later, for fewer images, or with --wait" in told


def test_plan_shows_what_is_left_and_what_a_run_needs_of_it(blobflow: Path, tmp_path: Path) -> None:
    with hub(tmp_path / "hub", left=3 * MANIFESTS) as host:
        plan = run("plan", host, blobflow).stdout
        assert (
            f"allowance  {host} has 24 manifests left to be read by 192.0.2.1 of 100 in 6 h; a run reads 12"
            in plan.splitlines()
        )
        document = json.loads(run("plan", host, blobflow, "--json").stdout)
        assert document["manifests_read"] == {host: MANIFESTS}
        assert document["allowances"] == {
            host: {"limit": 100, "remaining": 12, "window": 21600, "source": "192.0.2.1"}
        }
        assert "too few" in run("plan", host, blobflow).stdout
        run("sync", host, blobflow, code=5)
