"""What the first archives of a load hold is uploaded while the next ones are read."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from blobflow import cli
from tests.fakes.archives import Entries, config_of, digest, layer_of, podman_entries, tar_of, write
from tests.scenarios.registries import registries
from tools.registry.faults import Fault, RefuseMount, Stall, Status
from tools.registry.faulty import JournallingRegistry
from tools.registry.journal import Journal

APP, TOOL = "docker.io/library/app:1", "docker.io/library/tool:1"
BASE = {arch: layer_of(f"base-{arch}", 40_000) for arch in ("amd64", "arm64")}
OWN = {name: layer_of(f"own-{name}", 20_000) for name in (APP, TOOL)}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))


def saved(arch: str, names: Sequence[str] = (APP,)) -> Entries:
    """What `podman save -m` leaves on a machine of that kind."""
    images = {name: (BASE[arch], OWN[name]) for name in names}
    entries = dict(podman_entries(images))
    listed: list[dict[str, Any]] = json.loads(entries["manifest.json"])  # type: ignore[arg-type]
    for entry, layers in zip(listed, images.values(), strict=True):
        config = config_of(*layers, architecture=arch)
        entries.pop(entry["Config"], None)
        entry["Config"] = f"{digest(config)[7:]}.json"
        entries[entry["Config"]] = config
    entries["manifest.json"] = json.dumps(listed).encode()
    return list(entries.items())


async def load(*arguments: str | Path) -> Result:
    """Run the verb in a thread, on a loop of its own."""
    words = ["load", *(str(each) for each in arguments)]
    return await asyncio.to_thread(CliRunner().invoke, cli.cli, words)


@asynccontextmanager
async def loading_through_a_pipe(
    tmp_path: Path, first: Path, target: JournallingRegistry, *options: str | Path
) -> AsyncIterator[tuple[int, asyncio.Task[Result]]]:
    """A load of `first` and of an archive that comes through a pipe, which is opened and says nothing yet."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    run = asyncio.create_task(load(first, f"docker-archive:{pipe}", "--to", target.host, *options))
    fd = await asyncio.to_thread(os.open, pipe, os.O_WRONLY)
    try:
        yield fd, run
    finally:
        if not run.done():
            os.close(fd)
            await run


async def send(fd: int, content: bytes) -> None:
    def work() -> None:
        with os.fdopen(fd, "wb") as file:
            file.write(content)

    await asyncio.to_thread(work)


def blobs_put(journal: Journal) -> int:
    return len({exchange.completes for exchange in journal if exchange.completes and exchange.status == 201})


def manifests_put(journal: Journal) -> int:
    return journal.count("PUT", "/manifests/")


def totals(report: Path) -> Mapping[str, int]:
    found: Mapping[str, int] = json.loads(report.read_bytes())["totals"]
    return found


async def test_the_first_archive_arrives_while_the_second_is_still_to_be_read(tmp_path: Path) -> None:
    first = write(tmp_path / "amd64.tar.gz", saved("amd64"), "tar.gz")
    report = tmp_path / "report.json"
    async with registries(tmp_path, ["target"]) as [target]:
        async with loading_through_a_pipe(tmp_path, first, target, "--report", report) as (fd, run):
            # A config and two layers. Nothing of the other archive can be known by now.
            await target.journal.until(lambda journal: blobs_put(journal) == 3)
            assert manifests_put(target.journal) == 0
            await send(fd, gzip.compress(tar_of(saved("arm64"))))
            result = await run
        assert result.exit_code == 0, result.output
        uploads = [exchange.completes for exchange in target.journal if exchange.completes]
        assert len(uploads) == len(set(uploads)) == 5  # the layer that both have is there once
        assert manifests_put(target.journal) == 3
        root = target.store.repositories.resolve("library/app", "1")
        assert root is not None
        index = json.loads(target.store.blobs.read_small(root))
        assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]
        said = totals(report)
        assert (said["blobs_copied"], said["blobs_present"], said["manifests_put"]) == (5, 0, 3)
        sizes = sum(exchange.received for exchange in target.journal)
        assert said["bytes_written"] == sizes

        target.journal.clear()
        again = write(tmp_path / "arm64.tar.gz", saved("arm64"), "tar.gz")
        result = await load(first, again, "--to", target.host, "--report", report)
        assert result.exit_code == 0, result.output
        assert (blobs_put(target.journal), totals(report)["blobs_copied"]) == (0, 0)

        target.journal.clear()  # both are known by now: nothing is asked early
        result = await load(first, again, "--to", target.host)
        assert result.exit_code == 0, result.output
        assert [exchange.method for exchange in target.journal if "/v2/library" in exchange.path] == ["HEAD"]


