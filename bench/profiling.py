"""Where blobflow's time goes in a run: its loop's thread under cProfile, told in shares.

cProfile makes every call dearer, small ones most, so the shares point and don't measure; what other threads
do is not in them. The run is made once more for it; its figures are not used.
"""

from __future__ import annotations

import io
import pstats
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.runs import RUNS, Options

LINES = 12


def profile_of(name: str, options: Options) -> list[str]:
    """The dearest functions of a run, by the time spent in them themselves."""
    file = options.folder / f"{name}.profile"
    for _ in RUNS[name].measure(msgspec.structs.replace(options, profile=file)):
        pass
    return list(_dearest(file)) if file.exists() else ["blobflow is not profiled in this run"]


def _dearest(file: Path) -> Iterator[str]:
    stats = pstats.Stats(str(file), stream=io.StringIO()).get_stats_profile()
    whole = stats.total_tt or 1.0
    functions = sorted(stats.func_profiles.items(), key=lambda item: -item[1].tottime)
    yield f"{whole:.2f} s in the profiled thread"
    for name, function in functions[:LINES]:
        where = Path(function.file_name)
        place = f"{where.parent.name}/{where.name}:{function.line_number}" if where.suffix else "built in"
        yield f"{function.tottime / whole:6.1%}  {function.ncalls:>9} calls  {name} ({place})"
