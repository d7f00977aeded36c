"""Detects which kind an archive is from its first entries.

`docker save` of today writes an OCI layout with docker's manifest.json, and so do we. Where its layers lie
bare, as docker without containerd's image store writes them, it is docker's: its layers get compressed on the
way, and its images have no digest that anyone knows. Where they are compressed, or we wrote it, it is an OCI
archive, and its digests stay.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from blobflow.errors import NoSuchFile, UnsupportedContent, UsageError
from blobflow.oci.local_reference import DOCKER_ARCHIVE, OCI_ARCHIVE
from blobflow.transports.archive.importer import is_tar
from blobflow.transports.archive.manifest_json import MANIFEST_JSON, REPOSITORIES
from blobflow.transports.archive.tar_input import FileInput, begins_compressed, stream_input
from blobflow.transports.archive.tar_reader import TarInput, members
from blobflow.transports.compression.formats import is_compressed
from blobflow.transports.files import open_to_read
from blobflow.transports.layout.index_json import digest_in_path

_MARKER = "oci-layout"
_OF_EITHER = frozenset({MANIFEST_JSON, REPOSITORIES, "index.json", _MARKER})
_HEAD = 512


def detect_transport(path: Path) -> str:
    """The transport's word for the archive at `path`; in a thread. Only as much is read as has to be.

    Raises NoSuchFile, StorageError, UnsupportedContent for what is no tar, and UsageError for pipes.
    """
    try:
        fd = open_to_read(path)
    except FileNotFoundError:
        raise NoSuchFile(f"there is no archive {path}") from None
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise UnsupportedContent(f"{path} is a folder, not an archive; a layout is oci:{path}")
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(
                f"{path} can be read only once; pipe it in and write `-` for it, or say what it is: "
                "oci-archive:… or docker-archive:…"
            )
        return transport_of_open(fd, str(path))
    finally:
        os.close(fd)


def transport_of_open(fd: int, name: str) -> str:
    """As `detect_transport`, of an open file that can be read anywhere; `name` is for messages. The file is
    left where it was."""
    start = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        return _kind(stream_input(fd, name) if begins_compressed(fd, name) else FileInput(fd, name))
    finally:
        os.lseek(fd, start, os.SEEK_SET)


def _kind(tar: TarInput) -> str:
    """Of a compressed archive bare layers decide at once, and so do files that no layout has; an open one is
    cheap to look through to its end."""
    found: set[str] = set()
    first, bare, strange = True, False, False
    for member in members(tar):
        if member.kind != "file":
            continue
        if member.path == _MARKER and first:
            return OCI_ARCHIVE  # as we begin it, and nobody else does
        first = False
        if digest_in_path(member.path) is None:
            if member.path in _OF_EITHER:
                found.add(member.path)
            elif isinstance(tar, FileInput):
                strange = True
            else:
                return DOCKER_ARCHIVE
            continue
        head = tar.read(min(_HEAD, member.size))
        if is_compressed(head):
            return OCI_ARCHIVE
        bare = bare or is_tar(head)
        if bare and not isinstance(tar, FileInput):
            return DOCKER_ARCHIVE
    dockers = "index.json" not in found or (MANIFEST_JSON in found and (bare or strange))
    return DOCKER_ARCHIVE if dockers else OCI_ARCHIVE
