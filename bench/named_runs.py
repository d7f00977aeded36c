"""The named runs: the scenarios, and what is held against a floor that no client could be below.

    giant, giant-8            bytes of one blob, or of eight, between registries that do nothing
    giant-tls, giant-tls-8    the same over TLS
    store-in, store-out       between a registry and the store
    memory                    many large blobs at once
    plan-scale                the planner alone, at two sizes
    heads                     a large mirror that is current, 20 ms away
    unchanged-floor           a small one, against Python's own start
    help                      how long until blobflow says anything

Each is a function that measures once; whoever calls it takes the medians.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec

from bench.contest import PATIENCE, Contest, hold, new_folder, relay
from bench.measurements import Measured
from bench.peers import PREFIX, our_command, python, shown
from bench.scenarios import KIB, SCENARIOS, Layers, generate
from tools import imageset
from tools.certificates import self_signed
from tools.imageset import Layout
from tools.network_path import Shape
from tools.processes import BLOBFLOW, Run, blobflow_serve, docker_registry, empty, run
from tools.registry.zeros import zero_registry_process

GIB = 1024**3
STREAMS = 8
# Runs of some milliseconds are made so often in each round: one alone says little.
REPEATS = 5
TAGS = Layers(20, 1, own=(KIB,), tags=100)
NEAR = Shape(rtt=0.02)


class Options(msgspec.Struct, frozen=True):
    """Where and with what. `debian`: the set of Debian packages; `scale`: of the bytes of generated blobs;
    `profile`: where blobflow's profile is written."""

    folder: Path
    debian: Layout | None = None
    scale: float = 1.0
    profile: Path | None = None

    def sized(self, size: int) -> int:
        return max(1, int(size * self.scale))

    @property
    def home(self) -> Path:
        """An empty folder for what a program keeps."""
        home = self.folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        return home


class Named(msgspec.Struct, frozen=True):
    """A run by its name: what it measures, and how to make it once. `needs_set`: of Debian packages."""

    says: str
    measure: Callable[[Options], Iterator[Measured]]
    needs_set: bool = False


def timed(name: str, subject: str, command: Sequence[str], home: Path) -> tuple[Measured, Run]:
    """Run a program and measure it from outside."""
    done = run(command, home, PATIENCE)
    figures = {"wall": done.wall, "cpu": done.cpu, "peak": float(done.peak)}
    failed = f"ended with {done.code}: {(done.err or done.out).strip()[-300:]}" if done.code else ""
    return Measured(name, subject, figures, shown(command), failed), done


