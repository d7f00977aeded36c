"""Profiles: what registries support, known by host, and limits learned during a run.

A profile is a value. Known hosts have one by suffix; every other host gets the default and is learned: an
upload method that was refused is not tried again, or not with blobs of that size; one that worked is
trusted. What was learned is noted in the journal, so that the next run does not pay for it again.
"""

from __future__ import annotations

import math
import time
from typing import Literal

import msgspec

from blobflow.content import Journal, parse_number

# The requests of each are in `uploads.methods`. `single` takes the fewest, `stream` is the widest known, and
# `chunked` is for where a request's size is bounded.
UploadMethod = Literal["single", "stream", "chunked"]

MIB = 1024 * 1024
# A refused body has been read for nothing. At an unknown host `single` is tried with blobs up to this size,
# and with larger ones after it worked once: ACR's 413 begins at about 20 MB.
UNPROVEN_SINGLE_BYTES = 16 * MIB
# A lost connection costs at most one chunk, and one request a chunk is no burden at this size.
CHUNK_BYTES = 32 * MIB
# A blob that is costly to restart goes by chunks: bytes confirmed before a break need not be sent again. From
# this size on it does where nobody knows yet what sending it takes.
CHUNKED_FROM = 256 * MIB
WORTHWHILE_CHUNK_BYTES = 5 * MIB
# The smallest chunk that a bad line or a proxy's limit may call for. nginx's own limit is 1 MiB; some are set
# to 1,000,000 bytes.
MIN_CHUNK_BYTES = MIB // 2


class Profile(msgspec.Struct, frozen=True):
    """What a registry supports.

    `rungs`: the upload methods, in the order of preference; `single_bytes`: blobs up to it go by `single`;
    `bounded`: that holds also where `single` is proven. `chunk_bytes`: the size of a chunk, which a bad line,
    or a proxy that takes no request as large, may halve down to `least_chunk_bytes`. `ranges`: whether it
    serves ranges of blobs. `mounts`: whether it is worth asking for mounts; `mounts_need_manifest`: only of
    what a manifest of the origin names. `keeps_broken_sessions`: whether an upload can go on after a request
    of it broke; None is for finding out. `tags_with_digest`: whether it is worth asking to put several tags
    in one request ([end-7b]).
    """

    name: str
    rungs: tuple[UploadMethod, ...] = ("single", "stream", "chunked")
    single_bytes: int = UNPROVEN_SINGLE_BYTES
    bounded: bool = False
    chunk_bytes: int = CHUNK_BYTES
    least_chunk_bytes: int = MIN_CHUNK_BYTES
    ranges: bool = True
    mounts: bool = True
    mounts_need_manifest: bool = False
    keeps_broken_sessions: bool | None = None
    tags_with_digest: bool = False


# Whether a registry that nobody knows takes tags with a digest, as `blobflow serve` does, is found out.
DEFAULT = Profile("default", tags_with_digest=True)
_ANY = 2**62
# Layer parts of 5 to 10 MiB, or one stream; the Range answer can get stuck (containers-roadmap#2831). Only
# blobs that a manifest of the origin names are mounted (containers-roadmap#2860).
_ECR = Profile(
    "ecr",
    ("stream", "chunked"),
    chunk_bytes=10 * MIB,
    least_chunk_bytes=5 * MIB,
    mounts_need_manifest=True,
)

# (prefix or "", suffix, profile); the first that fits.
_KNOWN: tuple[tuple[str, str, Profile], ...] = (
    ("", ".amazonaws.com", _ECR),
    ("", ".amazonaws.com.cn", _ECR),
    ("public.ecr.aws", "", _ECR),
    # No ranged chunks at all.
    ("", ".pkg.dev", Profile("gar", ("single", "stream"), single_bytes=_ANY)),
    ("gcr.io", "", Profile("gar", ("single", "stream"), single_bytes=_ANY)),
    ("", ".gcr.io", Profile("gar", ("single", "stream"), single_bytes=_ANY)),
    # Ranged chunks over 4 MiB are answered by 416.
    ("ghcr.io", "", Profile("ghcr", ("single", "stream", "chunked"), _ANY, chunk_bytes=4 * MIB)),
    # PUT with a body over about 20 MB is answered by 413.
    ("", ".azurecr.io", Profile("acr", ("single", "stream", "chunked"), 16 * MIB, bounded=True)),
    # A large single PUT was answered by 400 (one report).
    ("docker.io", "", Profile("hub", ("single", "stream", "chunked"), 16 * MIB, bounded=True)),
    # Ranged chunks are reported broken.
    ("quay.io", "", Profile("quay", ("stream", "single"))),
    # POST and PUT with the body is answered by 404.
    ("", ".jfrog.io", Profile("artifactory", ("stream", "chunked"))),
)