@pytest.mark.parametrize(
    ("content", "code"),
    [(tar_of(saved("arm64"))[:30_000], 8), (tar_of(saved("amd64")), 2), (b"no tar at all " * 99, 7)],
    ids=["cut off", "the same platform again", "no archive"],
)
async def test_an_archive_that_ends_the_load_leaves_nothing_that_has_a_name(
    tmp_path: Path, content: bytes, code: int
) -> None:
    first = write(tmp_path / "amd64.tar.gz", saved("amd64"), "tar.gz")
    async with registries(tmp_path, ["target"]) as [target]:
        async with loading_through_a_pipe(tmp_path, first, target) as (fd, run):
            await target.journal.until(lambda journal: blobs_put(journal) == 3)
            await send(fd, content)
            result = await run
        assert result.exit_code == code, result.output
        assert manifests_put(target.journal) == 0
        assert target.store.repositories.resolve("library/app", "1") is None


async def test_what_is_under_way_ends_with_the_load(tmp_path: Path) -> None:
    """An upload that hangs does not keep a load that is over from ending."""
    first = write(tmp_path / "amd64.tar.gz", saved("amd64"), "tar.gz")
    reached, over = asyncio.Event(), asyncio.Event()
    hanging = Fault("PUT", "/blobs/uploads/", times=0, act=Stall(until=over, reached=reached))
    async with registries(tmp_path, ["target"], [hanging]) as [target]:
        async with loading_through_a_pipe(tmp_path, first, target) as (fd, run):
            await reached.wait()
            await send(fd, tar_of(saved("arm64"))[:30_000])
            result = await run
        over.set()
        assert result.exit_code == 8, result.output
        assert (blobs_put(target.journal), manifests_put(target.journal)) == (0, 0)


@pytest.mark.parametrize("mounts", [True, False])
async def test_what_images_of_the_first_archive_share_is_mounted_and_counted_once(
    tmp_path: Path, mounts: bool
) -> None:
    first = write(tmp_path / "amd64.tar.gz", saved("amd64", (APP, TOOL)), "tar.gz")
    second = write(tmp_path / "arm64.tar.gz", saved("arm64", (APP, TOOL)), "tar.gz")
    report = tmp_path / "report.json"
    refused = [] if mounts else [Fault("POST", "mount=", times=0, act=RefuseMount(202))]
    async with registries(tmp_path, ["target"], refused) as [target]:
        result = await load(first, second, "--to", target.host, "--report", report)
        assert result.exit_code == 0, result.output
        said = totals(report)
        # Two configs and three layers of each platform; both have each image's own layer, and each base is in
        # two repositories.
        assert said["blobs_copied"] + said["blobs_mounted"] == 4 + 2 + 4
        assert (said["blobs_mounted"] == 2) is mounts
        assert said["blobs_present"] == 0
        uploads = [exchange.completes for exchange in target.journal if exchange.completes]
        assert len(uploads) == len(set(uploads)) == said["blobs_copied"]


async def test_a_repository_of_blobs_alone_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    """distribution 2.8 says NAME_UNKNOWN of one until it has its first manifest."""
    first = write(tmp_path / "amd64.tar.gz", saved("amd64"), "tar.gz")
    unknown = Status(404, body='{"errors": [{"code": "NAME_UNKNOWN"}]}')
    async with registries(tmp_path, ["target"], [Fault("GET", "/tags/list", times=0, act=unknown)]) as [
        target
    ]:
        async with loading_through_a_pipe(tmp_path, first, target) as (fd, run):
            await target.journal.until(lambda journal: blobs_put(journal) == 3)
            await send(fd, tar_of(saved("arm64")))
            result = await run
        assert result.exit_code == 0, result.output
        uploads = [exchange.completes for exchange in target.journal if exchange.completes]
        assert len(uploads) == len(set(uploads)) == 5


async def test_what_a_target_refuses_early_is_left_to_the_run(tmp_path: Path) -> None:
    first = write(tmp_path / "amd64.tar.gz", saved("amd64"), "tar.gz")
    denied = Fault("POST", "/blobs/uploads/", times=3, act=Status(403))
    async with registries(tmp_path, ["target"], [denied]) as [target]:
        async with loading_through_a_pipe(tmp_path, first, target) as (fd, run):
            await target.journal.until(lambda j: j.count("POST", "/blobs/uploads/", 403) == 3)
            await send(fd, tar_of(saved("arm64")))
            result = await run
        assert result.exit_code == 0, result.output
        assert target.store.repositories.resolve("library/app", "1") is not None


async def test_one_archive_is_uploaded_by_the_run_alone(tmp_path: Path) -> None:
    """Nothing is asked twice where there is nothing to overlap with."""
    only = write(tmp_path / "amd64.tar.gz", saved("amd64"), "tar.gz")
    async with registries(tmp_path, ["target"]) as [target]:
        result = await load(only, "--to", target.host)
        assert result.exit_code == 0, result.output
        assert target.journal.count("POST", "/blobs/uploads/") == 3
        assert target.journal.count("HEAD") == 2  # the tag, before and after