def giant(options: Options, *, name: str, streams: int, tls: bool) -> Iterator[Measured]:
    """2 GiB from registry to registry, in so many blobs at once."""
    pair = self_signed(options.folder / "tls") if tls else None
    size = options.sized(2 * GIB // streams)
    trust = ["--ca", str(pair[0])] if pair else []
    with zero_registry_process(streams, size, pair) as source:
        for subject, words in (("blobflow", ["--cache", "off"]), ("blobflow, with its store", [])):
            profile = options.profile if words else None
            copy = [*our_command(profile), "copy", "--concurrency", str(STREAMS), *trust, *words]
            with zero_registry_process(tls=pair) as target:  # a new one, which has nothing yet
                images = [f"{source}/giant:1", f"{target}/giant:1"]
                yield timed(name, subject, [*copy, *images], options.home)[0]
        with zero_registry_process(tls=pair) as target:
            pump = python(None, "-m", "bench.pump", "--from", source, "--to", target)
            yield timed(name, "pump", [*pump, "--streams", str(streams), *trust], options.home)[0]


def store_in(options: Options) -> Iterator[Measured]:
    """2 GiB from a registry onto the disk; there and back, as who comes second gets the page cache's memory
    while it is warm."""
    with zero_registry_process(1, options.sized(2 * GIB)) as source:
        for subject in ("blobflow", "pump", "pump", "blobflow"):
            home = options.home
            store, files = str(home / "store"), str(home / "files")
            command = python(options.profile, "-m", "bench.store_io", "in", source, "--root", store)
            if subject == "pump":
                command = python(None, "-m", "bench.pump", "--from", source, "--folder", files)
            yield timed("store-in", subject, command, home)[0]


def store_out(options: Options) -> Iterator[Measured]:
    """2 GiB from the disk to a registry."""
    with zero_registry_process(1, options.sized(2 * GIB)) as source, zero_registry_process() as target:
        root, folder = options.home / "store", options.folder / "files"
        keeping = options.folder / "home"
        storing = python(None, "-m", "bench.store_io")
        pump = python(None, "-m", "bench.pump")
        for filling in (
            [*storing, "in", source, "--root", str(root)],
            [*pump, "--from", source, "--folder", str(folder)],
        ):
            timed("store-out", "", filling, keeping)
        words = ["out", target, "--origin", source, "--root", str(root)]
        out = python(options.profile, "-m", "bench.store_io", *words)
        yield timed("store-out", "blobflow", out, keeping)[0]
        yield timed("store-out", "pump", [*pump, "--files", str(folder), "--to", target], keeping)[0]
        shutil.rmtree(folder)


def memory(options: Options) -> Iterator[Measured]:
    """16 blobs of 1 GiB, all at once."""
    with zero_registry_process(16, options.sized(GIB)) as source, zero_registry_process() as target:
        images = [f"{source}/giant:1", f"{target}/giant:1"]
        copy = [*our_command(options.profile), "copy", "--concurrency", "16", "--cache", "off", *images]
        yield timed("memory", "blobflow", copy, options.home)[0]


def plan_scale(options: Options) -> Iterator[Measured]:
    """10,000 images and 1,000; the seconds are the planner's alone, the peak is the process's."""
    for images in (1_000, 10_000):
        command = python(options.profile, "-m", "bench.planning", str(images))
        row, done = timed("plan-scale", f"{images:,} images", command, options.home)
        told = {"seconds": 0.0} if row.failed else json.loads(done.out)
        yield msgspec.structs.replace(row, figures=row.figures | told)


def heads(options: Options) -> Iterator[Measured]:
    """2,000 tags, nothing changed, both ends are `blobflow serve`, 20 ms away."""
    layout = generate(options.folder / "tags", TAGS)
    home = options.home
    with ExitStack() as stack:
        source, target = (
            stack.enter_context(blobflow_serve(options.folder / f"heads-{end}"))
            for end in ("source", "target")
        )
        imageset.push(layout.path, source.host)
        far, near = (stack.enter_context(relay(end.host, NEAR)).host for end in (source, target))
        report = home / "report.json"
        command = [*our_command(options.profile), "sync", "--from", far, "--to", f"{near}/{PREFIX}"]
        command += ["--images", str(layout.path / "images.txt"), "--report", str(report)]
        timed("heads", "", command, home)
        row, _ = timed("heads", "blobflow", command, home)
        asked = json.loads(report.read_bytes())["totals"]["requests"]
    shutil.rmtree(layout.path)
    yield msgspec.structs.replace(
        row, figures=row.figures | {"heads": asked, "heads_per_second": asked / row.figures["wall"]}
    )


def unchanged_floor(options: Options) -> Iterator[Measured]:
    """The set of Debian packages, current; against a program that only asks for the tags."""
    layout = options.debian
    assert layout is not None
    home, images = options.home, str(layout.path / "images.txt")
    folder = new_folder(options.folder)
    with (
        docker_registry(folder / "a", leave=empty) as source,
        docker_registry(folder / "b", leave=empty) as target,
    ):
        imageset.push(layout.path, source.host)
        place = f"{target.host}/{PREFIX}"
        sync = ["sync", "--from", source.host, "--to", place, "--images", images]
        timed("unchanged-floor", "", [*BLOBFLOW, *sync], home)
        ours = [*our_command(options.profile), *sync]
        floor = [sys.executable, "-m", "bench.heads", images, source.host, place]
        for _ in range(REPEATS):
            yield timed("unchanged-floor", "blobflow", ours, home)[0]
            yield timed("unchanged-floor", "imports and HEADs", floor, home)[0]


def help_text(options: Options) -> Iterator[Measured]:
    home = options.home
    for _ in range(REPEATS):
        yield timed("help", "blobflow --help", [*our_command(options.profile), "--help"], home)[0]
        yield timed("help", "python -c pass", [sys.executable, "-c", "pass"], home)[0]


def scenario(options: Options, *, name: str) -> Iterator[Measured]:
    """One of the scenarios, by blobflow alone at its defaults."""
    contest = Contest([name], ["blobflow"], 1, (False,), options.scale, options.profile)
    yield from hold(contest, options.debian, options.folder)


FLOORS: Mapping[str, Named] = {
    "giant": Named(
        "one blob of 2 GiB, registry to registry", partial(giant, name="giant", streams=1, tls=False)
    ),
    "giant-8": Named(
        "2 GiB in eight blobs at once", partial(giant, name="giant-8", streams=STREAMS, tls=False)
    ),
    "giant-tls": Named("one blob of 2 GiB, TLS", partial(giant, name="giant-tls", streams=1, tls=True)),
    "giant-tls-8": Named(
        "2 GiB in eight, TLS", partial(giant, name="giant-tls-8", streams=STREAMS, tls=True)
    ),
    "store-in": Named("one blob of 2 GiB into the store", store_in),
    "store-out": Named("one blob of 2 GiB out of the store", store_out),
    "memory": Named("16 blobs of 1 GiB at once", memory),
    "plan-scale": Named("planning 10,000 images and 1,000", plan_scale),
    "heads": Named("2,000 tags, nothing changed, 20 ms, against serve", heads),
    "unchanged-floor": Named("nothing changed, against imports and HEADs", unchanged_floor, needs_set=True),
    "help": Named("blobflow --help, against python -c pass", help_text),
}
RUNS: Mapping[str, Named] = {
    **{
        name: Named(each.says, partial(scenario, name=name), needs_set=each.layers is None)
        for name, each in SCENARIOS.items()
    },
    **FLOORS,
}
