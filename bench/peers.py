"""The tools, and how each is told to make the same mirror: at its defaults, and with tuned concurrency.

To add a tool, add a row to TOOLS. One that is not on PATH is left out, and that is told. Tools that know sets
get the whole set at once; the others get a command an image, tuned several of them at a time. The tuning of
each was chosen as the best on a machine with 2 cores, and stands in its command, which is part of the record.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from bench.scenarios import PREFIX
from tools.imageset import Layout
from tools.processes import BLOBFLOW

# Blobs at once of a tuned tool; how many images at once are best is the scenario's to say.
BLOBS_AT_ONCE = 16
EARLIER = "earlier build"
# How often a tool with such a flag tries again where requests fail; more is not worth the waiting.
RETRIES = 5
# Where containers/image, as root, remembers which blobs it saw in which registry; else it is under HOME.
ROOTS_BLOB_CACHE = Path("/var/lib/containers/cache/blob-info-cache-v1.boltdb")


class Scene(msgspec.Struct, frozen=True):
    """What a tool is asked to do, where (`host:port`), and the folder for what it keeps.

    `prefix`: below a target's host. `at_once`: images at once, if it is tuned. `faults`: requests will fail.
    `profile`: where blobflow's profile is to be written.
    """

    layout: Layout
    source: str
    targets: tuple[str, ...]
    home: Path
    prefix: str = PREFIX
    tuned: bool = False
    at_once: int = 4
    faults: bool = False
    profile: Path | None = None

    @property
    def commands(self) -> int:
        """How many commands a tool that knows no sets is given at a time."""
        return self.at_once if self.tuned else 1

    @property
    def requests(self) -> int:
        """How many requests at once a tuned tool sends to each registry."""
        return max(BLOBS_AT_ONCE, self.at_once)


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
    of the source goes. `forget` removes what the tool keeps outside of its home. `ours`: it is a build of
    blobflow. `remembers`: what it keeps from one run to the next makes a difference where nothing has
    changed. `mirrors`: it is meant to leave the source's tags at the target.
    """

    version: Sequence[str]
    work: Callable[[Scene], Work]
    lands: Callable[[str], str] = str
    forget: Callable[[], None] = lambda: None
    ours: bool = False
    remembers: bool = False
    mirrors: bool = True


def blobflow_work(command: Sequence[str] | None, scene: Scene) -> Work:
    """`command`: of another build than this one."""
    images = scene.layout.path / "images.txt"
    targets = [word for host in scene.targets for word in ("--to", f"{host}/{scene.prefix}")]
    tuning = ["--concurrency", str(BLOBS_AT_ONCE)] if scene.tuned else []
    begin = command or our_command(scene.profile)
    return Work([[*begin, "sync", "--from", scene.source, *targets, "--images", str(images), *tuning]])


def build_of(checkout: Path) -> list[str]:
    """How the blobflow of a checkout that has an environment is run, from whatever folder.

    Raises FileNotFoundError if that was not made.
    """
    interpreter = checkout.resolve() / ".venv/bin/python"
    if not interpreter.exists():
        raise FileNotFoundError(f"{checkout} has no .venv; make one there, as tools/test does")
    return [str(interpreter), "-P", "-m", "blobflow"]  # -P: or it would find the folder's own


def skopeo_work(scene: Scene) -> Work:
    """Unscoped: with `--scoped` the source's host and port would be part of the repository's name.

    It has no flag for concurrency: tuned are several of it, each with a part of the set.
    """
    parts = scene.commands
    command = ["skopeo", "--insecure-policy", "sync", "--all", "--src", "yaml", "--dest", "docker"]
    command += ["--dest-tls-verify=false", *(["--retry-times", str(RETRIES)] if scene.faults else [])]
    commands = []
    for part in range(parts):
        tags: dict[str, list[str]] = {}
        for image in list(scene.layout.images.values())[part::parts]:
            tags.setdefault(image.repository, []).append(image.tag)
        spec = scene.home / f"skopeo-{part}.yaml"
        spec.write_bytes(msgspec.json.encode({scene.source: {"tls-verify": False, "images": tags}}))
        commands += [[*command, str(spec), f"{host}/{scene.prefix}"] for host in scene.targets if tags]
    return Work(commands, parts)


def forget_blobs() -> None:
    ROOTS_BLOB_CACHE.unlink(missing_ok=True)


def crane_work(scene: Scene) -> Work:
    jobs = ["--jobs", str(BLOBS_AT_ONCE)] if scene.tuned else []
    return _an_image_each(scene, ["crane", "copy", "--insecure", *jobs])


