"""Memory stays flat: how large a blob is must not matter."""

from __future__ import annotations

import shutil
from pathlib import Path

from tools.processes import BLOBFLOW
from tools.processes import run as measured
from tools.registry.zeros import zero_registry

SIZE = 2 << 30  # bytes
PEAK = 150_000_000


def test_a_blob_of_2_gib_passes_in_150_mb(home: Path) -> None:
    with zero_registry() as source, zero_registry() as target:
        layer = source.hold_image(SIZE)
        run_copy = [*BLOBFLOW, "copy", f"{source.host}/giant:1", f"{target.host}/giant:1"]
        run = measured(run_copy, home)
        shutil.rmtree(home)  # the store keeps what is large until the run's end, and maybe longer
        assert run.code == 0, run.err
        assert target.sizes[layer] == SIZE
        assert target.tags["1"] == source.tags["1"]
        assert run.peak < PEAK
