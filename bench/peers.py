"""The tools, and how each is told to make the same mirror: at its defaults, and with tuned concurrency.

To add a tool, add a row to TOOLS. One that is not on PATH is left out, and that is told. Tools that know sets
get the whole set at once; the others get a command an image, tuned several of them at a time. The tuning of
each was chosen as the best on a machine with 2 cores, and stands in its command, which is part of the record.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from tools.imageset import Layout
from tools.processes import BLOBFLOW

PREFIX = "mirror"
# Blobs at once, and images at once, of a tuned tool.
BLOBS_AT_ONCE = 16
IMAGES_AT_ONCE = 4
# How often a tool with such a flag tries again where requests fail; more is not worth the waiting.
RETRIES = 5
# Where containers/image, as root, remembers which blobs it saw in which registry; else it is under HOME.
ROOTS_BLOB_CACHE = Path("/var/lib/containers/cache/blob-info-cache-v1.boltdb")


class Scene(msgspec.Struct, frozen=True):
    """What a tool is asked to do, where (`host:port`), and the folder for what it keeps.

    `faults`: requests will fail. `profile`: where blobflow's profile is to be written.
    """

    layout: Layout
    source: str
    targets: tuple[str, ...]
    home: Path
    tuned: bool = False
    faults: bool = False
    profile: Path | None = None


class Work(msgspec.Struct, frozen=True):
    """Commands that make the mirror, so many of them at a time."""

    commands: list[list[str]]
    at_once: int = 1

    def one(self, home: Path) -> list[str]:
        """One command for all of it; several go through xargs, whose file lies in `home`."""
        if len(self.commands) == 1:
            return self.commands[0]
        file = home / "commands.txt"
        file.write_text("".join(f"{shlex.join(command)}\n" for command in self.commands))
        return [
            "xargs",
            "-a",
            str(file),
            "-d",
            "\\n",
            "-P",
            str(self.at_once),
            "-I",
            "LINE",
            "sh",
            "-c",
            "LINE",
        ]

    def told(self) -> str:
        """The command, for a record; of several the first, and how many there are."""
        first = shown(self.commands[0])
        if len(self.commands) == 1:
            return first
        return f"{first}  # and {len(self.commands) - 1} more, {self.at_once} at a time"


def shown(command: Sequence[str]) -> str:
    """A command as a person would type it."""
    return shlex.join("python" if word == sys.executable else word for word in command)


def python(profile: Path | None, *words: str) -> list[str]:
    """A command of this Python; under cProfile where a file for that is named."""
    profiling = ["-m", "cProfile", "-o", str(profile)] if profile else []
    return [sys.executable, *profiling, *words]


def our_command(profile: Path | None = None) -> list[str]:
    """How blobflow is run."""
    return python(profile, *BLOBFLOW[1:])


class Tool(msgspec.Struct, frozen=True):
    """Another way to mirror the set.

    `work` may write files into the scene's home. `lands` says where, below the target's prefix, a repository
    of the source goes. `forget` removes what the tool keeps outside of its home.
    """

    version: Sequence[str]
    work: Callable[[Scene], Work]
    lands: Callable[[str], str] = str
    forget: Callable[[], None] = lambda: None


def blobflow_work(scene: Scene) -> Work:
    images = scene.layout.path / "images.txt"
    targets = [word for host in scene.targets for word in ("--to", f"{host}/{PREFIX}")]
    tuning = ["--concurrency", str(BLOBS_AT_ONCE)] if scene.tuned else []
    command = our_command(scene.profile)
    return Work([[*command, "sync", "--from", scene.source, *targets, "--images", str(images), *tuning]])


def skopeo_work(scene: Scene) -> Work:
    """Unscoped: with `--scoped` the source's host and port would be part of the repository's name.

    It has no flag for concurrency: tuned are several of it, each with a part of the set.
    """
    parts = IMAGES_AT_ONCE if scene.tuned else 1
    command = ["skopeo", "--insecure-policy", "sync", "--all", "--src", "yaml", "--dest", "docker"]
    command += ["--dest-tls-verify=false", *(["--retry-times", str(RETRIES)] if scene.faults else [])]
    commands = []
    for part in range(parts):
        tags: dict[str, list[str]] = {}
        for image in list(scene.layout.images.values())[part::parts]:
            tags.setdefault(image.repository, []).append(image.tag)
        spec = scene.home / f"skopeo-{part}.yaml"
        spec.write_bytes(msgspec.json.encode({scene.source: {"tls-verify": False, "images": tags}}))
        commands += [[*command, str(spec), f"{host}/{PREFIX}"] for host in scene.targets if tags]
    return Work(commands, parts)


def forget_blobs() -> None:
    ROOTS_BLOB_CACHE.unlink(missing_ok=True)


def crane_work(scene: Scene) -> Work:
    jobs = ["--jobs", str(BLOBS_AT_ONCE)] if scene.tuned else []
    return _an_image_each(scene, ["crane", "copy", "--insecure", *jobs])


def regctl_work(scene: Scene) -> Work:
    """Its configuration says which registries speak plain HTTP, and how many requests at once they get."""
    own = {"tls": "disabled"} | ({"reqConcurrent": BLOBS_AT_ONCE} if scene.tuned else {})
    file = scene.home / ".regctl" / "config.json"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(msgspec.json.encode({"hosts": dict.fromkeys((scene.source, *scene.targets), own)}))
    return _an_image_each(scene, ["regctl", "image", "copy"])


def regsync_work(scene: Scene) -> Work:
    own = {"tls": "disabled"} | ({"reqConcurrent": BLOBS_AT_ONCE} if scene.tuned else {})
    spec = {
        "version": 1,
        "creds": [{"registry": host, **own} for host in (scene.source, *scene.targets)],
        "defaults": {"parallel": IMAGES_AT_ONCE} if scene.tuned else {},
        "sync": [
            {"source": source, "target": target, "type": "image"} for source, target in _references(scene)
        ],
    }
    file = scene.home / "regsync.yml"
    file.write_bytes(msgspec.json.encode(spec))
    return Work([["regsync", "--config", str(file), "once"]])


def oras_work(scene: Scene) -> Work:
    jobs = ["--concurrency", str(BLOBS_AT_ONCE)] if scene.tuned else []
    return _an_image_each(scene, ["oras", "copy", "--from-plain-http", "--to-plain-http", *jobs])


def _an_image_each(scene: Scene, command: Sequence[str]) -> Work:
    at_once = IMAGES_AT_ONCE if scene.tuned else 1
    return Work([[*command, source, target] for source, target in _references(scene)], at_once)


def _references(scene: Scene) -> Iterator[tuple[str, str]]:
    for host in scene.targets:
        for name in scene.layout.images:
            yield f"{scene.source}/{name}", f"{host}/{PREFIX}/{name}"


def last_part(repository: str) -> str:
    return repository.rpartition("/")[2]


TOOLS = {
    "blobflow": Tool([*BLOBFLOW, "--version"], blobflow_work),
    "skopeo": Tool(["skopeo", "--version"], skopeo_work, lands=last_part, forget=forget_blobs),
    "crane": Tool(["crane", "version"], crane_work),
    "regctl": Tool(["regctl", "version", "--format", "{{.VCSTag}}"], regctl_work),
    "regsync": Tool(["regsync", "version", "--format", "{{.VCSTag}}"], regsync_work),
    "oras": Tool(["oras", "version"], oras_work),
}


def present() -> list[str]:
    """The tools that are here; blobflow is."""
    return [name for name, tool in TOOLS.items() if name == "blobflow" or shutil.which(tool.version[0])]
