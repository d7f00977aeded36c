"""A Source and a Sink of a user's own in whole runs: the documented one, as it stands there, and others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from blobflow import CustomTransports, Pair, Reference, Run, parse_reference
from blobflow.content import BlobStream, Site
from blobflow.engine.results.report import Report
from blobflow.errors import ConnectionLost, NotFound
from blobflow.events import Meter
from blobflow.oci import Descriptor, digest_of
from blobflow.settings import Settings
from tests.documentation import block_with, shelf
from tests.library import inspect, mirror, plan, verify
from tests.scenarios.custom_transports import IMAGES, pairs_of
from tests.scenarios.fault_rows import tag_at
from tests.scenarios.registries import fill, registries
from tools.registry.faulty import JournallingRegistry


def statuses(report: Report) -> list[str]:
    return [image.status for image in report.images]


@asynccontextmanager
async def two(tmp_path: Path) -> AsyncIterator[tuple[JournallingRegistry, JournallingRegistry]]:
    async with registries(tmp_path, ["source", "target"]) as (source, target):
        fill(source.store, IMAGES)
        yield source, target


def tags_at(target: JournallingRegistry) -> Mapping[str, str | None]:
    return {name: tag_at(target.store, f"m/{name}") for name in IMAGES.images}


WANTED = {name: stored.digest for name, stored in IMAGES.images.items()}


async def test_the_documented_shelf_is_a_target_and_then_a_source(tmp_path: Path) -> None:
    mine = shelf(tmp_path / "shelf")
    transports = CustomTransports(sources={"shelf": mine}, sinks={"shelf": mine})
    settings = Settings(cache_dir=tmp_path / "cache")
    async with two(tmp_path) as (source, target):
        there = pairs_of(source.host, "shelf")
        planned = await plan(there, settings, transports=transports)
        assert planned.cost.bytes_to_write > 0
        assert not (tmp_path / "shelf").exists(), "a plan changes nothing"
        report = await mirror(there, settings, transports=transports)
        assert statuses(report) == ["done"] * 3
        assert statuses(await mirror(there, settings, transports=transports)) == ["present"] * 3
        assert set((await verify(there, "content", settings, transports=transports)).values()) == {None}

        first = there[0].target
        assert (await inspect(first, settings, transports=transports)).root.is_index

        back = [Pair(p.target, Reference(target.host, p.target.repository, p.target.tag)) for p in there]
        assert statuses(await mirror(back, settings, transports=transports)) == ["done"] * 3
        assert tags_at(target) == WANTED


async def test_the_documented_lines_run_as_they_stand(tmp_path: Path) -> None:
    names: dict[str, Any] = {"Shelf": shelf(tmp_path / "shelf")}
    async with two(tmp_path) as (source, _):
        name = next(iter(IMAGES.images))
        text = block_with("CustomTransports(sources").replace("127.0.0.1:5000/app:1", f"{source.host}/{name}")
        exec(compile(text, "own-places.md", "exec"), names)
        report = await names["main"]()
    assert statuses(report) == ["done"]
    kept = tmp_path / "shelf" / "team/app"
    assert digest_of((kept / "1").read_bytes()) == WANTED[name]


async def test_a_source_that_breaks_and_lies_is_treated_as_any_other(tmp_path: Path) -> None:
    """Resumed where it broke; wrong bytes reach no target; what is missing fails its image alone."""
    mine: Any = shelf(tmp_path / "shelf")
    settings = Settings(cache_dir=tmp_path / "cache")
    opened: list[int] = []
    blobs = sorted(IMAGES.blobs, key=lambda digest: len(IMAGES.blobs[digest]))
    broken, wrong = blobs[-1], blobs[-2]

    class Weak(mine):  # type: ignore[misc]
        @asynccontextmanager
        async def open(
            self, blob: Descriptor, offset: int = 0, end: int | None = None
        ) -> AsyncIterator[BlobStream]:
            content = self.content(blob.digest)[offset:end]

            async def chunks() -> BlobStream:
                if blob.digest == wrong:
                    yield bytes(len(content))
                elif blob.digest == broken and not offset:
                    yield content[: len(content) // 2]
                    opened.append(offset)
                    raise ConnectionLost("cut", received=len(content) // 2, expected=len(content))
                else:
                    yield content

            yield chunks()

    async with two(tmp_path) as (source, target):
        there = pairs_of(source.host, "shelf")
        own = CustomTransports(sources={"shelf": mine}, sinks={"shelf": mine})
        assert statuses(await mirror(there, settings, transports=own)) == ["done"] * 3
        back = [Pair(p.target, Reference(target.host, p.target.repository, p.target.tag)) for p in there]
        report = await mirror(back, settings, transports=CustomTransports(sources={"shelf": Weak}))
        failed = [image for image in report.images if image.status == "failed"]
        assert opened
        assert failed and all(wrong[7:19] in image.error or "digest" in image.error for image in failed)
        assert target.store.blobs.size_of(digest_of(bytes(len(IMAGES.blobs[wrong])))) is None
        assert not target.store.repositories.contents("m/x")


async def test_what_is_counted_is_in_the_report_and_sites_are_made_once(tmp_path: Path) -> None:
    mine: Any = shelf(tmp_path / "shelf")
    meter, made = Meter(), list[Site]()

    class Counted(mine):  # type: ignore[misc]
        def __init__(self, site: Site) -> None:
            made.append(site)
            super().__init__(site)

        def keep(self, name: str, content: bytes) -> None:
            meter.hosts["shelf"].bytes_written += len(content)
            super().keep(name, content)

    async with two(tmp_path) as (source, _):
        pairs = pairs_of(source.host, "shelf")
        transports = CustomTransports(sinks={"shelf": Counted})
        report = await mirror(pairs, Settings(), meter=meter, transports=transports)
    assert report.totals.bytes_written >= IMAGES.unique_bytes
    assert sorted(made) == sorted(set(made))


async def test_a_host_that_nobody_knows_is_a_registry_still(tmp_path: Path) -> None:
    transports = CustomTransports(sources={"shelf": shelf(tmp_path / "shelf")})
    pair = Pair(Reference("shelf", "no/such", "1"), parse_reference("127.0.0.1:1/app:1"))
    runs: list[Run] = []
    report = await mirror([pair], Settings(), on_start=runs.append, transports=transports)
    assert statuses(report) == ["failed"]
    assert isinstance(runs[0].errors[pair], NotFound)
    assert runs[0].errors[pair].side == "source"
