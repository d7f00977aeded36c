"""`serve --access-log`: one line a request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from blobflow.cli.options.serve import LogFormat
from blobflow.cli.output.stdio import BufferedLines
from blobflow.cli.output.units import one_line, seconds_text
from blobflow.errors import StorageError, UsageError

if TYPE_CHECKING:
    from blobflow.server import AccessRecord


@contextmanager
def open_access_log(
    form: LogFormat | None, path: Path | None
) -> Iterator[Callable[[AccessRecord], None] | None]:
    """Gives what writes a line for each access, to `path` or to stderr; None if `form` is None.

    Raises UsageError for a path without a form, StorageError for a file that can't be written.
    """
    if form is None:
        if path is not None:
            raise UsageError("--access-log-file goes with --access-log; say in which form")
        yield None
        return
    line = access_line_formatter(form)
    if path is None:
        with closing(BufferedLines(sys.stderr.write)) as lines:
            yield lambda access: lines.add(line(access))
        return
    try:
        file = path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise StorageError(f"can't write to {path}: {error.strerror or error}") from None
    with file, closing(BufferedLines(file.write)) as lines:
        yield lambda access: lines.add(line(access))


def access_line_formatter(form: LogFormat) -> Callable[[AccessRecord], str]:
    from blobflow.server import CommonLogFormat, json_line

    match form:
        case "common" | "combined":
            return CommonLogFormat(combined=form == "combined").line
        case "json":
            return json_line
        case "brief":
            return _brief_line


def _brief_line(access: AccessRecord) -> str:
    target = f"{access.path}?{access.query}" if access.query else access.path
    return one_line(
        f"{access.remote} {access.method} {target} {access.status} in={access.received} "
        f"out={access.sent} {seconds_text(access.seconds)} {access.user_agent}"
    )
