"""What registries make of uploads that is not to be expected, and what comes of it. See `test_faults`.

Sessions that are gone or stuck, refused mounts, refused forms, and what is said of the size of chunks.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from blobflow.transports.registry import Profile
from tests.scenarios.fault_rows import (
    CHUNKED,
    COMMIT,
    QUIET_CHUNKED,
    QUIET_STREAM,
    STREAM,
    UPLOADS,
    Failure,
    Row,
    expected,
    filled,
    play,
)
from tools.registry.faulty import (
    DropHeader,
    Fault,
    ForgetSession,
    RefuseMount,
    Reset,
    SetHeader,
    Status,
)

__all__ = ["filled"]


SESSIONS = [
    Row(
        "a session forgotten before the PUT",
        target=(Fault("PUT", COMMIT, act=ForgetSession()),),
        more="blob+1 | POST+1 PUT+1 cancel+1 has+1",
    ),
    Row(
        "a session forgotten before the PATCH",
        target=(Fault("PATCH", "", act=ForgetSession()),),
        profile=STREAM,
        quiet=QUIET_STREAM,
        more="| PATCH+4 POST+1 cancel+1 has+1",
    ),
    Row(
        "a session forgotten between chunks",
        target=(Fault("PATCH", "", nth=2, act=ForgetSession()),),
        profile=CHUNKED,
        quiet=QUIET_CHUNKED,
        more="| PATCH+2 POST+1 cancel+1",
    ),
    Row(
        "a session forgotten before the commit",
        target=(Fault("PUT", COMMIT, act=ForgetSession()),),
        profile=STREAM,
        quiet=QUIET_STREAM,
        more="blob+1 | PATCH+1 POST+1 PUT+1 cancel+1 has+1",
    ),
    Row(
        "sessions forgotten again and again",
        target=(Fault("PUT", COMMIT, times=0, act=ForgetSession()),),
        fails=Failure("NotFound", "target", 5, 1),
        heals=False,
        more="HEAD-1 blob+3 | HEAD-1 POST+3 PUT+3 cancel+4 has+4 manifest-2",
    ),
    Row(
        "a stuck Range",
        target=(
            Fault("PATCH", "", nth=3, act=Reset(after=100)),
            Fault("GET", UPLOADS, times=0, act=SetHeader("Range", "0-9999")),
        ),
        profile=CHUNKED,
        quiet=QUIET_CHUNKED,
        more="| PATCH+17 POST+1 cancel+1 status+2",
    ),
    Row(
        "a Range beyond the blob",
        target=(
            Fault("PATCH", "", nth=3, act=Reset(after=100)),
            Fault("GET", UPLOADS, times=0, act=SetHeader("Range", "0-999999999")),
        ),
        profile=CHUNKED,
        quiet=QUIET_CHUNKED,
        more="| PATCH+3 POST+1 cancel+1 status+1",
    ),
    Row(
        "a Range without sense",
        target=(
            Fault("PATCH", "", nth=3, act=Reset(after=100)),
            Fault("GET", UPLOADS, times=0, act=SetHeader("Range", "yes")),
        ),
        profile=CHUNKED,
        quiet=QUIET_CHUNKED,
        more="| PATCH+3 POST+1 cancel+1 status+1",
    ),
    Row(
        "no Range at all",
        target=(
            Fault("PATCH", "", nth=3, act=Reset(after=100)),
            Fault("GET", UPLOADS, times=0, act=DropHeader("Range")),
        ),
        profile=CHUNKED,
        quiet=QUIET_CHUNKED,
        more="| PATCH+3 POST+1 cancel+1 status+1",
    ),
    Row(
        "an upload opened nowhere",
        target=(Fault("POST", UPLOADS, times=0, act=DropHeader("Location")),),
        fails=Failure("ProtocolViolation", "target", 5, 2),
        heals=False,
        more="HEAD-2 blob-6 | HEAD-2 POST+2 PUT-8 manifest-4 mount-2",
    ),
    Row(
        "an upload opened at a metadata address",
        target=(Fault("POST", UPLOADS, times=0, act=SetHeader("Location", "http://169.254.169.254/latest")),),
        fails=Failure("ProtocolViolation", "target", 5, 2),
        heals=False,
        more="HEAD-2 | HEAD-2 POST+2 PUT-8 manifest-4 mount-2",
    ),
]
MOUNTS = [
    Row(
        f"a mount refused by {status}",
        target=(Fault("POST", "mount=", times=0, act=RefuseMount(status)),),
        more="| PUT+2" if status == 202 else "| POST+2 PUT+2",
    )
    for status in (202, 400, 401, 403, 404, 405)
]
# A form is refused once, and not tried again: by some statuses not with the four blobs larger than half
# of the refused one, by the others with none.
OF_SIZE = (400, 413, 416)
FORMS = [
    *(
        Row(
            f"a PUT with the body refused by {status}",
            target=(Fault("PUT", "digest=", act=Status(status)),),
            more=f"| PATCH+{4 if status in OF_SIZE else 8} POST+1 PUT+1 cancel+1"
            + " has+1" * (status == 404),
        )
        for status in (400, 404, 405, 411, 413, 415, 416, 501)
    ),
    *(
        Row(
            f"chunks refused by {status}",
            target=(Fault("PATCH", "", act=Status(status)),),
            profile=Profile("p", ("chunked", "stream"), chunk_bytes=32 * 1024),
            quiet=QUIET_STREAM,
            more="| PATCH+1 POST+1 cancel+1",
        )
        for status in (400, 404, 405, 413, 416)
    ),
    *(
        Row(
            f"a PATCH refused by {status}",
            target=(Fault("PATCH", "", act=Status(status)),),
            profile=Profile("p", ("stream", "single")),
            more=f"| PATCH+{5 if status in OF_SIZE else 1} POST+1 cancel+1" + " has+1" * (status == 404),
        )
        for status in (400, 404, 405, 413)
    ),
    Row(
        "every form refused",
        target=(
            Fault("PUT", "digest=", times=0, act=Status(405)),
            Fault("PATCH", "", times=0, act=Status(405)),
        ),
        fails=Failure("Rejected", "target", 5, 2),
        heals=False,
        more="HEAD-2 blob+12 | HEAD-2 PATCH+20 POST+22 PUT+2 cancel+30 manifest-4 mount-2",
    ),
    Row(
        "chunks have to be large",
        target=(Fault("POST", UPLOADS, times=0, act=SetHeader("OCI-Chunk-Min-Length", "60000")),),
        profile=CHUNKED,
        quiet=QUIET_CHUNKED,
        more="| PATCH-5",
    ),
    Row(
        "chunks have to be larger than memory",
        target=(Fault("POST", UPLOADS, times=0, act=SetHeader("OCI-Chunk-Min-Length", "9999999999999")),),
        profile=CHUNKED,
        quiet=QUIET_CHUNKED,
        more="| PATCH-7",
    ),
    Row(
        "chunks have to be small",
        target=(Fault("POST", UPLOADS, times=0, act=SetHeader("OCI-Chunk-Max-Length", "10000")),),
        more="| PATCH+38",
    ),
]
ROWS = [*SESSIONS, *MOUNTS, *FORMS]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_what_comes_of(row: Row, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await play(row, filled, tmp_path, monkeypatch) == expected(row)
