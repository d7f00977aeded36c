"""Clients that others made: what one can do, where it works, and how it gets there. pip and npm install each
into a folder of its own, which stays in the user's cache for the next time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from blobflow.oci import digest_of
from blobflow.oci.media import ACCEPT_MANIFESTS
from tests.e2e.kept import claimed, kept_folder
from tools.processes import Registry, environment

Content = dict[str, bytes]  # by file name, or by digest
Json = dict[str, Any]

# What the clients of npm stand on is what there was when they were tried.
BEFORE = "2026-11-28"
CONSTRAINTS = Path(__file__).with_name("constraints.txt")
INSTALL_SECONDS = 300.0
RUN_SECONDS = 120.0


class Bench(NamedTuple):
    """Where a client works: at `registry`, with `folder` as its current one, and `home` for what it keeps."""

    registry: Registry
    folder: Path
    home: Path
    program: Path  # the folder with the client's programs (pip), or with its packages (npm)

    def run(
        self, *command: str | Path, given: bytes = b"", variables: Mapping[str, str] | None = None
    ) -> bytes:
        """Run a program to its end; what it writes to standard output. It has to end well."""
        self.folder.mkdir(parents=True, exist_ok=True)
        trusted = {"SSL_CERT_FILE": str(self.registry.ca)} if self.registry.ca else {}
        done = subprocess.run(
            list(map(str, command)),
            input=given,
            cwd=self.folder,
            env=environment(self.home) | trusted | dict(variables or {}),
            capture_output=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command[0]}: {done.stderr.decode()[-4000:]}{done.stdout.decode()}"
        return done.stdout

    def python(self, script: str, *arguments: str | Path) -> bytes:
        return self.run(self.program / "python", "-c", script, *arguments)

    def node(self, script: str, *arguments: str | Path) -> bytes:
        return self.run("node", "-e", script, "--", *arguments, variables={"NODE_PATH": str(self.program)})

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


class Pushed(NamedTuple):
    """What a client pushed: what blobflow is to carry, as `repository:tag`, and what a pull brings back."""

    images: tuple[str, ...]
    content: Content


class Client(NamedTuple):
    """A client of another house. `requirement` is pip's (`name==version`) or npm's (`name@version`).

    `push` finds some images `shop/…` of the small set at the registry, and `docker:1`, a plain docker
    image; `pull` reads what it pushed, from there or where it was carried to. `odd`: what one has to know
    of its manifests. `writes`: the files that a pull leaves in the folder, as blobflow names such places, and
    the image in each. `serve`: what `blobflow serve` has to be told for it.
    """

    requirement: str
    push: Callable[[Bench], Pushed]
    pull: Callable[[Bench], Content]
    odd: Callable[[Json], bool]
    writes: Mapping[str, str] = {}
    tls: bool = False
    serve: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.requirement.rstrip("0123456789.").rstrip("=@")


def divided(image: str) -> tuple[str, str]:
    """The repository, and the tag or digest, of `repository:tag` or `repository@digest`."""
    repository, _, name = image.replace("@", ":", 1).partition(":")
    return repository, name


def raw_manifest_at(registry: Registry, image: str) -> bytes:
    repository, name = divided(image)
    accept = {"Accept": ACCEPT_MANIFESTS}
    status, _, raw = registry.ask("GET", f"/v2/{repository}/manifests/{name}", accept)
    assert status == 200, raw
    return raw


def manifest_at(registry: Registry, image: str) -> Json:
    document: Json = json.loads(raw_manifest_at(registry, image))
    return document


def layers_at(registry: Registry, image: str) -> Content:
    """An image's layers by their digests, as the registry has them."""
    repository, _ = divided(image)
    digests = [str(layer["digest"]) for layer in manifest_at(registry, image)["layers"]]
    return {digest: registry.ask("GET", f"/v2/{repository}/blobs/{digest}")[2] for digest in digests}


def by_digest(contents: list[bytes]) -> Content:
    return {digest_of(content): content for content in contents}


def installed(requirement: str) -> Path:
    """Where a client's programs or packages are. A skip that says why, where they can't be had."""
    of_pip = "==" in requirement
    what = CONSTRAINTS.read_text() + sys.version if of_pip else BEFORE
    folder = kept_folder(f"clients/{requirement.replace('/', '-')}", what)
    if not of_pip and not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm (Debian: apt-get install nodejs npm)")
    with claimed(folder) as complete:
        if not complete:
            for command in _pip(folder, requirement) if of_pip else _npm(folder, requirement):
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
                )
                if done.returncode:
                    pytest.skip(f"needs {requirement} from {command[0]}: {done.stderr.strip()[-500:]}")
    return folder / ("bin" if of_pip else "node_modules")


def _pip(folder: Path, requirement: str) -> Iterator[list[str]]:
    yield [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)]
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--quiet"]
    yield [*pip, "install", "--constraint", str(CONSTRAINTS), requirement]


def _npm(folder: Path, requirement: str) -> Iterator[list[str]]:
    quiet = ("--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--loglevel=error")
    yield ["npm", "install", *quiet, f"--before={BEFORE}", f"--prefix={folder}", requirement]
