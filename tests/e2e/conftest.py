"""Registries and image sets for the end-to-end tests. What a machine lacks is a skip that names it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.memory import folder_in_memory
from tools import imageset
from tools.processes import Registry, blobflow_serve, docker_registry

# Files whose tests are about disks, or may keep what is large.
ON_DISK = frozenset(
    {
        "test_airgap",
        "test_airgap_deployments",
        "test_broken_connections",
        "test_debian_set",
        "test_fan_out",
        "test_image",
        "test_index",
        "test_layouts_and_archives",
        "test_memory",
        "test_nodes",
        "test_proxies",
        "test_store_failures",
        "test_store_permissions",
    }
)


class StartsRegistries(Protocol):
    def __call__(self, name: str) -> Registry:
        """A new, empty docker-registry that ends with the test."""
        ...


class MountsTmpfs(Protocol):
    def __call__(self, name: str, options: str) -> Path:
        """A small file system with mount `options` (`size=1m`, `ro`); a skip where we may not mount."""
        ...


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As pytest's own; in memory where nothing is about a disk."""
    if request.path.stem in ON_DISK:
        yield tmp_path_factory.mktemp("test")
    else:
        yield from folder_in_memory(tmp_path_factory)


@pytest.fixture(scope="session")
def programs() -> None:
    """The programs that come from Debian."""
    for program in ("docker-registry", "skopeo"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} (Debian: apt-get install {program})")


@pytest.fixture
def start_registry(programs: None, tmp_path: Path) -> Iterator[StartsRegistries]:
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(docker_registry(tmp_path / name))


@pytest.fixture(params=["docker-registry", "embedded"])
def target(programs: None, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """An empty registry of each kind in turn, for tests that have no target of their own."""
    folder = tmp_path / "target"
    starts = docker_registry(folder) if request.param == "docker-registry" else blobflow_serve(folder)
    with starts as registry:
        yield registry


@pytest.fixture(scope="session")
def debian_set() -> imageset.Layout:
    """The set of Debian packages, made once on a machine and kept in the user's cache."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(os.environ.get("BLOBFLOW_DEBIAN_SET") or caches / "blobflow-tests" / "debian-set")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return imageset.make(path, print)
    except imageset.ImageSetError as error:
        pytest.skip(f"needs the image set of Debian packages: {error}")


@pytest.fixture(scope="session")
def debian_source(
    programs: None, debian_set: imageset.Layout, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    """A docker-registry that holds the Debian set. Tests only read it, and count from `forget`."""
    with docker_registry(tmp_path_factory.mktemp("debian-source")) as registry:
        imageset.push(debian_set.path, registry.host)
        yield registry


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the programs of one test keep what they keep: runs that share it remember each other."""
    return tmp_path / "home"


@pytest.fixture
def small_set(tmp_path: Path) -> imageset.Layout:
    """The generated sample set, some hundred kilobytes."""
    return imageset.synthetic(tmp_path / "small-set", seed=1)


@pytest.fixture
def mount_tmpfs(tmp_path: Path) -> Iterator[MountsTmpfs]:
    mounted: list[Path] = []

    def mount(name: str, options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"needs to mount a tmpfs, as root may: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
