"""What registries are known for, and what a run makes of it: a row for each cell of what is known of each.

A registry is met twice: by its profile, when nothing should be refused, and as one of which nothing is known,
when the forms of upload are found out. Sizes are a 1024th of the true ones: see `fault_rows`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from blobflow.transports.registry import Profile
from blobflow.transports.registry.capabilities.profiles import DEFAULT, profiles_by_name
from tests.fakes.registry import Bytes, blob_of, collect, world
from tests.scenarios.fault_rows import (
    BLOB,
    COMMIT,
    FIRST,
    TAG,
    Failure,
    Row,
    expected,
    filled,
    play,
    scaled,
)
from tools.registry.faulty import Fault, LoseAnswer, Rationed, Reset, SetHeader, Status, journalling
from tools.registry.known import known_registries

__all__ = ["filled"]

FAKES = known_registries(1024)
KNOWN = {**dict.fromkeys(FAKES, DEFAULT), **profiles_by_name()}
STREAMED = Profile("streamed", ("stream", "chunked"))
CHUNKED_FIRST = Profile("chunked", ("chunked", "stream", "single"))
# Of the eight blobs two are up to 16 MiB: these go by single PUTs wherever nothing else is known.
SIX_LARGE = "| PATCH+6"


def met(
    name: str,
    said: str,
    more: str = "",
    *,
    profile: Profile = DEFAULT,
    faults: tuple[Fault, ...] = (),
    fails: Failure | None = None,
    heals: bool = True,
) -> Row:
    """The registry of that name as a target, met with that profile."""
    fake = FAKES[name]
    return Row(
        f"{name} {said}",
        target=faults,
        nature=fake.faults,
        sparse=fake.sparse,
        profile=scaled(profile),
        more=more,
        fails=fails,
        heals=heals,
    )


BY_PROFILE = {
    "distribution": SIX_LARGE,
    "ecr": "| PATCH+8",  # streams; mounts wait for the manifests of their origins
    "gar": "",
    "ghcr": "",
    "acr": SIX_LARGE,
    "hub": SIX_LARGE,
    "quay": "| PATCH+8",
    "artifactory": "| PATCH+8 tags+2",  # 403 for tags that are not there: the lists tell
    "harbor": SIX_LARGE,
    "cloudflare": "| PATCH+9",
    "nexus": SIX_LARGE,
    "gitea": SIX_LARGE,
}
UNKNOWN = {
    **dict.fromkeys(FAKES, SIX_LARGE),
    "ecr": "| PATCH+8 PUT+2",  # mounts come too early there, and go on in their sessions
    "artifactory": "blob+1 | PATCH+8 POST+1 PUT+1 cancel+1 tags+2",  # one PUT is refused
    "cloudflare": "| PATCH+9",  # one blob is larger than its chunks may be
}
CELLS = [
    met(
        "distribution",
        "forgets a broken PATCH",
        "| PATCH+9 POST+1 has+1 status+1",
        profile=STREAMED,
        faults=(Fault("PATCH", "", act=Reset(after=20_000)),),
    ),
    met(
        "distribution",
        "forgets a PATCH whose answer got lost",
        "| PATCH+9 POST+1 has+1 status+1",
        profile=STREAMED,
        faults=(Fault("PATCH", "", act=LoseAnswer()),),
    ),
    met(
        "distribution",
        "commits, and the answer gets lost",
        "| PATCH+8 PUT+1 cancel+1 has+1",
        profile=STREAMED,
        faults=(Fault("PUT", COMMIT, act=LoseAnswer()),),
    ),
    Row(
        "distribution answers 416 to a range with a wrong Content-Length",
        (
            Fault("GET", BLOB, times=2, act=Reset(after=20_000)),
            Fault("GET", BLOB, nth=3, act=Status(416, body="no")),
            Fault("GET", BLOB, nth=3, act=SetHeader("Content-Length", "9999")),
        ),
        more="blob+3 | PATCH+1 PUT+1 status+2",
    ),
    met(
        "ecr",
        "with a stuck Range",
        "| PATCH+11 POST+1 cancel+1 has+1 status+2",
        profile=KNOWN["ecr"],
        faults=(Fault("PATCH", "", act=Reset(after=20_000)),),
    ),
    met(
        "ecr",
        "without the repository",
        "HEAD-1 blob-3 | HEAD-1 PATCH+5 POST+2 PUT-3 manifest-2",
        profile=KNOWN["ecr"],
        faults=(
            Fault(
                "POST",
                f"^/v2/{FIRST}/",
                times=0,
                act=Status(404, body='{"errors": [{"code": "NAME_UNKNOWN"}]}'),
            ),
        ),
        fails=Failure("NotFound", "target", 5, 1),
        heals=False,
    ),
    met(
        "ecr",
        "with an immutable tag",
        "HEAD-1 | HEAD-1 PATCH+8",
        profile=KNOWN["ecr"],
        faults=(Fault("PUT", TAG, times=0, act=Status(400, body='{"errors": [{"code": "TAG_INVALID"}]}')),),
        fails=Failure("Rejected", "target", 5, 1),
        heals=False,
    ),
    met("gar", "asked for chunks", "blob+2 | PATCH+11 POST+3 cancel+3", profile=CHUNKED_FIRST),
    met("ghcr", "asked for chunks", "blob+1 | PATCH+10 POST+2 cancel+2", profile=CHUNKED_FIRST),
    met(
        "ghcr",
        "asked for chunks of 4 MiB",
        "| PATCH+87",
        profile=msgspec.structs.replace(KNOWN["ghcr"], rungs=("chunked",)),
    ),
    met(
        "acr",
        "asked for large PUTs",
        "blob+1 | PATCH+6 POST+2 PUT+2 cancel+2",
        profile=Profile("single", single_bytes=2**40),
    ),
    met(
        "hub",
        "asked for large PUTs",
        "blob+1 | PATCH+6 POST+2 PUT+2 cancel+2",
        profile=Profile("single", single_bytes=2**40),
    ),
    met("quay", "asked for chunks", "blob+2 | PATCH+11 POST+3 cancel+3", profile=CHUNKED_FIRST),
    met("cloudflare", "asked for chunks", "| PATCH+15", profile=CHUNKED_FIRST),
    Row(
        "hub lets HEADs through and counts GETs",
        (Fault("*", "/manifests/", times=0, act=Rationed(100, 8)),),
    ),
    Row("a profile without mounts", profile=Profile("p", mounts=False), more="| POST+2 PUT+2 mount-2"),
    Row(
        "a profile without sessions that outlive a break",
        target=(Fault("PUT", COMMIT, act=Reset(after=20_000)),),
        profile=Profile("p", keeps_broken_sessions=False),
        more="blob+1 | POST+1 PUT+1 cancel+1 has+1",
    ),
]
ROWS = [
    *(met(name, "by its profile", BY_PROFILE[name], profile=KNOWN[name]) for name in FAKES),
    *(met(name, "as an unknown one", UNKNOWN[name]) for name in FAKES),
    *CELLS,
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_what_comes_of(row: Row, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await play(row, filled, tmp_path, monkeypatch) == expected(row)


async def test_a_profile_without_ranges_has_blobs_read_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    async with journalling(tmp_path) as registry, world(profile=Profile("p", ranges=False)) as w:
        await w.sink(registry.host).push(blob_of(content), Bytes(content))
        async with w.source(registry.host).open(blob_of(content), 1000, 3000) as chunks:
            assert await collect(chunks) == content[1000:3000]
        (read,) = registry.journal.select("GET", "/blobs/sha256:")
        assert "Range" not in read.asked


async def test_tags_are_listed_in_pages_that_ecr_takes(tmp_path: Path) -> None:
    async with journalling(tmp_path, FAKES["ecr"].faults) as registry, world() as w:
        content = b"{}"
        registry.store.blobs.write_small(content, blob_of(content).digest)
        registry.store.repositories.add(
            "app", blob_of(content).digest, "application/vnd.oci.image.index.v1+json"
        )
        for number in range(1200):
            registry.store.repositories.set_tag("app", f"t{number}", blob_of(content).digest)
        assert len(await w.source(registry.host).tags()) == 1200
        assert registry.journal.count("GET", "/tags/list", 200) == 2