def regctl_work(scene: Scene) -> Work:
    """Its configuration says which registries speak plain HTTP, and how many requests at once they get."""
    own = _regclient_host(scene)
    file = scene.home / ".regctl" / "config.json"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(msgspec.json.encode({"hosts": dict.fromkeys((scene.source, *scene.targets), own)}))
    return _an_image_each(scene, ["regctl", "image", "copy"])


def regsync_work(scene: Scene) -> Work:
    own = _regclient_host(scene)
    spec = {
        "version": 1,
        "creds": [{"registry": host, **own} for host in (scene.source, *scene.targets)],
        "defaults": {"parallel": scene.at_once} if scene.tuned else {},
        "sync": [
            {"source": source, "target": target, "type": "image"} for source, target in _references(scene)
        ],
    }
    file = scene.home / "regsync.yml"
    file.write_bytes(msgspec.json.encode(spec))
    return Work([["regsync", "--config", str(file), "once"]])


def _regclient_host(scene: Scene) -> dict[str, str | int]:
    tuning = {"reqConcurrent": scene.requests} if scene.tuned else {}
    return {"tls": "disabled", **tuning}


def oras_work(scene: Scene) -> Work:
    jobs = ["--concurrency", str(BLOBS_AT_ONCE)] if scene.tuned else []
    return _an_image_each(scene, ["oras", "copy", "--from-plain-http", "--to-plain-http", *jobs])


def docker_work(scene: Scene) -> Work:
    """Without a daemon: by its plugin buildx, which copies an index as it is. It has no flag for concurrency;
    registries on loopback are plain HTTP to it."""
    commands = [
        ["docker", "buildx", "imagetools", "create", "--tag", target, source]
        for source, target in _references(scene)
    ]
    return Work(commands, scene.commands)


def raw_work(connections: int, scene: Scene) -> Work:
    """The bytes of the largest blob alone, by so many connections."""
    image = next(iter(scene.layout.images.values()))
    digest, size = max(image.blobs.items(), key=lambda blob: blob[1])
    words = ["--from", scene.source, "--to", scene.targets[0], "--repository", image.repository]
    words += ["--digest", digest, "--size", str(size), "--connections", str(connections)]
    return Work([python(None, "-m", "bench.ranged_pump", *words)])


def _an_image_each(scene: Scene, command: Sequence[str]) -> Work:
    return Work([[*command, source, target] for source, target in _references(scene)], scene.commands)


def _references(scene: Scene) -> Iterator[tuple[str, str]]:
    for host in scene.targets:
        for name in scene.layout.images:
            yield f"{scene.source}/{name}", f"{host}/{scene.prefix}/{name}"


def last_part(repository: str) -> str:
    return repository.rpartition("/")[2]


TOOLS = {
    "blobflow": Tool([*BLOBFLOW, "--version"], partial(blobflow_work, None), ours=True, remembers=True),
    "skopeo": Tool(["skopeo", "--version"], skopeo_work, lands=last_part, forget=forget_blobs),
    "crane": Tool(["crane", "version"], crane_work),
    "regctl": Tool(["regctl", "version", "--format", "{{.VCSTag}}"], regctl_work),
    "regsync": Tool(["regsync", "version", "--format", "{{.VCSTag}}"], regsync_work),
    "oras": Tool(["oras", "version"], oras_work),
    "docker": Tool(["docker", "buildx", "version"], docker_work),
}
# What is held beside them in some scenarios: programs that move the bytes and nothing else.
RAW = {
    "8 raw connections": Tool([sys.executable, "--version"], partial(raw_work, 8), mirrors=False),
}


def present() -> list[str]:
    """The tools that are here, blobflow among them: those on PATH that tell their versions."""
    return [name for name, tool in TOOLS.items() if name == "blobflow" or _is_here(tool)]


def _is_here(tool: Tool) -> bool:
    if shutil.which(tool.version[0]) is None:
        return False
    asked = subprocess.run(tool.version, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    return not asked.returncode


def tools_of(names: Sequence[str], against: Path | None) -> dict[str, Tool]:
    """The tools of these names, and the build of the checkout `against` beside blobflow's."""
    chosen = {}
    for name in names:
        chosen[name] = TOOLS[name]
        if name == "blobflow" and against is not None:
            command = build_of(against)
            version = [*command, "--version"]
            if (against / ".git").exists():  # versions rarely differ from one build to the next
                version = ["git", "-C", str(against), "describe", "--always", "--dirty"]
            chosen[EARLIER] = Tool(version, partial(blobflow_work, command), ours=True, remembers=True)
    return chosen
