"""What the named runs are made of: where they run and with what, builds of blobflow, and timed programs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.contest import PATIENCE
from bench.measurements import Measured
from bench.peers import EARLIER, build_of, our_command, python, shown
from tools.checkout import TOP
from tools.imageset import Layout
from tools.processes import Run, run


class Options(msgspec.Struct, frozen=True):
    """Where and with what.

    `debian`: the set of Debian packages; `scale`: of the bytes of generated blobs, and of the images of that
    set; `profile`: where blobflow's profile is written; `tools`: which of peers.TOOLS take part; `against`:
    the checkout of an earlier build that does; `archive`: what `load` loads, if not one of the set; `turn`:
    the number of the round.
    """

    folder: Path
    debian: Layout | None = None
    scale: float = 1.0
    profile: Path | None = None
    tools: Sequence[str] = ("blobflow",)
    against: Path | None = None
    archive: Path | None = None
    turn: int = 0

    def sized(self, size: int) -> int:
        return max(1, int(size * self.scale))

    @property
    def home(self) -> Path:
        """An empty folder for what a program keeps."""
        home = self.folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        return home


class Build(msgspec.Struct, frozen=True):
    """A build of blobflow, and its name as a subject."""

    name: str
    checkout: Path = TOP

    def blobflow(self, profile: Path | None) -> list[str]:
        """How it is run, from whatever folder; ours under cProfile where a file for that is named."""
        return our_command(profile) if self.checkout == TOP else build_of(self.checkout)

    def bench(self, profile: Path | None, module: str, *words: str) -> list[str]:
        """A program of its benchmarks, to be run in its checkout."""
        if self.checkout == TOP:
            return python(profile, "-m", f"bench.{module}", *words)
        return [build_of(self.checkout)[0], "-m", f"bench.{module}", *words]


def builds(options: Options) -> list[Build]:
    """This build, and the earlier one if there is to be one; who begins changes with every round."""
    if options.against is None:
        return [Build("blobflow")]
    both = [Build("blobflow"), Build(EARLIER, options.against.resolve())]
    return both[::-1] if options.turn % 2 else both


def timed(
    name: str, subject: str, command: Sequence[str], home: Path, top: Path = TOP
) -> tuple[Measured, Run]:
    """Run a program in the folder `top` and measure it from outside."""
    done = run(command, home, PATIENCE, top=top)
    figures = {"wall": done.wall, "cpu": done.cpu, "peak": float(done.peak)}
    failed = f"ended with {done.code}: {(done.err or done.out).strip()[-300:]}" if done.code else ""
    return Measured(name, subject, figures, shown(command), failed), done
