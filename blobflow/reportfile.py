"""Report files: reads a report that an earlier run wrote as JSON, from whoever gives it."""

from __future__ import annotations

import codecs
import re
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from blobflow.engine.results.report import Report, RunRecord
from blobflow.errors import DamagedFile, ForeignFile, InvalidConfig

REPORT_VERSION = 1
# Bytes. An image takes about 500, and 200 for each of its referrers.
MAX_REPORT_BYTES = 512 * 1024 * 1024
# How a report begins, whatever its white space: what does so and is no JSON was cut or spoilt.
_BEGINNING = re.compile(rb'\s*\{\s*"totals"\s*:')
_GIVE = "give what `--report FILE.json` wrote"


class _Head(msgspec.Struct, frozen=True):
    version: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    totals: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    price: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def load_report(content: bytes, name: str) -> Report:
    """The report in a file. `name` is the file's, for messages.

    What later versions have added is passed over, and so is a byte order mark; times are made UTC. Raises
    with one sentence: ForeignFile for what is no report, DamagedFile for one that was cut or spoilt,
    InvalidConfig for one of a version that would be misread, or that says what no run can have done.
    """
    if len(content) > MAX_REPORT_BYTES:
        raise InvalidConfig(f"{name} has more than the {MAX_REPORT_BYTES} bytes that a report may")
    content = content.removeprefix(codecs.BOM_UTF8)
    start = content[:200].lstrip().lower()
    if start.startswith(b"<"):
        raise ForeignFile(f"{name} is a page or XML, not a JSON report; {_GIVE}")
    try:
        head = msgspec.json.decode(content, type=_Head)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        if _BEGINNING.match(content):
            raise DamagedFile(f"{name} is not as it was written, but cut or spoilt: {error}") from None
        raise ForeignFile(f"{name} is not a report of blobflow: {error}; {_GIVE}") from None
    if head.totals is msgspec.UNSET:
        plan = "; it is what `plan --json` prints" if head.price is not msgspec.UNSET else ""
        raise ForeignFile(f"{name} is not a report of a run{plan}; {_GIVE}")
    if head.version > REPORT_VERSION:
        raise InvalidConfig(
            f"{name} is a report of version {head.version}, by a newer blobflow; this one reads version "
            f"{REPORT_VERSION}"
        )
    try:
        report = msgspec.json.decode(content, type=Report)
        return msgspec.structs.replace(report, run=_in_utc(report.run))
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidConfig(f"{name} is no report that a run can have written: {error}") from None


def _in_utc(run: RunRecord) -> RunRecord:
    """The run with its times in UTC; one without an offset is taken for that."""
    return msgspec.structs.replace(run, started=_utc(run.started), ended=_utc(run.ended))


def _utc(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
