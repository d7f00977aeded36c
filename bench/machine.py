"""Where a record was made, and with which versions."""

from __future__ import annotations

import compileall
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from tools.checkout import TOP

PACKAGES = ("aiohttp", "uvloop", "msgspec", "yarl", "xxhash", "isal", "zlib-ng", "zstandard")


class Machine(msgspec.Struct, frozen=True):
    """`memory` in bytes; `versions` by program or package; `load`: of the last minute, at the start."""

    processor: str
    processors: int
    memory: int
    system: str
    python: str
    load: float
    versions: dict[str, str]

    def lines(self) -> list[str]:
        """For people."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return [
            f"{self.processor}, {self.processors} CPUs, {self.memory / 1e9:.0f} GB, {self.system}",
            f"load {self.load:.1f} at the start; Python {self.python}; {versions}",
        ]


def compile_all(against: Path | None = None) -> None:
    """Compile our packages as an installation does, so that no run is measured that has to do it first; those
    of an earlier build's checkout by its own Python."""
    for package in ("blobflow", "bench"):
        compileall.compile_dir(TOP / package, quiet=1)
    if against is not None:
        command = [against / ".venv/bin/python", "-m", "compileall", "-q", "blobflow", "bench"]
        subprocess.run(list(map(str, command)), cwd=against, check=True)


def describe(programs: Mapping[str, Sequence[str]]) -> Machine:
    """This machine; `programs` are asked for their versions by these commands."""
    versions = {name: _first_line(command) for name, command in programs.items()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Machine(
        processor=_processor(),
        processors=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        load=os.getloadavg()[0],
        versions=versions,
    )


def _first_line(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0].strip() if lines else ""


def _processor() -> str:
    """The processor's name as Linux tells it."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
