"""The entries of a request that have a time of their own, for a daemon that keeps each. Pure."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from blobflow.cli.inputs.requests import MirrorRequest
from blobflow.cli.runtime.cron import Schedule
from blobflow.errors import UsageError
from blobflow.file_errors import FileErrors
from blobflow.printable import first_of

_SHOWN = 3  # entries


def check_times(request: MirrorRequest, name: str) -> list[Schedule]:
    """The schedules of the entries of the file `name`, each once.

    Raises UsageError if no entry has one, or one can't be read.
    """
    errors = FileErrors()
    for sentence in request.unread_schedules:
        errors.add(UsageError(sentence))
    errors.check()
    schedules = list(dict.fromkeys(each.schedule for each in request.images if each.schedule is not None))
    if not schedules:
        raise UsageError(
            f"{name} says of no entry when it is due; add `every: 6h` or `schedule: '0 3 * * *'` (in"
            " regsync.yml `interval` or `schedule`), or give --every a span of time as 6h"
        )
    return schedules


def untimed_warnings(request: MirrorRequest) -> tuple[str, ...]:
    """A sentence that lists the entries without a time, which are never due."""
    untimed = list(dict.fromkeys(image.where for image in request.images if image.schedule is None))
    if not untimed:
        return ()
    shown = first_of(untimed, _SHOWN)
    return (f"not mirrored, since there is no time for them (`every` or `schedule`): {shown}",)


def due_part(request: MirrorRequest, due: Collection[Schedule]) -> MirrorRequest:
    """The part of a request whose schedules are due."""
    images = tuple(image for image in request.images if image.schedule in due)
    return msgspec.structs.replace(request, images=images)
