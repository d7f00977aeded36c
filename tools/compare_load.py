"""Compare `blobflow load` with gunzip and `skopeo copy docker-archive:`, on an archive of the user's.

    python -m tools.compare_load images-amd64.tar.gz [--rounds 5]

Each round gives both an empty docker-registry 2.8.2 and nothing kept from before, in turn. blobflow loads the
archive as it is; for skopeo it is unpacked by gunzip first (it would unpack it again for every image), and
then each of its images is copied. Wall and CPU are of whole processes, registry not included; medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from tools.processes import Registry, Run, blobflow, docker_registry, run, skopeo


class Figures(msgspec.Struct, frozen=True):
    """Seconds of wall and CPU."""

    wall: float
    cpu: float


def loaded(archive: Path, names: Sequence[str], registry: Registry, home: Path) -> Figures:
    return _sum([blobflow("load", "--quiet", archive, "--to", registry.host, home=home)])


def copied(archive: Path, names: Sequence[str], registry: Registry, home: Path) -> Figures:
    """gunzip, then skopeo once for each image; it remembers between them what it has uploaded."""
    plain = home / "archive.tar"
    runs = [run(["sh", "-c", 'gunzip --stdout "$0" > "$1"', str(archive), str(plain)], home)]
    for number, name in enumerate(names):
        source, target = f"docker-archive:{plain}:{name}", f"docker://{registry.host}/copied/{number}:1"
        runs.append(skopeo("copy", "--quiet", "--dest-tls-verify=false", source, target, home=home))
    return _sum(runs)


def loaded_again(archive: Path, names: Sequence[str], registry: Registry, home: Path) -> Figures:
    loaded(archive, names, registry, home)
    return loaded(archive, names, registry, home)


TOOLS: dict[str, Callable[[Path, Sequence[str], Registry, Path], Figures]] = {
    "gunzip + skopeo copy": copied,
    "blobflow load": loaded,
    "blobflow load, a second time": loaded_again,
}


def _sum(runs: Sequence[Run]) -> Figures:
    for each in runs:
        if each.code:
            raise SystemExit(f"a program failed: {each.err.strip()[-500:]}")
    return Figures(sum(each.wall for each in runs), sum(each.cpu for each in runs))


def names_in(archive: Path) -> list[str]:
    """One name for each image that `docker save` or `podman save -m` put into the archive."""
    with tarfile.open(archive) as tar:
        listed = tar.extractfile("manifest.json")
        assert listed is not None, "manifest.json is a file"
        return [entry["RepoTags"][0] for entry in json.load(listed)]


def compare(archive: Path, rounds: int) -> dict[str, Figures]:
    """The medians of each tool, which take turns."""
    names = names_in(archive)
    found: dict[str, list[Figures]] = {tool: [] for tool in TOOLS}
    for _ in range(rounds):
        for tool, measure in TOOLS.items():
            with TemporaryDirectory(prefix="compare-load-") as folder:
                home = Path(folder) / "home"
                home.mkdir()
                with docker_registry(Path(folder) / "registry") as registry:
                    found[tool].append(measure(archive, names, registry, home))
            print(f"{tool}: {found[tool][-1].wall:.2f} s", file=sys.stderr)
    return {
        tool: Figures(
            statistics.median(each.wall for each in figures), statistics.median(each.cpu for each in figures)
        )
        for tool, figures in found.items()
    }


def table(found: dict[str, Figures]) -> str:
    first = next(iter(found.values())).wall
    rows = ["| tool | wall s | CPU s | wall, of skopeo's |", "|---|---|---|---|"]
    rows += [
        f"| {tool} | {each.wall:.2f} | {each.cpu:.2f} | {each.wall / first:.2f} |"
        for tool, each in found.items()
    ]
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="compare_load", description=__doc__.partition("\n")[0])
    parser.add_argument("archive", type=Path, help="a .tar.gz of docker save or podman save -m")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)
    print(table(compare(arguments.archive.resolve(), arguments.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
