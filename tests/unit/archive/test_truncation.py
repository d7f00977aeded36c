"""An archive that was cut anywhere is never taken for a smaller one: no verb ends well with less than all."""

from __future__ import annotations

import asyncio
import gzip
import json
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import zstandard
from click.testing import CliRunner, Result

from blobflow import cli
from blobflow.errors import BlobflowError, StorageError
from blobflow.oci import media
from blobflow.transports.archive.contents import Contents, ContentsBuilder, pieces, scan
from blobflow.transports.archive.tar_input import FileInput, stream_input
from blobflow.transports.archive.tar_reader import BLOCK, END, header_of, padding
from blobflow.transports.compression.detection import decompressor_for
from tests.fakes.archives import PACKERS, config_of, digest, tar_of

NAME = "docker.io/team/app:1"
LAYER = tar_of([("etc/name", b"app")])[: 3 * BLOCK]  # without the end of a tar, as umoci writes layers
ARCHITECTURES = ("amd64", "arm64")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    yield
    asyncio.set_event_loop(None)


def described(content: bytes, kind: str, **more: object) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(content), "size": len(content), **more}


def oci_files() -> dict[str, bytes]:
    """Two platforms, index.json in front: without its last entries the archive is one of one platform."""
    blobs, children = {digest(LAYER): LAYER}, []
    for architecture in ARCHITECTURES:
        config = config_of(LAYER, architecture=architecture)
        layers = [described(LAYER, "application/vnd.oci.image.layer.v1.tar")]
        manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST}
            | {"config": described(config, media.OCI_CONFIG), "layers": layers}
        ).encode()
        platform = {"os": "linux", "architecture": architecture}
        children.append(described(manifest, media.OCI_MANIFEST, platform=platform))
        blobs |= {digest(config): config, digest(manifest): manifest}
    root = json.dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": children}).encode()
    names = {"org.opencontainers.image.ref.name": NAME}
    entries = [described(root, media.OCI_INDEX, annotations=names)]
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    blobs = {digest(root): root} | blobs
    files = {f"blobs/{name.replace(':', '/')}": content for name, content in blobs.items()}
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index} | files


def docker_files() -> dict[str, bytes]:
    """Two images, and behind them what nobody asks for: without it the archive would do as well."""
    configs = {f"{arch}.json": config_of(LAYER, architecture=arch) for arch in ARCHITECTURES}
    listed = [
        {"Config": path, "RepoTags": [f"team/{path[:-5]}:1"], "Layers": ["layer.tar"]} for path in configs
    ]
    return {"manifest.json": json.dumps(listed).encode(), **configs, "layer.tar": LAYER, "readme": b"hello"}


FILES = {"oci-archive": oci_files(), "docker-archive": docker_files()}
ENTRIES = {
    kind: b"".join(header_of(path, len(raw)) + raw + padding(len(raw)) for path, raw in files.items())
    for kind, files in FILES.items()
}
LOADED = {"oci-archive": {"team/app:1"}, "docker-archive": {"team/amd64:1", "team/arm64:1"}}
KINDS = list(FILES)


def run(*arguments: str | Path, given: bytes | None = None) -> Result:
    return CliRunner().invoke(cli.cli, list(map(str, arguments)), input=given)


