"""Folders of workers: none outlives its process for long, and none of a living one is touched."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from blobflow.cluster.scratch import scratch_folder

HOLDER = """
import signal, tempfile
from pathlib import Path
from blobflow.cluster.scratch import scratch_folder
with scratch_folder() as folder:
    (Path(folder) / "inside").mkdir()
    print(folder, flush=True)
    signal.pause()
"""


def test_folders_of_the_dead_are_removed_and_those_of_the_living_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    words = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        theirs = Path(holder.stdout.readline().strip())
        try:
            with scratch_folder() as ours:
                assert {Path(ours), theirs} == set(tmp_path.iterdir())
            assert set(tmp_path.iterdir()) == {theirs}
        finally:
            holder.send_signal(signal.SIGKILL)
    assert theirs.exists(), "nobody cleans up after SIGKILL"
    with scratch_folder() as ours:
        assert set(tmp_path.iterdir()) == {Path(ours)}
    assert not list(tmp_path.iterdir())


def test_what_only_has_such_a_name_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "blobflow-cluster-link").symlink_to(elsewhere)
    (tmp_path / "blobflow-cluster-file").touch()
    with scratch_folder():
        pass
    assert len(list(tmp_path.iterdir())) == 3
