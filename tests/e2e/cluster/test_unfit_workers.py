"""Workers that can't do their part, and schedulers that can't be spoken to: a sentence each, nothing lost."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.cluster.conftest import PREFIX, Field, Source, assert_whole, told
from tests.e2e.conftest import MountsTmpfs, StartsRegistries
from tests.scenarios.child_process import Child
from tools.cluster import Part
from tools.ports import reserve_port
from tools.processes import Run, blobflow
from tools.processes import run as run_program

# `blobflow` of another version, and a `dask worker` that has no blobflow.
OTHER_VERSION = """
import blobflow.version
blobflow.version.__version__ = "0.0.1"
from blobflow.__main__ import main
main()
"""
# `blobflow` that waits a second where it waits up to fifteen, for a scheduler that isn't there.
HASTY = """
import blobflow.cluster.connecting, blobflow.cluster.worker_process
blobflow.cluster.connecting.CONNECT_SECONDS = blobflow.cluster.worker_process.ATTEMPT_SECONDS = 1.0
from blobflow.__main__ import main
main()
"""
WITHOUT_BLOBFLOW = """
import sys
sys.modules["blobflow"] = None
from distributed.cli.dask_worker import main
main()
"""


def other_version(field: Field) -> Part:
    words = [sys.executable, "-c", OTHER_VERSION, "worker", field.cluster.engine, "--name", "outdated"]
    return field.cluster.start("outdated", words)


def without_blobflow(field: Field) -> Part:
    address = f"tcp://{field.cluster.address}"
    words = [
        sys.executable,
        "-c",
        WITHOUT_BLOBFLOW,
        address,
        "--name",
        "bare",
        "--no-nanny",
        "--no-dashboard",
    ]
    return field.cluster.start("bare", words)


def warnings(run: Child, name: str) -> list[str]:
    """What the run warned of, with that worker's name in it."""
    told = [event["message"] for event in run.events if event["event"] == "warning"]
    return [sentence for sentence in told if name in sentence]


async def test_workers_that_are_unfit_are_named_once_and_the_others_bring_everything(
    field: Field, start_registry: StartsRegistries, mount_tmpfs: MountsTmpfs, home: Path
) -> None:
    """One has another version, one has no blobflow, one can't reach the source, one has a full disk."""
    layout, target = field.filled.fill(), start_registry("target")
    unfit = [other_version(field), without_blobflow(field)]
    nobody = {field.source.host: f"127.0.0.1:{reserve_port()}"}
    unfit.append(field.cluster.start_worker("stranded", proxies=nobody, wait=False))
    disk = mount_tmpfs("disk", "size=1m")
    unfit.append(field.cluster.start_worker("full", "--store", disk / "store", wait=False))
    field.have(1)
    field.cluster.wait_for(*unfit)
    fill_up(disk)
    async with field.syncing(layout, [target], home, "--cache", "all") as run:
        code = await run.ended()
    field.cluster.stop(*unfit)
    for part in unfit:
        field.cluster.wait_without(part)
    assert code == 0, told(run)
    for part in unfit:
        assert len(warnings(run, part.name)) == 1, (part.name, told(run), part.said())
    assert "0.0.1" in warnings(run, "outdated")[0]
    assert target.requests().uploads() == Counter(layout.blobs.keys())
    assert_whole(target, layout)


def fill_up(disk: Path) -> None:
    """Leave no byte of it free."""
    with (disk / "filling").open("ab", buffering=0) as filling, contextlib.suppress(OSError):
        while True:
            filling.write(bytes(4096))


async def test_a_run_whose_only_worker_has_another_version_ends_with_a_sentence(
    field: Field, start_registry: StartsRegistries, home: Path
) -> None:
    field.have(0)
    layout, target = field.filled.fill(), start_registry("target")
    outdated = other_version(field)
    field.cluster.wait_for(outdated)
    run = sync(field.cluster.engine, field.filled, layout.path / "images.txt", target.host, home)
    field.cluster.stop(outdated)
    field.cluster.wait_without(outdated)
    assert run.code != 0
    (sentence,) = sentences(run)
    assert "outdated" in sentence and "0.0.1" in sentence
    assert not target.requests().uploads()


@pytest.mark.parametrize("engine", ["dask", "tls"])
def test_where_there_is_no_scheduler_the_run_says_so(
    engine: str, source: Source, start_registry: StartsRegistries, home: Path, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{reserve_port()}"
    images = tmp_path / "images.txt"
    images.write_text("nothing/at-all:1\n")
    places = ["--from", source.registry.host, "--to", f"{start_registry('target').host}/{PREFIX}"]
    run = hasty("sync", *places, "--images", images, "--engine", f"{engine}://{address}", home=home)
    assert run.code == (4 if engine == "dask" else 2), run.err
    (sentence,) = sentences(run)
    assert address in sentence if engine == "dask" else "--engine-ca" in sentence


def hasty(*arguments: str | Path, home: Path) -> Run:
    """A whole run of a blobflow that waits for no scheduler longer than a second."""
    return run_program([sys.executable, "-c", HASTY, *map(str, arguments)], home)


def sync(engine: str, source: Source, images: Path, target: str, home: Path, *more: str | Path) -> Run:
    """A whole run as a user sees it."""
    places = ["--from", source.registry.host, "--to", f"{target}/{PREFIX}"]
    return blobflow("sync", *places, "--images", images, "--engine", engine, *more, home=home)


def sentences(run: Run) -> list[str]:
    """The lines of standard error that begin as errors do."""
    assert "Traceback" not in run.err
    return [line for line in run.err.splitlines() if line.startswith("blobflow: ")]


def test_a_worker_without_a_scheduler_ends_with_a_sentence(home: Path) -> None:
    address = f"127.0.0.1:{reserve_port()}"
    run = hasty("worker", f"dask://{address}", "--patience", "1", home=home)
    assert run.code == 4, run.err
    (sentence,) = sentences(run)
    assert address in sentence
