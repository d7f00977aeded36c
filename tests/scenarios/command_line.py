"""The command line at work against embedded registries in processes of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.cli.commands.demo import fill_registry
from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.transports.store import Store
from tests.deadlines import HANGS_AFTER
from tests.scenarios.serve import serve

SAMPLE = sample_set(7, images=3, layer_size=2048)
NAMES = list(SAMPLE.images)


class Place(NamedTuple):
    """The two registries, the test's own folder, and a list of all images."""

    source: str
    target: str
    folder: Path

    @property
    def list(self) -> Path:
        path = self.folder / "list.txt"
        path.write_text("\n".join(NAMES))
        return path

    def set(self, images: Path | None = None) -> tuple[str, ...]:
        return ("--from", self.source, "--to", f"{self.target}/m", "--images", str(images or self.list))


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """A `blobflow serve` process; gives its host:port, and checks that SIGTERM ends it well."""
    with serve(root) as server:
        found = re.match(r"blobflow registry at http://(\S+), store ", server.greeting)
        assert found is not None
        yield found[1]
        server.process.terminate()
        assert server.process.wait(HANGS_AFTER) == 0
        assert (server.out.read(), server.errors) == (b"", "stopping\n")


def stored(root: Path, sample: SampleSet) -> Path:
    with closing(Store.open(root)) as store:
        fill_registry(store, sample)
    return root


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(stored(tmp_path_factory.mktemp("source"), SAMPLE)) as address:
        yield address


@pytest.fixture
def place(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    home = tmp_path / "home"
    home.mkdir()
    for variable in ("DOCKER_CONFIG", "XDG_CACHE_HOME", "XDG_DATA_HOME", "BLOBFLOW_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(home))
    with serving(tmp_path / "target") as target:
        yield Place(source, target, tmp_path)


def blobflow(*argv: str, code: int | None = 0) -> Result:
    done = CliRunner().invoke(cli, argv)
    assert code is None or done.exit_code == code, done.output
    return done
