"""This build beside another: a mirror made cold, and then with nothing to do, in turns.

    python -m bench.beside --against DIR [--rounds 9] [--images 24] [--layer 2000000]

DIR is a checkout with an environment of its own, as ours has one (tools/test makes it). Whole processes
against Debian's docker-registry, each turn into repositories of its own and with a store of its own; who
begins changes with every round. Told are the medians of this build's seconds divided by the other's of the
same round.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tools import imageset
from tools.checkout import TOP
from tools.imageset import Layout
from tools.processes import Registry, Run, docker_registry, run

OURS, OTHER = "this", "other"


class Turn(msgspec.Struct, frozen=True):
    """One build's cold run and its run with nothing to do."""

    cold: Run
    unchanged: Run


def turn(checkout: Path, source: Registry, target: Registry, names: Path, folder: Path, number: int) -> Turn:
    """Mirror the list into repositories that nobody used before, and again. RuntimeError if one fails."""
    home = folder / f"home-{number}"
    home.mkdir()
    command = [str(checkout / ".venv/bin/blobflow"), "sync", "--quiet", "--from", source.host]
    command += ["--to", f"{target.host}/t{number}", "--images", str(names)]
    runs = [run(command, home) for _ in range(2)]
    for each in runs:
        if each.code:
            raise RuntimeError(f"{' '.join(command)} ended with {each.code}: {each.err}")
    return Turn(*runs)


def compiled(checkout: Path) -> None:
    """Compile a checkout and all that it imports, so that no run does."""
    folders = [checkout / "blobflow", *(checkout / ".venv/lib").glob("python*/site-packages")]
    command = [checkout / ".venv/bin/python", "-m", "compileall", "-q", "-q", "-j", "0", *folders]
    subprocess.run(list(map(str, command)), check=False)  # some packages have files of other Pythons


def rounds(arguments: argparse.Namespace, layout: Layout, folder: Path) -> Iterator[dict[str, Turn]]:
    builds = {OURS: TOP, OTHER: arguments.against}
    for checkout in builds.values():
        compiled(checkout)
    with ExitStack() as stack:
        source = stack.enter_context(docker_registry(folder / "source"))
        target = stack.enter_context(docker_registry(folder / "target"))
        imageset.push(layout.path, source.host)
        names = folder / "images.txt"
        names.write_text("\n".join(layout.images))
        number = 0
        for each in range(arguments.rounds):
            turns = {}
            for build in (OURS, OTHER) if each % 2 else (OTHER, OURS):
                number += 1
                turns[build] = turn(builds[build], source, target, names, folder, number)
            yield turns


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.beside", description="This build beside another, in turns.")
    parser.add_argument("--against", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--layer", type=int, default=2_000_000, help="bytes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="beside-") as kept:
        folder = Path(kept)
        layout = imageset.synthetic(
            folder / "set", seed=15, images=arguments.images, layer_size=arguments.layer
        )
        found = list(rounds(arguments, layout, folder))
        print(f"{len(layout.images)} images, {layout.unique_bytes / 1e6:.0f} MB, {len(found)} rounds")
    for what in ("cold", "unchanged"):
        for figure in ("wall", "cpu"):
            ours, other = (
                [getattr(getattr(turns[build], what), figure) for turns in found] for build in (OURS, OTHER)
            )
            ratios = [mine / theirs for mine, theirs in zip(ours, other, strict=True)]
            seconds = f"{statistics.median(ours):6.3f} s against {statistics.median(other):6.3f} s"
            spread = f"rounds {min(ratios):.3f} to {max(ratios):.3f}"
            print(f"{what:9} {figure:4} {seconds}: {statistics.median(ratios):.3f} x ({spread})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