def profile_of(host: str) -> Profile:
    """The profile of `host[:port]` by its name."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    for whole, suffix, profile in _KNOWN:
        if name == whole or (suffix and name.endswith(suffix)):
            return profile
    return DEFAULT


def profiles_by_name() -> dict[str, Profile]:
    """Every profile that is known, by its name."""
    return {profile.name: profile for profile in (DEFAULT, *(profile for *_, profile in _KNOWN))}


# Seconds for which chunks are made as small as a refusal taught: a proxy's bound may have been raised since,
# and to learn it again costs part of a blob.
BODY_LIMIT_SECONDS = 30 * 24 * 3600
_BODY_LIMIT, _BODY_LIMIT_AT = "upload.body.limit", "upload.body.limit.at"


class LearnedLimits:
    """What was learned of one host: which upload methods it took, and the size from which it refused them.

    Starts from the journal's notes (`upload.METHOD.taken`, `upload.METHOD.refused`, `upload.body.limit`,
    `put.tags`) and adds to them. `tags_in_question`: somebody is finding out about tags with a digest.
    """

    def __init__(self, journal: Journal, origin: str) -> None:
        self._journal = journal
        self._origin = origin
        self._taken: dict[UploadMethod, bool] = {}
        self._refused: dict[UploadMethod, float] = {}
        self._tags: str | None = None
        self.tags_in_question = False

    def has_taken(self, method: UploadMethod) -> bool:
        if method not in self._taken:
            self._taken[method] = self._journal.note(self._origin, f"upload.{method}.taken") is not None
        return self._taken[method]

    def refused_from(self, method: UploadMethod) -> float:
        """The size in bytes from which on the method is known to be refused; infinity if it never was."""
        if method not in self._refused:
            noted = parse_number(self._journal.note(self._origin, f"upload.{method}.refused"))
            self._refused[method] = math.inf if noted is None else float(noted)
        return self._refused[method]

    def body_limit(self) -> int | None:
        """The size in bytes that chunks had to have lately to get through; None if they did not have to."""
        size = parse_number(self._journal.note(self._origin, _BODY_LIMIT))
        at = parse_number(self._journal.note(self._origin, _BODY_LIMIT_AT))
        if size is not None and at is None:
            self._date_body_limit()  # one that was noted without its time is old from now on
        elif at is not None and abs(time.time() - at) >= BODY_LIMIT_SECONDS:  # a clock may go back
            return None
        return size

    def limit_bodies(self, size: int) -> None:
        """Chunks of `size` bytes got through, and larger ones did not."""
        self._journal.record_note(self._origin, _BODY_LIMIT, str(size))
        self._date_body_limit()

    def _date_body_limit(self) -> None:
        self._journal.record_note(self._origin, _BODY_LIMIT_AT, str(int(time.time())))

    def taken(self, method: UploadMethod) -> None:
        if not self.has_taken(method):
            self._taken[method] = True
            self._journal.record_note(self._origin, f"upload.{method}.taken", "yes")

    def refused(self, method: UploadMethod, size: int) -> None:
        if size < self.refused_from(method):
            self._refused[method] = size
            self._journal.record_note(self._origin, f"upload.{method}.refused", str(size))

    @property
    def takes_tags_with_digest(self) -> bool | None:
        """Whether the host sets tags that come with a manifest's digest; None if nobody has asked yet."""
        if self._tags is None:
            self._tags = self._journal.note(self._origin, "put.tags")
        return None if self._tags is None else self._tags == "yes"

    def took_tags_with_digest(self, taken: bool) -> None:
        if self.takes_tags_with_digest != taken:
            self._tags = "yes" if taken else "no"
            self._journal.record_note(self._origin, "put.tags", self._tags)

    def broke(self, method: UploadMethod, size: int) -> None:
        """A connection broke under a method that never worked yet: avoid it in this run, note nothing."""
        if not self.has_taken(method):
            self._refused[method] = min(size, self.refused_from(method))


def method_order(
    size: int, profile: Profile, limits: LearnedLimits, *, costly: bool | None = None
) -> tuple[UploadMethod, ...]:
    """The upload methods to try for a blob of `size` bytes, in order; never none.

    `costly`: whether sending it once more would cost COSTLY_SECONDS or more, None if the line is not known.
    Such a blob goes by chunks where they are not so small that their requests would be the greater burden.
    """
    methods = [method for method in profile.rungs if method != "chunked" or size > 0]
    usable = [method for method in methods if size < limits.refused_from(method)] or methods
    proven = limits.has_taken("single") and not profile.bounded
    if "single" in usable and size > profile.single_bytes and not proven:
        usable.remove("single")
        usable.append("single")
    in_parts = size >= CHUNKED_FROM if costly is None else costly
    if "chunked" in usable and in_parts and profile.chunk_bytes >= WORTHWHILE_CHUNK_BYTES:
        usable.remove("chunked")
        usable.insert(0, "chunked")
    return tuple(usable)
