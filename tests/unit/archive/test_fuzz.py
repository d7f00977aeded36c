"""Archives that hypothesis spoils: whatever is in them, an error of ours and nothing else comes out."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import zstandard
from hypothesis import given
from hypothesis import strategies as st

from blobflow.errors import BlobflowError
from blobflow.transports.archive.contents import Contents, ContentsBuilder, pieces, scan
from blobflow.transports.archive.docker_manifest import diff_ids
from blobflow.transports.archive.manifest_json import parse_manifest_json
from blobflow.transports.archive.tar_input import FileInput, stream_input
from blobflow.transports.archive.tar_reader import header_of, padding

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=120)


def tar_of(files: dict[str, bytes], form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


@contextmanager
def file_with(content: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        file.seek(0)
        yield file.fileno()


def read_plainly(content: bytes) -> Contents:
    with file_with(content) as fd:
        return scan(FileInput(fd, "a.tar"))


def read_once(content: bytes) -> dict[str, bytes]:
    """All files with their content, from a stream."""
    with file_with(content) as fd:
        tape = stream_input(fd, "a.tar")
        found: dict[str, bytes] = {}
        for piece in pieces(tape, ContentsBuilder("a.tar")):
            found[piece.member.path] = found.get(piece.member.path, b"") + piece.block
        return found


@given(
    st.dictionaries(NAMES.filter(lambda name: name not in (".", "..")), st.binary(max_size=2000), min_size=1),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.sampled_from([bytes, gzip.compress, zstandard.compress]),
)
def test_what_the_standard_library_writes_is_read_in_every_form(
    files: dict[str, bytes], form: int, packed: type[bytes]
) -> None:
    content = tar_of(files, form)
    assert read_once(packed(content)) == files
    contents = read_plainly(content)
    found = {
        path: content[stored.offset or 0 : (stored.offset or 0) + stored.size]
        for path, stored in contents.files.items()
    }
    assert found == files


@given(st.dictionaries(st.from_regex(r"blobs/sha512/[0-9a-f]{128}", fullmatch=True), st.binary(), min_size=1))
def test_what_we_write_is_read_by_the_standard_library(files: dict[str, bytes]) -> None:
    parts = [header_of(path, len(each)) + each + padding(len(each)) for path, each in files.items()]
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts) + bytes(1024))) as tar:
        assert tar.getnames() == list(files)
    assert read_once(b"".join(parts) + bytes(1024)) == files


GOOD = tar_of({"a" * 150: b"x" * 700, "manifest.json": b"[]", "index.json": b"{}"}, tarfile.PAX_FORMAT)


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=8),
    st.integers(0, len(GOOD)),
    st.sampled_from([bytes, gzip.compress, zstandard.compress]),
    st.booleans(),
)
def test_a_spoilt_archive_is_read_or_refused(
    changes: list[tuple[int, int]], length: int, packed: type[bytes], cut: bool
) -> None:
    content = bytearray(GOOD)
    for place, value in changes:
        content[place] = value
    whole = packed(bytes(content))
    for read in (read_once, read_plainly):
        try:
            read(whole[:length] if cut else whole)
        except BlobflowError as error:
            assert "\n" not in str(error)


@given(st.binary(max_size=3000))
def test_anything_is_read_or_refused(content: bytes) -> None:
    for head in (b"", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd"):
        for read in (read_once, read_plainly):
            try:
                read(head + content)
            except BlobflowError as error:
                assert "\n" not in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Config", "Layers", "RepoTags", "rootfs", "diff_ids", "x"]), inner)
    ),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=3) | JSON, st.binary(max_size=200), st.booleans())
def test_lists_and_configs_are_read_or_refused(document: object, junk: bytes, whole: bool) -> None:

    raw = json.dumps(document).encode() if whole else junk
    try:
        for image in parse_manifest_json(raw, "a.tar"):
            assert not image.config.startswith("/")
    except BlobflowError:
        pass
    try:
        diff_ids(raw, 1, "a config")
    except BlobflowError:
        pass
