"""The named runs: the scenarios, and what is held against a floor that no client could be below.

    giant, giant-8            bytes of one blob, or of eight, between registries that do nothing
    giant-tls, giant-tls-8    the same over TLS
    store-in, store-out       between a registry and the store
    memory                    many large blobs at once
    plan-scale                the planner alone, at two sizes
    unchanged-floor           a mirror that is current, against Python's own start
    load                      an archive into a registry
    signed                    signed images under a policy, against the same unsigned
    workers                   a set over one line, and over one a worker
    cluster-10000             a plan of 10,000 images, whose blobs workers bring from and to memory
    help                      how long until blobflow says anything

Each is a function that measures once; whoever calls it takes the medians.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product

import msgspec

from bench.archive_loads import load
from bench.contest import Contest, hold
from bench.ends import new_folder
from bench.measurements import Measured
from bench.peers import our_command, python, tools_of
from bench.programs import Build, Options, builds, timed
from bench.scenarios import PREFIX, SCENARIOS, layout_of
from bench.signed_copies import signed
from bench.workers import cluster_scale, workers
from tools import imageset
from tools.certificates import self_signed
from tools.processes import BLOBFLOW, docker_registry, empty
from tools.registry.zeros import zero_registry_process

GIB = 1024**3
STREAMS = 8
# Runs of some milliseconds are made so often in each round: one alone says little.
REPEATS = 5
STORES: Mapping[str, list[str]] = {"": ["--cache", "off"], ", with its store": []}


class Named(msgspec.Struct, frozen=True):
    """A run by its name: what it measures, and how to make it once."""

    says: str
    measure: Callable[[Options], Iterator[Measured]]


def giant(options: Options, *, name: str, streams: int, tls: bool) -> Iterator[Measured]:
    """2 GiB from registry to registry, in so many blobs at once."""
    pair = self_signed(options.folder / "tls") if tls else None
    size = options.sized(2 * GIB // streams)
    trust = ["--ca", str(pair[0])] if pair else []
    with zero_registry_process(streams, size, pair) as source:
        for build, (suffix, words) in product(builds(options), STORES.items()):
            profile = options.profile if words else None
            copy = [*build.blobflow(profile), "copy", "--concurrency", str(STREAMS), *trust, *words]
            with zero_registry_process(tls=pair) as target:  # a new one, which has nothing yet
                images = [f"{source}/giant:1", f"{target}/giant:1"]
                yield timed(name, build.name + suffix, [*copy, *images], options.home)[0]
        if streams > 1 and not tls:  # there is something to share out between two processes
            local = [*our_command(None), "copy", "--engine", "local:2", "--cache", "off"]
            with zero_registry_process() as target:
                images = [f"{source}/giant:1", f"{target}/giant:1"]
                yield timed(name, "blobflow, local:2", [*local, *images], options.home)[0]
        with zero_registry_process(tls=pair) as target:
            pump = python(None, "-m", "bench.pump", "--from", source, "--to", target)
            yield timed(name, "pump", [*pump, "--streams", str(streams), *trust], options.home)[0]


def store_in(options: Options) -> Iterator[Measured]:
    """2 GiB from a registry onto the disk; there and back, as who comes second gets the page cache's memory
    while it is warm."""
    with zero_registry_process(1, options.sized(2 * GIB)) as source:

        def bring(build: Build) -> Measured:
            home = options.home
            command = build.bench(options.profile, "store_io", "in", source, "--root", str(home / "store"))
            return timed("store-in", build.name, command, home, build.checkout)[0]

        def pump() -> Measured:
            home = options.home
            words = ["-m", "bench.pump", "--from", source, "--folder", str(home / "files")]
            return timed("store-in", "pump", python(None, *words), home)[0]

        there: list[Callable[[], Measured]] = [*(partial(bring, build) for build in builds(options)), pump]
        for measure in [*there, *reversed(there)]:
            yield measure()


def store_out(options: Options) -> Iterator[Measured]:
    """2 GiB from the disk to a registry."""
    pump = python(None, "-m", "bench.pump")
    with zero_registry_process(1, options.sized(2 * GIB)) as source, zero_registry_process() as target:
        for build in builds(options):
            home = options.home
            words = ["--root", str(home / "store")]
            timed("store-out", "", build.bench(None, "store_io", "in", source, *words), home, build.checkout)
            os.sync()  # or what was written would go to the disk now
            words += ["--origin", source]
            out = build.bench(options.profile, "store_io", "out", target, *words)
            yield timed("store-out", build.name, out, home, build.checkout)[0]
        home = options.home
        files = str(home / "files")
        timed("store-out", "", [*pump, "--from", source, "--folder", files], home)
        os.sync()
        yield timed("store-out", "pump", [*pump, "--files", files, "--to", target], home)[0]


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


def unchanged_floor(options: Options) -> Iterator[Measured]:
    """The set of Debian packages, current; against a program that only asks for the tags."""
    layout = layout_of(SCENARIOS["unchanged"], options.debian, options.folder, options.scale)
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
    """One of the scenarios, once, by blobflow alone at its defaults."""
    contest = Contest([name], tools_of(["blobflow"], None), 1, (False,), (), options.scale, options.profile)
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
    "unchanged-floor": Named("nothing changed, against imports and HEADs", unchanged_floor),
    "load": Named("a gzip'ed archive of the set's images for one platform, into an empty registry", load),
    "signed": Named(
        "200 signed images under a policy and the same unsigned; both registries 40 ms away", signed
    ),
    "workers": Named(
        "400 MB over one line of 20 MB/s, and by 1, 2, 4 and 8 workers with a line each", workers
    ),
    "cluster-10000": Named(
        "10,000 images x 4 platforms x 8 layers in memory, alone and by 2 workers", cluster_scale
    ),
    "help": Named("blobflow --help, against python -c pass", help_text),
}
RUNS: Mapping[str, Named] = {
    **{name: Named(each.says, partial(scenario, name=name)) for name, each in SCENARIOS.items()},
    **FLOORS,
}
