"""The same mirror made by blobflow and by other tools, in turn, on this machine, in one run.

    python -m tools.compare SET [--rounds N] [--tools blobflow,skopeo] [--json FILE]

SET is the folder of `imageset.py make`. Source and target are docker-registry processes on loopback with
their storage on the disk of --folder. Each round runs each tool, another one first each time:

    cold        the target's storage is empty and the tool remembers nothing
    unchanged   the same again, at once: everything is there

What is measured is whole processes, from outside: wall time, CPU time (user and system) and peak memory of
the tool, CPU time of both registries, and from the registries' access logs requests and bytes of blobs.
Figures are medians over the rounds. A run that fails, or leaves a tag that is not right, ends it all.

To add a tool, add a row to TOOLS; to add a scenario, one to SCENARIOS.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from tests.e2e.processes import BLOBFLOW, Registry, docker_registry, run
from tools import imageset
from tools.imageset import Layout

PREFIX = "mirror"
# Where containers/image, as root, remembers which blobs it saw in which registry; else it is under HOME.
ROOTS_BLOB_CACHE = Path("/var/lib/containers/cache/blob-info-cache-v1.boltdb")


class Scene(msgspec.Struct, frozen=True):
    """What a tool is asked to do, and the folder where it keeps what it keeps."""

    layout: Layout
    source: Registry
    target: Registry
    home: Path


class Tool(msgspec.Struct, frozen=True):
    """Another way to mirror the set.

    `command` may write files into the scene's home. `lands` says where, below the target's prefix, a
    repository of the source goes. `forget` removes what the tool keeps outside of its home.
    """

    version: Sequence[str]
    command: Callable[[Scene], list[str]]
    lands: Callable[[str], str] = str
    forget: Callable[[], None] = lambda: None


class Figures(msgspec.Struct, frozen=True):
    """One run, or the medians of several. Seconds; bytes; CPU is user and system time."""

    wall: float
    cpu: float
    peak: float
    source_cpu: float
    target_cpu: float
    source_requests: float
    target_requests: float
    bytes_read: float
    bytes_written: float
    mounts: float


class Row(msgspec.Struct, frozen=True):
    tool: str
    scenario: str
    round: int
    figures: Figures


def blobflow_command(scene: Scene) -> list[str]:
    images = scene.layout.path / "images.txt"
    target = f"{scene.target.host}/{PREFIX}"
    return [*BLOBFLOW, "sync", "--from", scene.source.host, "--to", target, "--images", str(images)]


def skopeo_command(scene: Scene) -> list[str]:
    """Unscoped: with `--scoped` the source's host and port would be part of the repository's name."""
    tags: dict[str, list[str]] = {}
    for image in scene.layout.images.values():
        tags.setdefault(image.repository, []).append(image.tag)
    source = {scene.source.host: {"tls-verify": False, "images": tags}}
    spec = scene.home / "skopeo.yaml"
    spec.write_bytes(msgspec.json.encode(source))  # JSON is YAML
    command = "skopeo --insecure-policy sync --all --src yaml --dest docker --dest-tls-verify=false"
    return [*command.split(), str(spec), f"{scene.target.host}/{PREFIX}"]


def forget_blobs() -> None:
    ROOTS_BLOB_CACHE.unlink(missing_ok=True)


TOOLS = {
    "blobflow": Tool([*BLOBFLOW, "--version"], blobflow_command),
    "skopeo": Tool(
        ["skopeo", "--version"],
        skopeo_command,
        lands=lambda repository: repository.rpartition("/")[2],
        forget=forget_blobs,
    ),
}

# What comes before a scenario's run, each on the state that the one before left.
SCENARIOS: dict[str, Callable[[Tool, Scene], None]] = {
    "cold": lambda tool, scene: tool.forget(),
    "unchanged": lambda tool, scene: None,
}


class Failed(Exception):
    """A tool did not do what it was asked; one sentence."""


def measure(name: str, scene: Scene) -> Figures:
    """Run a tool once and look at everything around it. Raises Failed."""
    tool = TOOLS[name]
    command = tool.command(scene)
    os.sync()  # else this run waits for what the one before wrote
    registries = (scene.source, scene.target)
    for registry in registries:
        registry.forget()
    before = [registry.cpu_seconds() for registry in registries]
    done = run(command, scene.home)
    source_cpu, target_cpu = (r.cpu_seconds() - cpu for r, cpu in zip(registries, before, strict=True))
    at_source, at_target = (registry.requests() for registry in registries)
    if done.code:
        raise Failed(f"{name} ended with {done.code}: {(done.err or done.out).strip()[-300:]}")
    check_tags(name, tool, scene)
    sizes = scene.layout.blobs
    return Figures(
        wall=done.wall,
        cpu=done.cpu,
        peak=done.peak,
        source_cpu=source_cpu,
        target_cpu=target_cpu,
        source_requests=len(at_source),
        target_requests=len(at_target),
        bytes_read=sum(sizes[digest] * count for digest, count in at_source.reads_of_blobs().items()),
        bytes_written=sum(sizes[digest] * count for digest, count in at_target.uploads().items()),
        mounts=len(at_target.mounts_201()),
    )


def check_tags(name: str, tool: Tool, scene: Scene) -> None:
    for image in scene.layout.images.values():
        repository = f"{PREFIX}/{tool.lands(image.repository)}"
        if scene.target.digest_of(repository, image.tag) != image.digest:
            raise Failed(f"{name} left {repository}:{image.tag} without the digest of its source")


def compare(layout: Layout, names: Sequence[str], rounds: int, folder: Path) -> Iterator[Row]:
    """Run every tool in every scenario, round by round."""
    with docker_registry(folder / "source") as source:
        imageset.push(layout.path, source.host)
        for turn in range(rounds):
            first = turn % len(names)
            for name in (*names[first:], *names[:first]):
                home = folder / "home"
                shutil.rmtree(home, ignore_errors=True)
                home.mkdir()
                with docker_registry(folder / "target") as target:
                    scene = Scene(layout, source, target, home)
                    for scenario, prepare in SCENARIOS.items():
                        prepare(TOOLS[name], scene)
                        yield Row(name, scenario, turn, measure(name, scene))


def medians(rows: Sequence[Row]) -> dict[str, dict[str, Figures]]:
    """Of every figure by itself, by scenario and tool."""
    found: dict[str, dict[str, Figures]] = {}
    for tool, scenario in dict.fromkeys((row.tool, row.scenario) for row in rows):
        runs = [msgspec.structs.astuple(r.figures) for r in rows if (r.tool, r.scenario) == (tool, scenario)]
        middle = Figures(*(statistics.median(column) for column in zip(*runs, strict=True)))
        found.setdefault(scenario, {})[tool] = middle
    return found


# Title, figure, divisor and decimals of each column.
COLUMNS = [
    ("wall s", "wall", 1, 2),
    ("CPU s", "cpu", 1, 2),
    ("peak MB", "peak", 1e6, 0),
    ("src CPU s", "source_cpu", 1, 2),
    ("dst CPU s", "target_cpu", 1, 2),
    ("src requests", "source_requests", 1, 0),
    ("dst requests", "target_requests", 1, 0),
    ("MB read", "bytes_read", 1e6, 1),
    ("MB written", "bytes_written", 1e6, 1),
    ("mounts", "mounts", 1, 0),
]


def table(found: dict[str, dict[str, Figures]]) -> Iterator[str]:
    """The medians as lines of text, and how many times as long as the first tool the others take."""
    yield f"{'scenario':10} {'tool':10}" + "".join(f"{title:>13}" for title, *_ in COLUMNS)
    for scenario, by_tool in found.items():
        for tool, figures in by_tool.items():
            cells = (f"{getattr(figures, key) / unit:>13.{places}f}" for _, key, unit, places in COLUMNS)
            yield f"{scenario:10} {tool:10}" + "".join(cells)
    for scenario, by_tool in found.items():
        (ours, mine), *others = by_tool.items()
        for tool, theirs in others:
            wall, cpu = theirs.wall / mine.wall, theirs.cpu / mine.cpu
            yield f"{scenario}: {tool} takes {wall:.2f} times the wall and {cpu:.2f} times the CPU of {ours}"


def version_of(tool: Tool) -> str:
    return subprocess.run(tool.version, capture_output=True, text=True, check=True).stdout.strip()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="compare", description="Time the same mirror by several tools.")
    parser.add_argument("set", type=Path, help="the folder of `imageset.py make`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tools", default=",".join(TOOLS), help="names, separated by commas")
    parser.add_argument("--folder", type=Path, help="where the storage goes (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run and the medians")
    arguments = parser.parse_args(argv)
    names = arguments.tools.split(",")
    if unknown := set(names) - set(TOOLS):
        parser.error(f"unknown tools: {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}")
    rows: list[Row] = []
    try:
        layout = imageset.read_layout(arguments.set)
        with tempfile.TemporaryDirectory(prefix="compare-", dir=arguments.folder) as folder:
            for row in compare(layout, names, arguments.rounds, Path(folder)):
                rows.append(row)
                print(f"{row.round + 1}: {row.scenario} {row.tool} {row.figures.wall:.2f} s", file=sys.stderr)
    except (Failed, imageset.ImageSetError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    tell(layout, names, rows, arguments.json)
    return 0


def tell(layout: Layout, names: Sequence[str], rows: Sequence[Row], file: Path | None) -> None:
    """Print what ran where and the medians; write it all into the file."""
    found = medians(rows)
    document = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "registries": subprocess.run(
            ["docker-registry", "--version"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "versions": {name: version_of(TOOLS[name]) for name in names},
        "set": f"{len(layout.images)} images, {len(layout.blobs)} blobs, {layout.unique_bytes / 1e6:.1f} MB",
        "rounds": 1 + max(row.round for row in rows),
    }
    for key, value in document.items():
        print(f"{key}: {value}")
    print(*table(found), sep="\n")
    if file:
        content = document | {"medians": found, "runs": rows}
        file.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
