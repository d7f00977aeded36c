"""Report files: reads a report that an earlier run wrote as JSON, from whoever gives it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from blobflow.engine.results.report import Report
from blobflow.errors import InvalidConfig

REPORT_VERSION = 1
# Bytes. An image takes about 500, and 200 for each of its referrers.
MAX_REPORT_BYTES = 512 * 1024 * 1024
_GIVE = "give what `--report FILE.json` wrote"


class _Head(msgspec.Struct, frozen=True):
    version: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    totals: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    price: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def load_report(content: bytes, name: str) -> Report:
    """The report in a file. `name` is the file's, for messages.

    What later versions have added is passed over. Raises InvalidConfig with one sentence for what is no
    report, or of a version that would be misread.
    """
    if len(content) > MAX_REPORT_BYTES:
        raise InvalidConfig(f"{name} has more than the {MAX_REPORT_BYTES} bytes that a report may")
    start = content[:200].lstrip().lower()
    if start.startswith(b"<"):
        raise InvalidConfig(
            f"{name} is a page or XML, not a JSON report; give what `--report FILE.json` wrote"
        )
    try:
        head = msgspec.json.decode(content, type=_Head)
        if head.version > REPORT_VERSION:
            raise InvalidConfig(
                f"{name} is a report of version {head.version}, by a newer blobflow; this one reads version "
                f"{REPORT_VERSION}"
            )
        if head.totals is msgspec.UNSET:
            plan = "; it is what `plan --json` prints" if head.price is not msgspec.UNSET else ""
            raise InvalidConfig(
                f"{name} is not a report of a run{plan}; give what `--report FILE.json` wrote"
            )
        return msgspec.json.decode(content, type=Report)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidConfig(f"{name} is not a report of blobflow: {error}") from None
