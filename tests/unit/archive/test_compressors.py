"""What bare layers become: which digests are equal everywhere, and what machines may take from each other."""

from __future__ import annotations

import hashlib
import platform
import zlib
from collections.abc import Iterator
from pathlib import Path

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
ZSTD_SAMPLE = {(1, 5, 7): "9da4219ffee26754eae9c6289be315866d21e7396ec178c271d7992bc774c88d"}


def zlib_at(level: int) -> Begin:
    """Another compressor: what one codec would be on a machine of another kind."""
    return lambda: zlib.compressobj(level, zlib.DEFLATED, 31)


def packed(content: bytes, mode: CompressMode, cut: int) -> bytes:
    compressor = codec(mode).begin()
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
    said = CliRunner().invoke(cli, [*words.split(), "--help"]).output
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