def put_names(layout: Path) -> dict[str, list[Any]]:
    """The names in a layout, each with the platforms of its index."""
    path = layout / "index.json"
    found = {}
    for entry in json.loads(path.read_bytes())["manifests"] if path.exists() else ():
        raw = (layout / "blobs" / entry["digest"].replace(":", "/")).read_bytes()
        platforms = [each["platform"]["architecture"] for each in json.loads(raw)["manifests"]]
        found[entry["annotations"]["org.opencontainers.image.ref.name"]] = platforms
    return found


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_that_is_cut_at_a_block_is_loaded_whole_or_not_at_all(
    tmp_path: Path, kind: str, packed: str
) -> None:
    """At every block of it; where it is packed, as who cut it had packed it afterwards."""
    whole = ENTRIES[kind] + END
    platforms = {name: list(ARCHITECTURES) for name in LOADED[kind]}
    if kind == "docker-archive":
        platforms = {name: [name[5:-2]] for name in LOADED[kind]}
    ended_well = []
    for blocks in range(1, len(whole) // BLOCK + 1):
        path, out = tmp_path / "a", tmp_path / f"out-{blocks}"
        path.write_bytes(PACKERS[packed](whole[: blocks * BLOCK]))
        result = run("load", f"{kind}:{path}", "--to", f"oci:{out}")
        assert result.exit_code in (0, 8), result.output
        if result.exit_code == 0:
            assert put_names(out) == platforms
            ended_well.append(blocks)
        else:
            assert "is cut off" in result.stderr
            assert not out.exists()
    assert ended_well == [len(whole) // BLOCK - 1, len(whole) // BLOCK]  # one block of zeros is enough


def looked_through(content: bytes) -> Contents:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return scan(FileInput(file.fileno(), "a.tar"))


def read_once(content: bytes) -> set[str]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        file.seek(0)
        tape = stream_input(file.fileno(), "a.tar")
        return {piece.member.path for piece in pieces(tape, ContentsBuilder("a.tar"))}


def test_an_archive_that_is_cut_within_a_block_is_told() -> None:
    whole, entries = ENTRIES["oci-archive"] + END, len(ENTRIES["oci-archive"])
    for length in [*range(1, len(whole), 100), *range(entries - 3, entries + BLOCK)]:
        for read in (looked_through, read_once):
            if length >= entries + BLOCK:
                read(whole[:length])
                continue
            with pytest.raises(BlobflowError, match=r"is cut off|is not a tar"):
                read(whole[:length])


@pytest.mark.parametrize("packed", ["tar.gz", "tar.zst"])
def test_a_packed_archive_that_is_cut_anywhere_is_told(packed: str) -> None:
    """Also where the end of the tar came through, and all that lacks is a checksum."""
    whole = PACKERS[packed](ENTRIES["oci-archive"] + END)
    assert read_once(whole) == set(FILES["oci-archive"])
    for length in range(8, len(whole)):
        with pytest.raises(StorageError, match="is cut off"):
            read_once(whole[:length])


@pytest.mark.parametrize("packed", ["tar.gz", "tar.zst"])
def test_several_members_or_frames_are_one_archive_and_none_may_be_missing(packed: str) -> None:
    content, pack = ENTRIES["docker-archive"] + END[:BLOCK], PACKERS[packed]
    parts = [pack(content[start : start + 1000]) for start in range(0, len(content), 1000)]
    assert read_once(b"".join(parts)) == set(FILES["docker-archive"])
    for kept in range(1, len(parts)):
        with pytest.raises(StorageError, match="is cut off"):
            read_once(b"".join(parts[:kept]))


SINCE_DOCKERS = ("save since", "docker-archive")  # refused, whole or not
COMMANDS = {
    "load": ("load", "{place}", "--to", "oci:{out}"),
    "copy": ("copy", "{place}:@0", "oci:{out}:1"),
    "inspect": ("inspect", "{place}:@0"),
    "sync": ("sync", "--from", "{place}", "--to", "oci:{out}", "--images", "{list}"),
    "plan": ("plan", "--from", "{place}", "--to", "oci:{out}", "--images", "{list}"),
    "export": ("export", "{place}:@0", "--output", "type=tar,dest={out}"),
    SINCE_DOCKERS[0]: (
        "save",
        "--from",
        "oci:{out}-x",
        "--images",
        "{list}",
        "-o",
        "{out}",
        "--since",
        "{place}",
    ),
}


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize(
    ("command", "kind"),
    [(command, kind) for command in COMMANDS for kind in KINDS if (command, kind) != SINCE_DOCKERS],
)
def test_no_verb_takes_a_cut_archive(tmp_path: Path, command: str, kind: str, packed: str) -> None:
    path, listed = tmp_path / "a", tmp_path / "list"
    listed.write_text("\n".join(sorted(LOADED[kind])))
    last = list(FILES[kind].items())[-1][1]
    for lost in (0, BLOCK + len(last) + len(padding(len(last)))):  # its end alone, or with the last entry
        path.write_bytes(PACKERS[packed](ENTRIES[kind][: len(ENTRIES[kind]) - lost]))
        places = {"place": f"{kind}:{path}", "out": str(tmp_path / "out"), "list": str(listed)}
        result = run(*(word.format(**places) for word in COMMANDS[command]))
        assert result.exit_code != 0, result.output
        assert "is cut off" in result.output
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_one_archive_and_what_lies_behind_it_is_not_passed_over(kind: str) -> None:
    entries, other = ENTRIES[kind], header_of("more", 0)
    assert looked_through(entries + END + bytes(100_000)).files
    assert read_once(gzip.compress(entries + END) + bytes(2000)) == set(FILES[kind])
    for content, words in {
        entries + bytes(BLOCK) + other + END: "has zeros, and more behind",
        entries + END + other + END: "something behind its end",
        entries + END + bytes(3_000_000) + b"x": "something behind its end",
    }.items():
        for read in (looked_through, read_once):
            with pytest.raises(StorageError, match=words):
                read(content)
        with pytest.raises(StorageError, match=words):
            read_once(gzip.compress(content))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_header_that_announces_an_entry_is_not_the_end(form: Literal[1, 2]) -> None:
    entry = tarfile.TarInfo("n" * 200)
    announced = len(entry.tobuf(form)) - BLOCK
    for content in (entry.tobuf(form)[:announced], entry.tobuf(form)[:announced] + END):
        for read in (looked_through, read_once):
            with pytest.raises(StorageError, match="is cut off"):
                read(header_of("first", 0) + content)


# Every decompressor demands the end of what it inflates

INPUT = bytes(range(256)) * 5_000 + bytes(2_000_000)


def _frames(content: bytes, **more: Any) -> bytes:
    return zstandard.ZstdCompressor(**more).compress(content)


def _streamed(content: bytes) -> bytes:
    made = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return made.compress(content) + made.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) + made.flush()


SMALL = zstandard.ZstdCompressionParameters(window_log=10)
SKIPPABLE = b"\x5a\x2a\x4d\x18\x05\x00\x00\x00hello"
STREAMS = {
    "gzip": gzip.compress(INPUT),
    "gzip, stored": gzip.compress(INPUT[:200_000], 0) + gzip.compress(INPUT[200_000:]),
    "zstd": _frames(INPUT),
    "zstd without a size": _frames(INPUT, write_content_size=False, write_checksum=True),
    "zstd, streamed": _streamed(INPUT),
    "zstd, a small window": _frames(INPUT, compression_params=SMALL),
    "zstd with other frames": _frames(INPUT[:5]) + SKIPPABLE + _frames(INPUT[5:], level=1) + SKIPPABLE,
    "zstd, an empty frame": _frames(INPUT) + _frames(b""),
}


def inflated(content: bytes, step: int, *, padded: bool = False) -> bytes:
    inflater = decompressor_for(content[:6], "x", padded=padded)
    assert inflater is not None
    found = []
    for start in range(0, len(content), step):
        for piece in inflater.decompress(content[start : start + step]):
            assert 0 < len(piece) <= 1024 * 1024
            found.append(piece)
    inflater.finish()
    return b"".join(found)


@pytest.mark.parametrize("step", [7, 4096, 100_000_000])
@pytest.mark.parametrize("stream", STREAMS)
def test_whatever_is_whole_is_inflated_however_it_comes(stream: str, step: int) -> None:
    content = STREAMS[stream]
    if len(content) < 100_000 or step > 7:
        assert inflated(content, step) == INPUT


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_that_stops_early_is_cut_off(stream: str) -> None:
    """Where no frame or member ends; behind one the rest is missed by who reads the tar."""
    content = STREAMS[stream]
    ends = {len(content)}
    if stream in ("gzip, stored", "zstd with other frames", "zstd, an empty frame"):
        ends |= {len(_frames(INPUT[:5])), len(_frames(INPUT[:5])) + len(SKIPPABLE)}
        ends |= {len(gzip.compress(INPUT[:200_000], 0)), len(_frames(INPUT)), len(content) - len(SKIPPABLE)}
    for length in range(6, len(content), 1 + len(content) // 300):
        if length not in ends:
            with pytest.raises(StorageError, match="is cut off"):
                inflated(content[:length], 1000)


@pytest.mark.parametrize("stream", ["gzip", "zstd", "zstd with other frames"])
def test_behind_a_stream_there_is_nothing_or_padding_where_that_is_taken(stream: str) -> None:
    content = STREAMS[stream]
    assert inflated(content + bytes(5000), 999, padded=True) == INPUT
    for more, padded in ((bytes(10), False), (b"junk", False), (b"junk", True), (bytes(600) + content, True)):
        with pytest.raises(StorageError, match=r"has something behind its (gzip|zstd) stream"):
            inflated(content + more, 500, padded=padded)
