"""What goes wrong on the way, and what comes of it: a table of faults, expected outcome, expected requests.

A row for each fault, whatever registry it comes from; `test_quirks` has those that registries are known for.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from blobflow.server.http.bodies import SocketBodyTransport
from blobflow.server.http.listener import Server
from tests.fakes.jumping_clock import lapsing, with_stores
from tests.scenarios.fault_rows import (
    BLOB,
    CHILD,
    CHUNKED,
    COMMIT,
    INDEX,
    QUIET_CHUNKED,
    QUIET_STREAM,
    STREAM,
    TAG,
    UPLOADS,
    Failure,
    Row,
    expected,
    filled,
    play,
)
from tools.registry.faulty import (
    Busy,
    Corrupt,
    Fault,
    ForgetBroken,
    Hangup,
    Ignore,
    LoseAnswer,
    Mute,
    Reset,
    Stall,
    Status,
    Truncate,
)

__all__ = ["filled"]


NOTHING = [
    Row("nothing wrong"),
    Row("nothing wrong, by streams", profile=STREAM, quiet=QUIET_STREAM),
    Row("nothing wrong, by chunks", profile=CHUNKED, quiet=QUIET_CHUNKED),
]
RESETS = [
    Row("reset asking for the tag", (Fault("HEAD", TAG, act=Hangup()),), more="HEAD+1 |"),
    Row("reset answering with a manifest", (Fault("GET", CHILD, act=Reset(after=10)),), more="GET+1 |"),
    Row("reset asking for a blob", (Fault("GET", BLOB, act=Hangup()),), more="blob+1 |"),
    Row("reset before a blob's headers", (Fault("GET", BLOB, act=LoseAnswer()),), more="blob+1 |"),
    Row(
        "reset in a blob",
        (Fault("GET", BLOB, act=Reset(after=20_000)),),
        more="blob+1 | PATCH+1 PUT+1 status+1",
    ),
    Row(
        "a blob that breaks off",
        (Fault("GET", BLOB, act=Truncate(after=20_000)),),
        more="blob+1 | PATCH+1 PUT+1 status+1",
    ),
    Row(
        "reset in a blob twice, and no ranges",
        (
            Fault("GET", BLOB, times=2, act=Reset(after=20_000)),
            Fault("GET", BLOB, times=0, act=Ignore("Range")),
        ),
        more="blob+2 | PATCH+1 PUT+1 status+2",
    ),
    Row(
        "reset in a blob twice, and ranges refused",
        (Fault("GET", BLOB, times=2, act=Reset(after=20_000)), Fault("GET", BLOB, nth=3, act=Status(416))),
        more="blob+3 | PATCH+1 PUT+1 status+2",
    ),
    Row(
        "reset in a blob five times",
        (Fault("GET", BLOB, times=5, act=Reset(after=5_000)),),
        more="blob+5 | PATCH+1 PUT+1 status+5",
    ),
    Row("reset opening an upload", target=(Fault("POST", "uploads/$", act=Hangup()),), more="| POST+1"),
    Row(
        "an upload opened without a word",
        target=(Fault("POST", "uploads/$", act=LoseAnswer()),),
        more="| POST+1",
    ),
    Row(
        "reset in the PUT",
        target=(Fault("PUT", COMMIT, act=Reset(after=20_000)),),
        more="blob+1 | PATCH+1 PUT+1 has+1 status+1",
    ),
    Row("reset after the PUT", target=(Fault("PUT", COMMIT, act=LoseAnswer()),), more="blob+1 | has+1"),
    Row(
        "reset in the PATCH",
        target=(Fault("PATCH", "", act=Reset(after=20_000)),),
        profile=STREAM,
        quiet=QUIET_STREAM,
        more="| PATCH+3 has+1 status+1",
    ),
    Row(
        "reset after the PATCH",
        target=(Fault("PATCH", "", act=LoseAnswer()),),
        profile=STREAM,
        quiet=QUIET_STREAM,
        more="| has+1 status+1",
    ),
    Row(
        "reset in the PATCH, and the session is gone",
        target=(
            Fault("PATCH", "", act=Reset(after=20_000)),
            Fault("*", UPLOADS, times=0, act=ForgetBroken()),
        ),
        profile=STREAM,
        quiet=QUIET_STREAM,
        more="| PATCH+1 POST+1 has+1 status+1",
    ),
    Row(
        "reset in a chunk",
        target=(Fault("PATCH", "", nth=2, act=Reset(after=20_000)),),
        profile=CHUNKED,
        quiet=QUIET_CHUNKED,
        more="| status+1",
    ),
    Row(
        "reset after a chunk",
        target=(Fault("PATCH", "", nth=2, act=LoseAnswer()),),
        profile=CHUNKED,
        quiet=QUIET_CHUNKED,
        more="| status+1",
    ),
    Row(
        "reset in the commit",
        target=(Fault("PUT", COMMIT, act=Hangup()),),
        profile=STREAM,
        quiet=QUIET_STREAM,
        more="| PUT+1",
    ),
    Row(
        "reset after the commit",
        target=(Fault("PUT", COMMIT, act=LoseAnswer()),),
        profile=STREAM,
        quiet=QUIET_STREAM,
        more="| PUT+1 cancel+1 has+1",
    ),
    Row("reset asking for a mount", target=(Fault("POST", "mount=", act=Hangup()),), more="| mount+1"),
    Row("a mount done without a word", target=(Fault("POST", "mount=", act=LoseAnswer()),), more="| mount+1"),
    Row("reset putting a manifest", target=(Fault("PUT", "/manifests/", act=Hangup()),), more="| manifest+1"),
    Row(
        "reset in a manifest", target=(Fault("PUT", "/manifests/", act=Reset(after=10)),), more="| manifest+1"
    ),
    Row(
        "a manifest put without a word",
        target=(Fault("PUT", "/manifests/", act=LoseAnswer()),),
        more="| manifest+1",
    ),
    Row(
        "reset in every upload of a blob",
        target=(Fault("PUT", COMMIT, times=0, act=Hangup()),),
        fails=Failure("ConnectionLost", "target", 4, 1),
        heals=False,
        more="HEAD-1 blob+1 | HEAD-1 POST+2 PUT+2 cancel+2 has+2 manifest-2 status+2",
    ),
    Row(
        "nobody there",
        target=(Fault("*", "", times=0, act=Hangup()),),
        fails=Failure("ConnectionLost", "target", 4, 2),
        heals=False,
        more="GET-4 HEAD-2 blob-8 | HEAD+12 POST-8 PUT-8 manifest-4 mount-2 tags-2",
    ),
]
CORRUPTIONS = [
    Row(
        "a bit of a blob flips", (Fault("GET", BLOB, act=Corrupt(at=5000)),), more="blob+1 | POST+1 cancel+1"
    ),
    Row(
        "a blob is not what its digest says",
        (Fault("GET", BLOB, times=0, act=Corrupt(at=5000)),),
        fails=Failure("DigestMismatch", "source", 6, 1),
        heals=False,
        more="HEAD-1 blob+1 | HEAD-1 POST+1 PUT-1 cancel+2 manifest-2",
    ),
    Row("a bit of a manifest flips", (Fault("GET", CHILD, act=Corrupt(at=50)),), more="GET+1 |"),
    Row(
        "a manifest is not what its digest says",
        (Fault("GET", CHILD, times=0, act=Corrupt(at=50)),),
        fails=Failure("DigestMismatch", "source", 6, 1),
        heals=False,
        more="GET+1 HEAD-1 blob-3 | HEAD-1 POST-3 PUT-3 manifest-2 mount-2",
    ),
    Row(
        "a bit flips on its way to the target",
        target=(Fault("PUT", COMMIT, act=Corrupt(at=5000)),),
        more="blob+1 | POST+1 PUT+1 cancel+1",
    ),
    Row(
        "every blob changes on its way to the target",
        target=(Fault("*", "uploads/", times=0, act=Corrupt(at=50)),),
        fails=Failure("Rejected", "target", 5, 2),
        heals=False,
        more="HEAD-2 blob+12 | HEAD-2 PATCH+20 POST+22 PUT+22 cancel+30 manifest-4 mount-2",
    ),
    Row(
        "a bit of a manifest flips on its way to the target",
        target=(Fault("PUT", f"/manifests/{CHILD}", act=Corrupt(at=5)),),
        more="| manifest+1",
    ),
    Row(
        "a bit of a tagged manifest flips on its way to the target",
        target=(Fault("PUT", TAG, act=Corrupt(at=INDEX.raw.index(b"amd64"))),),
        more="| manifest+1",
    ),
    Row(
        "a manifest loses its end on its way to the target",
        target=(Fault("PUT", TAG, act=Truncate(after=100)),),
        more="| manifest+1",
    ),
    Row(
        "a manifest that the target can't read",
        target=(
            Fault("PUT", TAG, times=0, act=Status(400, body='{"errors": [{"code": "MANIFEST_INVALID"}]}')),
        ),
        fails=Failure("Rejected", "target", 5, 1),
        heals=False,
        more="HEAD-1 | HEAD-1 manifest+1",
    ),
]
STALLS = [
    Row("silence when asked for the tag", (Fault("HEAD", TAG, act=Mute()),), more="HEAD+1 |"),
    Row("silence when asked for a blob", (Fault("GET", BLOB, act=Mute()),), more="blob+1 |"),
    Row(
        "silence when asked for an upload",
        target=(Fault("POST", "uploads/$", act=Mute()),),
        more="| POST+1",
    ),
    Row("silence in a manifest", (Fault("GET", CHILD, act=Stall(after=50)),), more="GET+1 |"),
    Row(
        "silence in a blob",
        (Fault("GET", BLOB, act=Stall(after=20_000)),),
        more="blob+1 | PATCH+1 PUT+1 status+1",
    ),
    Row(
        "silence for a blob for ever",
        (Fault("GET", BLOB, times=0, act=Stall()),),
        fails=Failure("TimedOut", "source", 4, 1),
        heals=False,
        more="HEAD-1 blob+4 | HEAD-1 POST+4 PUT-1 cancel+5 manifest-2",
    ),
    Row(
        "silence in the PUT",
        target=(Fault("PUT", COMMIT, act=Stall(after=20_000)),),
        more="blob+1 | PATCH+1 PUT+1 has+1 status+1",
    ),
    Row(
        "silence in the PATCH",
        target=(Fault("PATCH", "", act=Stall(after=20_000)),),
        profile=STREAM,
        quiet=QUIET_STREAM,
        more="| PATCH+3 has+1 status+1",
    ),
    Row(
        "silence putting a manifest",
        target=(Fault("PUT", TAG, act=Stall(after=20)),),
        more="| manifest+1",
    ),
]
NOW = [
    Row("429 with seconds", (Fault("HEAD", TAG, act=Busy(30)),), waits=30, more="HEAD+1 |"),
    Row("429 with a date", (Fault("HEAD", TAG, act=Busy(30, dated=True)),), waits=30, more="HEAD+1 |"),
    Row("429 that says nothing", (Fault("HEAD", TAG, times=5, act=Status(429)),), waits=3, more="HEAD+5 |"),
    Row(
        "429 with more than anyone waits",
        (Fault("HEAD", TAG, act=Busy(86400)),),
        fails=Failure("Throttled", "source", 5, 1),
        more="GET-2 HEAD-1 blob-3 | HEAD-1 POST-3 PUT-3 manifest-2 mount-2 tags-1",
    ),
    Row(
        "429 with nonsense",
        (Fault("HEAD", TAG, act=Status(429, headers={"Retry-After": "soon"})),),
        waits=0,
        more="HEAD+1 |",
    ),
    Row("429 for a blob", (Fault("GET", BLOB, act=Busy(30)),), waits=30, more="blob+1 |"),
    Row(
        "429 for a blob with more than anyone waits",
        (Fault("GET", BLOB, times=0, act=Busy(86400)),),
        fails=Failure("Throttled", "source", 5, 1),
        heals=False,
        more="HEAD-1 | HEAD-1 PUT-1 cancel+1 manifest-2",
    ),
    Row(
        "429 for an upload with more than anyone waits",
        target=(Fault("PUT", COMMIT, act=Busy(86400)),),
        fails=Failure("Throttled", "target", 5, 1),
        more="HEAD-1 | HEAD-1 manifest-2",
    ),
    Row(
        "429 for an upload",
        target=(Fault("PUT", COMMIT, act=Busy(30)),),
        waits=30,
        more="blob+1 | POST+1 PUT+1 cancel+1 status+1",
    ),
    Row(
        "429 for a chunk",
        target=(Fault("PATCH", "", nth=2, act=Busy(30)),),
        profile=CHUNKED,
        quiet=QUIET_CHUNKED,
        waits=30,
        more="| PATCH+1 status+1",
    ),
    Row(
        "429 for a commit",
        target=(Fault("PUT", COMMIT, act=Busy(30)),),
        profile=STREAM,
        quiet=QUIET_STREAM,
        waits=30,
        more="| PUT+1",
    ),
    Row("429 for a mount", target=(Fault("POST", "mount=", act=Busy(30)),), waits=30, more="| mount+1"),
    Row("429 for a manifest", target=(Fault("PUT", TAG, act=Busy(30)),), waits=30, more="| manifest+1"),
    Row("503 with seconds", (Fault("HEAD", TAG, act=Busy(30, code=503)),), waits=30, more="HEAD+1 |"),
    Row(
        "a storm of 500",
        (Fault("*", "", times=12, act=Status(500)),),
        more=None,
        fails=Failure("Unavailable", "source", 5, 2),
    ),
    Row("a short storm of 500", (Fault("*", "", times=6, act=Status(500)),), more="HEAD+6 |"),
    Row(
        "a storm of 500 at the target",
        target=(Fault("*", UPLOADS, times=8, act=Status(500)),),
        more="| POST+8",
    ),
    Row(
        "502, then 503, then 504",
        (
            Fault("GET", BLOB, act=Status(502)),
            Fault("GET", BLOB, nth=2, act=Status(503)),
            Fault("GET", BLOB, nth=3, act=Status(504)),
        ),
        more="blob+3 |",
    ),
    Row(
        "500 for every upload",
        target=(Fault("PUT", "digest=", times=0, act=Status(500)),),
        fails=Failure("Unavailable", "target", 5, 2),
        heals=False,
        more="HEAD-2 blob+16 | HEAD-2 POST+26 PUT+26 cancel+26 manifest-4 mount-2 status+16",
    ),
    Row(
        "500 after every PATCH",
        target=(Fault("PATCH", "", times=2, act=Status(500)),),
        profile=STREAM,
        quiet=QUIET_STREAM,
        more="| PATCH+2 POST+2 cancel+2 status+2",
    ),
    Row(
        "408 for an upload",
        target=(Fault("PUT", COMMIT, act=Status(408)),),
        more="blob+1 | POST+1 PUT+1 cancel+1 status+1",
    ),
    Row(
        "507 for an upload",
        target=(Fault("PUT", COMMIT, act=Status(507)),),
        fails=Failure("Rejected", "target", 5, 1),
        more="HEAD-1 | HEAD-1 cancel+1 manifest-2",
    ),
]
ROWS = [*NOTHING, *RESETS, *CORRUPTIONS, *NOW]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_what_comes_of(row: Row, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await play(row, filled, tmp_path, monkeypatch) == expected(row)


@pytest.mark.parametrize("row", STALLS, ids=str)
@lapsing
async def test_what_comes_of_silence(
    row: Row, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real time-outs, on a clock that jumps to them when nothing else is left to happen.

    The registries here are more patient than a run: at 60 s both would give up, whoever comes first.
    """
    for begin in (Server.__init__, SocketBodyTransport.__init__):
        monkeypatch.setattr(begin, "__kwdefaults__", {**(begin.__kwdefaults__ or {}), "stall": 90.0})
    with_stores(monkeypatch)
    assert await play(row, filled, tmp_path, monkeypatch) == expected(row)
