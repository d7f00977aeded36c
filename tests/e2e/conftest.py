"""Registries and image sets for the end-to-end tests. What a machine lacks is a skip that names it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.e2e.processes import Registry, docker_registry
from tools import imageset


class StartsRegistries(Protocol):
    def __call__(self, name: str) -> Registry:
        """A new, empty docker-registry that ends with the test."""
        ...


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
    with scratch(tmp_path_factory.mktemp("debian-source")) as folder, docker_registry(folder) as registry:
        imageset.push(debian_set.path, registry.host)
        yield registry


@pytest.fixture
def small_set(tmp_path: Path) -> imageset.Layout:
    """The generated sample set, some hundred kilobytes."""
    return imageset.synthetic(tmp_path / "small-set", seed=1)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder whose content goes with the context: hundreds of megabytes are not left to pytest's keeping."""
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A small file system at `folder`; a skip where we may not mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"needs to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
