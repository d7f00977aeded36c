"""How fast a registry answers, what that costs it, and what a sweep of its store does to its clients.

    python -m tools.loader [--scenario all|small|gc] [--seconds 3] [--rounds 3] [--against DIR] …

Scenarios:

    all     small pulls and pushes on 16 connections, then large bodies on 4
    small   the small ones alone: GET of a 1 KiB blob and of a manifest by tag, pushes of 4 KiB blobs
    gc      16 clients push and pull while `blobflow cache gc --max-size 0` sweeps old blobs out of the store

In all and small, `blobflow serve`, Debian's docker-registry and (--against) the `blobflow serve` of another
checkout get the same content on the same disk, and are asked in turns, so that whatever else the machine
does meets all of them. What is printed are medians over the rounds, and medians of the rounds' ratios of
ours to each other one; read ratios, and read CPU where the machine is busy. docker-registry takes no blob
in one POST: it gets a PUT after it.

In gc, 8 of the clients pull (a manifest by tag, small blobs) and 8 push blobs of 4 KiB, each at moments
that are set beforehand: a request that waits because the one before it was slow counts from when it was
due. Each round measures for --seconds without gc, for as long beside a process that only computes (a core
is what gc costs at least), and until gc has run for as long; if it ends sooner, the store is filled again.
With --against it does the same with the other checkout's serve and gc. Exit status 1: an answer was not 200
or 201, or an upload that was answered 201 was gone afterwards. The goal of p99 is only told, since it is
the machine's, too.

Small requests come from one uvloop with raw protocols; large bodies from threads with blocking sockets and
large buffers. That is several times cheaper than what is asked, so that the server is what is measured.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tools.checkout import TOP
from tools.loads import gc_beside
from tools.loads.requests import fresh
from tools.loads.served import ServeEnded
from tools.loads.side_by_side import LARGE, SMALL, fill, in_turns, large_works, small_works, told
from tools.processes import Registry, blobflow_of, blobflow_serve, docker_registry


def main() -> int:
    parser = _parser()
    wish = parser.parse_args()
    if wish.only == "against" and not wish.against:
        parser.error("--only against goes with --against DIR; say which checkout")
    if wish.only == "docker" and wish.scenario == "gc":
        parser.error("docker-registry has no gc that runs beside it; leave out --only docker")
    if min(wish.rounds, wish.blobs) < 1 or wish.seconds <= 0 or min(wish.pulls, wish.pushes) < 0:
        parser.error("at least one round and one blob, more than no seconds, and rates of 0 or more")
    builds = {"blobflow": TOP} | ({"against": wish.against} if wish.against else {})
    builds = {name: checkout for name, checkout in builds.items() if wish.only in (None, name)}
    try:
        for checkout in builds.values():
            blobflow_of(checkout)
    except FileNotFoundError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="loader-") as name:
        folder = Path(name)
        if wish.scenario != "gc":
            return _side_by_side(wish, builds, folder)
        return _beside_gc(wish, builds, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenario", choices=("all", "small", "gc"), default="all")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement [3]")
    parser.add_argument("--rounds", type=int, default=3, help="[3]")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="DIR",
        help="another checkout of blobflow, with an environment in .venv",
    )
    parser.add_argument("--only", choices=("blobflow", "against", "docker"), help="one of them")
    parser.add_argument("--work", default="", metavar="TEXT", help="only what has this in its name")
    parser.add_argument(
        "--serve",
        default="--access-log combined",
        metavar="ARGUMENTS",
        help="of `blobflow serve` [%(default)s]",
    )
    parser.add_argument(
        "--blobs", type=int, default=20_000, help="gc: old blobs that it is to remove [20000]"
    )
    parser.add_argument(
        "--pulls",
        type=float,
        default=400.0,
        help="gc: a second, of all clients; 0: as fast as they can [400]",
    )
    parser.add_argument("--pushes", type=float, default=40.0, help="gc: the same of pushes [40]")
    parser.add_argument(
        "--gc-under",
        default="",
        metavar="WORDS",
        help="gc: put before its command, as nice, or `strace -f -o /dev/null -e trace=unlink "
        "-e inject=unlink:delay_enter=4000` for a disk on which removing takes 4 ms",
    )
    return parser


def _beside_gc(wish: argparse.Namespace, builds: dict[str, Path], folder: Path) -> int:
    asked = gc_beside.Asked(
        blobs=wish.blobs,
        seconds=wish.seconds,
        rounds=wish.rounds,
        pulls=wish.pulls,
        pushes=wish.pushes,
        serve=tuple(shlex.split(wish.serve)),
        under=tuple(shlex.split(wish.gc_under)),
    )
    reports = []
    for build, checkout in builds.items():
        try:
            reports.append(gc_beside.measure(checkout, folder / build, asked))
        except ServeEnded as error:
            print(f"loader: {build}: {error}", file=sys.stderr)
            return 1
        print(f"{build}\n{gc_beside.told(reports[-1])}", flush=True)
    return int(any(report.wrong for report in reports))


def _side_by_side(wish: argparse.Namespace, builds: dict[str, Path], folder: Path) -> int:
    registries: dict[str, Callable[[], AbstractContextManager[Registry]]] = {
        name: lambda name=name, checkout=checkout: blobflow_serve(  # type: ignore[misc]
            folder / name, *shlex.split(wish.serve), checkout=checkout
        )
        for name, checkout in builds.items()
    }
    if wish.only in (None, "docker"):
        if shutil.which("docker-registry"):
            registries["docker"] = lambda: docker_registry(folder / "docker")
        else:
            print("docker-registry is not installed: going on without it", file=sys.stderr)
    small, large = fresh(SMALL), fresh(LARGE if wish.scenario == "all" else SMALL)
    works = small_works(wish.seconds, small.digest)
    if wish.scenario == "all":
        works |= large_works(wish.seconds, large.digest)
    with ExitStack() as stack:
        running = {name: stack.enter_context(start()) for name, start in registries.items()}
        for registry in running.values():
            fill(registry, small, large)
        for name, work in works.items():
            if wish.work in name:
                print(told(name, in_turns(running, work, wish.rounds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
