"""`serve --access-log`: a line a request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from blobflow.cli.figures import one_line, seconds_text
from blobflow.cli.writing import Lines
from blobflow.errors import StorageError, UsageError

if TYPE_CHECKING:
    from blobflow.server import Access

LogForm = Literal["brief", "common", "combined", "json"]


@contextmanager
def access_log(form: LogForm | None, path: Path | None) -> Iterator[Callable[[Access], None] | None]:
    """What writes a line an access, to `path` or to stderr; None: nothing is logged. Raises StorageError."""
    if form is None:
        if path is not None:
            raise UsageError("--access-log-file goes with --access-log; say in which form")
        yield None
        return
    line = line_maker(form)
    if path is None:
        with closing(Lines(sys.stderr.write)) as lines:
            yield lambda access: lines.add(line(access))
        return
    try:
        file = path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise StorageError(f"can't write to {path}: {error.strerror or error}") from None
    with file, closing(Lines(file.write)) as lines:
        yield lambda access: lines.add(line(access))


def line_maker(form: LogForm) -> Callable[[Access], str]:
    from blobflow.server import CommonLog, json_line

    match form:
        case "common" | "combined":
            return CommonLog(combined=form == "combined").line
        case "json":
            return json_line
        case "brief":
            return _brief


def _brief(access: Access) -> str:
    target = f"{access.path}?{access.query}" if access.query else access.path
    return one_line(
        f"{access.remote} {access.method} {target} {access.status} in={access.received} "
        f"out={access.sent} {seconds_text(access.seconds)} {access.user_agent}"
    )
