"""Lists of digests beside bundles: written after one was saved, and read before one is looked into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blobflow.cli.runtime.files import input_name, read_text, write_atomic
from blobflow.errors import UsageError
from blobflow.oci.local_reference import STREAM, path_of
from blobflow.operations.airgap.digest_list import (
    SUFFIX,
    check_digests,
    digest_lines,
    digests_of,
    parse_digest_list,
)

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.operations.airgap.archive_inputs import ArchiveInput


async def write_digest_list(client: Client, bundle: Path, files: Sequence[Path]) -> None:
    """Write the digests of a bundle's files beside it. Raises StorageError."""
    digests = await digests_of(client, files)
    lines = digest_lines(dict(zip((path.name for path in files), digests, strict=True)))
    write_atomic(bundle.with_name(f"{bundle.name}{SUFFIX}"), lines.encode(errors="surrogateescape"))


async def check_digest_list(client: Client, digests: Path | None, inputs: Sequence[ArchiveInput]) -> None:
    """Check archives by a list of digests, if there is one. Raises InvalidConfig, UsageError for what has no
    file's name, and as `check_digests`."""
    if digests is None:
        return
    paths = [path_of(item.place) for item in inputs]
    if STREAM in paths:
        raise UsageError("--digests goes by the names of files, and standard input has none")
    files = [Path(path) for path in paths]
    listed = parse_digest_list(read_text(digests), input_name(digests))
    await check_digests(client, files, listed, input_name(digests))
