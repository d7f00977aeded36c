"""Where blobflow's time goes in a run: its loop's thread under cProfile, told in shares.

cProfile makes every call dearer, small ones most, so the shares point and don't measure; what other threads
do is not in them. The run is made once more for it; its figures are not used.
"""

from __future__ import annotations

import pstats
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.named_runs import RUNS
from bench.programs import Options

LINES = 12


def profile_of(name: str, options: Options) -> list[str]:
    """The dearest functions of a run, by the time spent in them themselves."""
    file = options.folder / f"{name}.profile"
    ours = msgspec.structs.replace(options, profile=file, tools=("blobflow",), against=None)
    for _ in RUNS[name].measure(ours):
        pass
    return list(_dearest(file))


def _dearest(file: Path) -> Iterator[str]:
    times = {key: found[:3] for key, found in vars(pstats.Stats(str(file)))["stats"].items()}
    whole = sum(own for _, _, own in times.values()) or 1.0
    yield f"{whole:.2f} s in the profiled thread, waiting included"
    dearest = sorted(times.items(), key=lambda item: -item[1][2])
    for (path, line, name), (_, calls, own) in dearest[:LINES]:
        where = Path(path)
        place = f"{where.parent.name}/{where.name}:{line}" if line else "built in"
        yield f"{own / whole:6.1%}  {calls:>8} calls  {name} ({place})"
