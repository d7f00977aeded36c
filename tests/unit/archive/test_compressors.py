"""What bare layers become: which digests are equal everywhere, and what machines may take from each other."""

from __future__ import annotations

import hashlib
import platform
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from blobflow.cli import cli
from blobflow.content import Site
from blobflow.errors import UsageError
from blobflow.events import HostMeter
from blobflow.oci import Digest, parse_manifest
from blobflow.transports.archive import ArchiveSource, CompressMode, Importer, codec
from blobflow.transports.compression.compressors import (
    GZIP_LAYER,
    Begin,
    Codec,
    Compressor,
    made_of,
    sample,
    sample_becomes,
    zstd_in,
)
from blobflow.transports.store import ImportCache, Store
from tests.fakes.archives import digest, layer_of, podman_entries, write
from tests.fakes.registry import collect

MODES: tuple[CompressMode, ...] = ("gzip", "gzip-portable", "zstd", "none")
MIB = 1024 * 1024

# Written down here, not taken from the program: it is what users sign, and what they compare.
LAYER = layer_of("portable")
PORTABLE = {
    "sample": "00a0e5470999f8dcfab5032e7ed3ef52caacf7e8f238687b9e7dda72c92358d1",
    "layer": "3f0593928a9f11569b685e4f8403cd0a5a00fec4c134a216473f3391cb81ae3f",
}
# What ISA-L 2.31 and 2.32 make of the sample at level 2, by processor.
BY_PROCESSOR = {
    "x86_64": {
        "e21bb51a4e9ca7d53da3f09a930c596e567f2e150b4cd3f05494ee41ec70640b",  # with SSE4.2
        "cc7e6c043f1e726250c6c6cc36c69b70afc731c784b5b929a08df3e0898ee602",  # without
    },
    "aarch64": {"0a35d17b82444c99fb3007d6ebeb9f0eb0c3ca9155f23159f99b007c6edaac5a"},
}
ZSTD_SAMPLE = {(1, 5, 7): "2f1caa06b895a96d506ab8f01fa3bf1de21d2ff5ec8250cfbe30bf02a488aeb4"}
# What it made before it worked in threads, and what of 10 MiB it makes since, which is more than two jobs.
ZSTD_SAMPLE_BEFORE = {(1, 5, 7): "9da4219ffee26754eae9c6289be315866d21e7396ec178c271d7992bc774c88d"}
ZSTD_JOBS = {(1, 5, 7): "d85c3555d95eaf954eb0a6cbe9ff4ce70cdb62f94e217be102484c8822f14416"}


def zlib_at(level: int) -> Begin:
    """Another compressor: what one codec would be on a machine of another kind."""
    return lambda: zlib.compressobj(level, zlib.DEFLATED, 31)


def packed(content: bytes, mode: CompressMode, cut: int) -> bytes:
    return packed_by(codec(mode).begin, content, cut)


def packed_by(begin: Begin, content: bytes, cut: int) -> bytes:
    compressor = begin()
    blocks = (content[at : at + cut] for at in range(0, len(content), cut))
    return b"".join(map(compressor.compress, blocks)) + compressor.flush()


