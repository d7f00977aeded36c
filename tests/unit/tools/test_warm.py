"""The warm Python: what it forks is as if it had just been started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tools.checkout import TOP

PROGRAM = """
import os
from tools.warm import CLUSTER, adopt_environment, import_all

import_all(CLUSTER)
from blobflow.cluster.pulse import silence_seconds
adopt_environment(dict(pair.split("=", 1) for pair in {pairs!r}))
print(silence_seconds(), sorted(os.environ) == sorted({names!r}))
"""


def silence(before: dict[str, str], home: Path, **after: str) -> str:
    """Seconds of `blobflow.worker-silence` in a program off a Python that was warmed before."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DASK_")}
    environment = {"HOME": str(home), **after}
    pairs = [f"{key}={value}" for key, value in environment.items()]
    code = PROGRAM.format(pairs=pairs, names=[*environment])
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=TOP, env=kept | before, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def test_the_configuration_of_dask_is_read_again_from_variables_and_files(tmp_path: Path) -> None:
    (tmp_path / ".config/dask").mkdir(parents=True)
    (tmp_path / ".config/dask/blobflow.yaml").write_text("blobflow: {worker-silence: 7}")
    before = {"DASK_BLOBFLOW__WORKER_SILENCE": "4"}
    assert silence(before, tmp_path / "none", DASK_BLOBFLOW__WORKER_SILENCE="0.5") == "0.5 True"
    assert silence(before, tmp_path / "none") == "30.0 True"
    assert silence(before, tmp_path) == "7.0 True"
