"""The files that a spec names, found from its own folder."""

from __future__ import annotations

from pathlib import Path

from blobflow.cli.inputs.requests import MirrorRequest, with_policies_in


def with_files_of(request: MirrorRequest, folder: Path) -> MirrorRequest:
    """The request of a spec in that folder: signature policies as paths, and what it collects as images.

    Raises UsageError or InvalidConfig, with file and line of the spec, for what can't be collected.
    """
    request = with_policies_in(request, folder)
    if not request.collect:
        return request
    from blobflow.cli.inputs.collected import with_collected

    return with_collected(request, folder)