@pytest.mark.parametrize("cut", [MIB, MIB // 16, 99_991, 10**9])
def test_gzip_portable_makes_the_same_bytes_everywhere_however_its_input_is_cut(cut: int) -> None:
    made = {"sample": packed(sample(), "gzip-portable", cut), "layer": packed(LAYER, "gzip-portable", cut)}
    assert {name: hashlib.sha256(raw).hexdigest() for name, raw in made.items()} == PORTABLE
    assert zlib.decompress(made["layer"], 31) == LAYER


def test_the_sample_is_the_same_everywhere() -> None:
    """Else what is made of it would say nothing of a compressor."""
    assert len(sample()) == 515_787
    assert digest(sample()) == "sha256:6dc956ec7e28bb2891d0200b8740ad55f8f4d637362779db2d99f9bfa7daad9e"


@pytest.mark.skipif(platform.machine() not in BY_PROCESSOR, reason="no digest is known of this processor")
def test_gzip_makes_what_is_known_of_this_kind_of_processor() -> None:
    assert sample_becomes(codec("gzip").begin) in BY_PROCESSOR[platform.machine()]


def test_zstd_makes_the_same_bytes_on_every_processor() -> None:
    import zstandard

    known = ZSTD_SAMPLE.get(zstandard.ZSTD_VERSION)
    assert known in (None, sample_becomes(codec("zstd").begin))


@pytest.fixture(scope="module")
def jobs() -> bytes:
    """More than two jobs, the last of them cut short, of what compresses as layers do."""
    return b"".join(hashlib.sha256(b"%d" % (at // 3)).hexdigest().encode() for at in range(160 * 1024))


@pytest.mark.parametrize(
    ("cpus", "cut"), [(0, MIB), (1, MIB), (2, MIB), (4, MIB), (64, MIB), (1, 99_991), (2, 10**9), (4, 99_991)]
)
def test_zstd_makes_the_same_bytes_in_any_number_of_threads_however_its_input_is_cut(
    jobs: bytes, cpus: int, cut: int
) -> None:
    import zstandard

    made = packed_by(zstd_in(cpus), jobs, cut)
    known = ZSTD_JOBS.get(zstandard.ZSTD_VERSION)
    assert known in (None, hashlib.sha256(made).hexdigest())
    assert made == packed_by(zstd_in(1), jobs, MIB)
    assert zstandard.ZstdDecompressor().decompressobj().decompress(made) == jobs


def test_zstd_in_threads_has_a_version_of_its_own_and_names_the_one_before() -> None:
    import zstandard

    made = codec("zstd")
    [before] = made.earlier
    assert " in jobs of 4 MiB " in made.version
    known = ZSTD_SAMPLE_BEFORE.get(zstandard.ZSTD_VERSION)
    assert before != made.version
    assert known is None or before == f"zstd 1.5.7 level 3 {known[:16]}"
    assert all(not codec(mode).earlier for mode in MODES if mode != "zstd")


@pytest.mark.parametrize("mode", MODES)
def test_a_version_names_library_level_and_what_it_makes_of_the_sample(mode: CompressMode) -> None:
    found = codec(mode)
    if mode == "none":
        assert found.version == ""
    else:
        assert found.version.endswith(f" {sample_becomes(found.begin)[:16]}")
        assert " level " in found.version
    # Only where the output depends on the processor is a machine's kind in it.
    assert (platform.machine() in found.version) is (mode == "gzip")


def test_no_two_modes_share_a_version() -> None:
    assert len({codec(mode).version for mode in MODES}) == len(MODES)


def test_where_zlib_ng_makes_other_bytes_there_is_no_gzip_portable() -> None:
    with pytest.raises(UsageError) as caught:
        made_of("gzip-portable", "zlib-ng 2.1.5 level 2", GZIP_LAYER, zlib_at(1))
    assert caught.value.exit_code == 2
    said = str(caught.value)
    assert said.startswith("gzip-portable can't be had here: zlib-ng 2.1.5 level 2 compresses otherwise")
    assert said.endswith("or take --compress gzip")


@pytest.mark.parametrize(
    "words",
    [
        ["copy", "docker-archive:a.tar", "oci:out"],
        ["sync", "--from", "docker-archive:a.tar", "--to", "oci:out", "--images", "-"],
        ["load", "a.tar", "--to", "oci:out"],
        ["inspect", "docker-archive:a.tar"],
    ],
)
def test_a_run_that_can_not_have_it_ends_before_it_begins(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.tar", podman_entries({"app:1": (LAYER,)}))
    monkeypatch.setattr("blobflow.transports.compression.compressors.PORTABLE_SAMPLE", "another")
    codec.cache_clear()
    result = CliRunner().invoke(cli, [*words, "--compress", "gzip-portable"], input="app:1")
    assert result.exit_code == 2, result.output
    assert "gzip-portable can't be had here: zlib-ng " in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_word_that_is_no_mode_is_told_the_four() -> None:
    with pytest.raises(UsageError, match="'lz4' is no way to compress; it is gzip, gzip-portable, zstd or"):
        codec("lz4")


# a store that machines share


class Fleet:
    """Machines with one store. By name their library is the same; by processor it compresses otherwise."""

    def __init__(self, root: Path) -> None:
        self.store = Store.open(root / "store")
        self.begun = 0

    def machine(self, level: int) -> Codec:
        def begin() -> Compressor:
            self.begun += 1
            return zlib_at(level)()

        made = made_of("gzip", "isal 1.9.1 level 2", GZIP_LAYER, begin)
        self.begun = 0  # without the sample
        return made

    async def digest_at(self, machine: Codec, path: Path) -> tuple[str, int]:
        """What the archive's layer is there, and how many layers were compressed to know it."""
        importer = Importer(self.store, machine)
        archive = ArchiveSource(Site(f"docker-archive:{path}", ""), self.store, importer, HostMeter())
        before = self.begun
        try:
            [layer] = parse_manifest(await archive.read(await archive.resolve(""))).layers
            async with archive.open(layer) as chunks:
                assert digest(await collect(chunks)) == layer.digest
        finally:
            archive.close()
            importer.close()
        return layer.digest, self.begun - before


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.store.close()


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.zst"])
async def test_a_machine_does_not_take_what_another_kind_of_machine_made(
    fleet: Fleet, tmp_path: Path, form: str
) -> None:
    path = write(tmp_path / "a", podman_entries({"app:1": (LAYER,)}), form)
    one, twin, other = fleet.machine(1), fleet.machine(1), fleet.machine(9)
    assert one.version == twin.version != other.version
    made, begun = await fleet.digest_at(one, path)
    assert begun == 1
    assert await fleet.digest_at(twin, path) == (made, 0)
    elsewhere, begun = await fleet.digest_at(other, path)
    assert (elsewhere != made, begun) == (True, 1)
    # And each has its own still, whoever came last.
    assert await fleet.digest_at(one, path) == (made, 0)
    assert await fleet.digest_at(other, path) == (elsewhere, 0)


async def test_what_an_earlier_blobflow_recorded_is_not_taken_for_this_machine_s(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Its name for a codec did not tell processors apart, so it may be any machine's."""
    path = write(tmp_path / "a", podman_entries({"app:1": (LAYER,)}))
    made, _ = await fleet.digest_at(fleet.machine(9), path)
    size = fleet.store.blobs.size_of(Digest(made))
    assert size is not None
    ImportCache(fleet.store).record_layer(Digest(digest(LAYER)), "isal 1.9.1 level 2", Digest(made), size)
    assert (await fleet.digest_at(fleet.machine(1), path))[1] == 1


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.zst"])
async def test_what_a_store_remembers_of_an_earlier_way_keeps_its_digest(
    fleet: Fleet, tmp_path: Path, form: str
) -> None:
    """And what is new to it is compressed as now, in the same image and in the next."""
    old, other = LAYER, layer_of("new")
    path = write(tmp_path / "old", podman_entries({"app:1": (old,)}), form)
    earlier, now = fleet.machine(9), fleet.machine(1)
    now = msgspec.structs.replace(now, earlier=(earlier.version,))
    made, _ = await fleet.digest_at(earlier, path)
    assert (await fleet.digest_at(now, path))[0] == made
    both = write(tmp_path / "both", podman_entries({"app:2": (old, other)}), form)
    importer = Importer(fleet.store, now)
    archive = ArchiveSource(Site(f"docker-archive:{both}", ""), fleet.store, importer, HostMeter())
    layers = parse_manifest(await archive.read(await archive.resolve(""))).layers
    archive.close()
    importer.close()
    assert [layer.digest for layer in layers] == [made, digest(packed_by(now.begin, other, MIB))]
    # Where nothing is remembered the digest is the new one.
    alone = Fleet(tmp_path / "alone")
    assert (await alone.digest_at(now, path))[0] == digest(packed_by(now.begin, old, MIB))
    alone.store.close()


# the command line


@pytest.mark.parametrize(
    "words",
    [
        "copy",
        "sync",
        "plan",
        "apply",
        "load",
        "save",
        "export",
        "verify",
        "inspect",
        "index create",
        "index push",
    ],
)
def test_every_verb_that_may_read_a_docker_archive_takes_every_mode(words: str) -> None:
    said = CliRunner().invoke(cli, [*words.split(), "--help-all"]).output
    assert "--compress [gzip|gzip-portable|zstd|none]" in said


def test_the_same_archive_has_the_same_digest_wherever_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    source = f"docker-archive:{write(tmp_path / 'a.tar', podman_entries({'app:1': (LAYER,)}))}"

    def said(*words: str) -> str:
        result = CliRunner().invoke(cli, [*words, "--compress", "gzip-portable"])
        assert result.exit_code == 0, result.output
        return result.stdout

    manifest = said("inspect", source, "--raw")
    assert manifest.count(PORTABLE["layer"]) == 1
    image = digest(manifest.encode())
    digest_file = str(tmp_path / "digest")
    said("copy", source, f"oci:{tmp_path}/out:app", "--digestfile", digest_file)
    assert Path(digest_file).read_text() == image
    said("index", "create", f"oci:{tmp_path}/out:list", source)
    said("index", "push", f"oci:{tmp_path}/out:list")
    assert image in said("inspect", f"oci:{tmp_path}/out:list", "--raw")
