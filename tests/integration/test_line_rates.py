"""Which way large blobs take by what their line has shown, counted at both registries and at the store."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from blobflow.content import Chunk
from blobflow.oci.sample_images import sample_set
from blobflow.settings import Settings
from blobflow.transports.store import Store, StoreJournal
from blobflow.transports.store.writer import Writer
from tests.library import mirror
from tests.scenarios.custom_transports import pairs_of
from tests.scenarios.registries import fill
from tools.registry.faulty import Fault, ForgetBroken, JournallingRegistry, Reset, journalling

MIB = 1024 * 1024
SAMPLE = sample_set(23, images=1, architectures=("amd64",), layer_size=24 * MIB)
LARGE = sorted(
    (digest for digest, content in SAMPLE.blobs.items() if len(content) >= 12 * MIB),
    key=lambda digest: -len(SAMPLE.blobs[digest]),
)
NEVER, ALWAYS = 1e12, 0.0  # so many seconds are worth keeping


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The bytes of each large blob that were written into the run's store."""
    bytes_of: dict[str, int] = dict.fromkeys(LARGE, 0)
    write = Writer.write

    def counting(writer: Writer, chunk: Chunk) -> None:
        if writer.digest in bytes_of and writer.path.is_relative_to(tmp_path / "cache"):
            bytes_of[writer.digest] += len(chunk)
        write(writer, chunk)

    monkeypatch.setattr(Writer, "write", counting)
    monkeypatch.setattr("blobflow.engine.transfer.staging.RECORDED_FROM", 12 * MIB)
    return bytes_of


def worth(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blobflow.content.line_rate.COSTLY_SECONDS", seconds)


async def copy(source: JournallingRegistry, target: JournallingRegistry, folder: Path) -> None:
    """One stream at a time, so that the second large blob begins when the first has shown its line."""
    settings = Settings(cache_dir=folder / "cache", concurrency=1)
    report = await mirror(pairs_of(source.host, target.host, SAMPLE), settings)
    assert report.ok


async def test_a_fast_line_is_recorded_until_it_has_shown_that_and_staged_never(
    tmp_path: Path, written: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    worth(NEVER, monkeypatch)
    async with journalling(tmp_path / "s") as source, journalling(tmp_path / "t") as target:
        fill(source.store, SAMPLE)
        await copy(source, target, tmp_path)
        first, *others = LARGE
        assert 0 < written[first] < len(SAMPLE.blobs[first])
        assert len(others) > 1 and not any(written[digest] for digest in others)
        with closing(Store.open(tmp_path / "cache")) as store:
            journal = StoreJournal(store)
            assert int(journal.note(source.host, "line.read") or "0") > 0
            assert int(journal.note(target.host, "line.sent") or "0") > 0
            assert not list(store.paths.partials.iterdir())


async def test_a_line_that_turns_out_slow_goes_on_where_the_first_blob_broke_and_stages_the_next(
    tmp_path: Path, written: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    worth(ALWAYS, monkeypatch)
    faults = [
        Fault("*", "/uploads/", times=0, act=ForgetBroken()),
        Fault("PATCH", "", act=Reset(after=20 * MIB)),
    ]
    async with journalling(tmp_path / "s") as source, journalling(tmp_path / "t", faults) as target:
        fill(source.store, SAMPLE)
        await copy(source, target, tmp_path)
        assert target.journal.count("PATCH", status=0) == 1
        for digest in LARGE:
            assert written[digest] == len(SAMPLE.blobs[digest]), "each byte passed once"
            ranges = [each.asked.get("Range") for each in source.journal.select("GET", digest)]
            assert ranges.count(None) == 1, "the blob was read from its start again"
