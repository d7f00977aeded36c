"""The archives that a command is given, and how they are opened together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from blobflow.content import Site
from blobflow.engine.services import Services
from blobflow.oci import Platform
from blobflow.transports.archive import ArchiveSource
from blobflow.transports.archive.parts import absent_parts, run_text

_LACKING = (
    "of a bundle in parts give all of them, and with one that was saved --since another give that one as well"
)


class ArchiveInput(msgspec.Struct, frozen=True):
    """One archive: `label` is what it is called in messages, `place` its transport and path, and `platform`
    the platform of its images where their configs are known to be wrong."""

    label: str
    place: str
    platform: Platform | None = None


def lacking(inputs: Iterable[ArchiveInput]) -> str:
    """What is to be said of content that none of the archives has: which parts of them are absent, if their
    names tell, else what can be the reason."""
    absent = absent_parts(Path(item.label) for item in inputs)
    if not absent:
        return _LACKING
    named = ", ".join(run_text(*run) for run in absent)
    return f"of a bundle in parts give all of them; not given: {named}"


def archive_of(services: Services, item: ArchiveInput) -> ArchiveSource:
    """The archive that an input names."""
    source = services.source_at(Site(item.place, ""))
    assert isinstance(source, ArchiveSource), "inputs are archives"
    return source


def archives_of(services: Services, inputs: Iterable[ArchiveInput]) -> list[ArchiveSource]:
    """The archives that inputs name, which may be parts of one bundle."""
    archives = [archive_of(services, item) for item in inputs]
    for archive in archives:
        archive.read_with(archives)
    return archives
