"""What workers are worth: a set over lines that are the bound, by this process alone and by 1 to 8 workers.

Each worker is behind a line of its own (bench/shared_line.py) that paces all its bytes, both ways together:
so many workers carry so many times as much, but for what sharing out costs. The program alone is behind such
a line too. Registries, scheduler and workers are up before the clock begins; the workers' stores are empty.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from bench.ends import new_folder
from bench.measurements import Measured
from bench.peers import our_command, python
from bench.programs import Options, timed
from bench.scenarios import PREFIX, Layers, generate
from tools import imageset
from tools.checkout import TOP
from tools.cluster import append_config, cluster
from tools.imagelayout import Layout, read_layout
from tools.processes import Registry, Run, docker_registry, empty

RUN, SCALE = "workers", "cluster-10000"
ALONE = "blobflow"
WORKERS = (1, 2, 4, 8)
RATE = 20_000_000  # bytes a second, of all that passes a line
# 400 MB in 40 blobs, each far larger than what an exchange costs, and enough for 8 workers to end together.
LAYERS = Layers(8, 1, own=(10_000_000,) * 5)


def subject(workers: int) -> str:
    return f"blobflow, {workers} {'worker' if workers == 1 else 'workers'}"


def workers(options: Options) -> Iterator[Measured]:
    """The set into an empty registry, over one line and then over each number of them."""
    layout = _layout(options)
    folder = new_folder(options.folder)
    with docker_registry(folder / "source", leave=empty) as source:
        imageset.push(layout.path, source.host)
        for number in (0, *WORKERS):
            with docker_registry(folder / f"target-{number}", leave=empty) as target:
                yield _measured(options, layout, source, target, number)


def _layout(options: Options) -> Layout:
    path = options.folder / "set-workers"
    return read_layout(path) if path.exists() else generate(path, LAYERS.scaled(options.scale))


def _measured(options: Options, layout: Layout, source: Registry, target: Registry, number: int) -> Measured:
    """The set to the target by that many workers; by none: by the program alone."""
    home = options.home
    command = [
        *our_command(options.profile),
        "sync",
        "--from",
        source.host,
        "--to",
        f"{target.host}/{PREFIX}",
    ]
    command += ["--images", str(layout.path / "images.txt"), "--quiet"]
    source.forget()
    with ExitStack() as stack:
        lines = [stack.enter_context(line([source.host, target.host])) for _ in range(max(1, number))]
        proxies = [dict(zip([source.host, target.host], line, strict=True)) for line in lines]
        if number:
            made = stack.enter_context(cluster(new_folder(options.folder)))
            made.start_scheduler()
            parts = [
                made.start_worker(f"worker-{each}", proxies=way, wait=False)
                for each, way in enumerate(proxies)
            ]
            made.wait_for(*parts)
            command += ["--engine", made.engine]
        else:
            for host, proxy in proxies[0].items():
                append_config(home, f'[registry."{host}"]\nproxy = "http://{proxy}"\n')
        row, _ = timed(RUN, subject(number) if number else ALONE, command, home)
    taken = target.requests().uploads()
    figures = {
        "bytes_read": float(source.requests().bytes_of_blobs_read()),
        "bytes_written": float(sum(layout.blobs[digest] * times for digest, times in taken.items())),
    }
    return msgspec.structs.replace(row, figures=row.figures | figures)


@contextmanager
def line(registries: Sequence[str]) -> Iterator[list[str]]:
    """A line of its own to these registries: where it has each."""
    words = [sys.executable, "-m", "bench.shared_line", "--rate", str(RATE), *registries]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=TOP) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()
        finally:
            process.terminate()


# Images of 4 platforms x 8 layers: what a plan takes at its coordinator and at the scheduler.
IMAGES = 10_000
MEMORY_WORKERS = 2


def cluster_scale(options: Options) -> Iterator[Measured]:
    """A plan of many images whose blobs are in memory: alone, and by workers; the scheduler's peak as well.

    `seconds` are those of the transfer, and `ms_per_blob` what it took for each blob.
    """
    images = str(options.sized(IMAGES))
    command = python(options.profile, "-m", "bench.carrying", images)
    yield _with_figures(*timed(SCALE, ALONE, command, options.home))
    home = options.home
    with cluster(new_folder(options.folder)) as made:
        scheduler = made.start_scheduler()
        workers = [
            made.start(name, python(None, "-m", "bench.carrying", "--worker", made.engine, name))
            for name in (f"worker-{number}" for number in range(MEMORY_WORKERS))
        ]
        made.wait_for(*workers)
        row = _with_figures(*timed(SCALE, subject(MEMORY_WORKERS), [*command, made.engine], home))
        peak = {"scheduler_peak": float(peak_of(scheduler.process.pid))}
        yield msgspec.structs.replace(row, figures=row.figures | peak)


def _with_figures(row: Measured, done: Run) -> Measured:
    """A row with what the program says of itself."""
    return row if row.failed else msgspec.structs.replace(row, figures=row.figures | json.loads(done.out))


def peak_of(pid: int) -> int:
    """The bytes of memory that a process has had resident at most, as Linux tells it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024
