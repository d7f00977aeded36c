"""The report: the result of every image, as a value. A fold of outcomes; written also when the run fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

import msgspec

from blobflow.engine.pairs import Pair
from blobflow.errors import BlobflowError, Side
from blobflow.printable import encodable
from blobflow.signatures.contract import Verdict

Status = Literal["done", "present", "failed", "skipped"]
TagStatus = Literal["removed", "left", "failed", "surplus"]


class ReferrerRecord(msgspec.Struct, frozen=True):
    """A signature, SBOM, attestation or other manifest that refers to an image, or to a part of it.

    `how` it was found at the source: by the registry's list (`api`), under the fallback tag (`tag`) or a tag
    of cosign's (`cosign`). `left`: why it was not brought to the target; "" if it was to be.
    """

    digest: str
    artifact_type: str
    subject: str
    how: Literal["api", "tag", "index", "cosign"]
    left: str = ""


class ImageRecord(msgspec.Struct, frozen=True):
    """One pair. `digest` is what the target tag names now, `source_digest` what the source tag named.

    `status`: done (something was moved or tagged), present (nothing was missing), failed (`error` says why,
    in one sentence that names the side), skipped (not finished, perhaps begun: the run ended before, as
    `error` says; or, with a `reason`, left as it was, because it has none of the platforms that are wanted).
    `platforms` of the root's children, as far as they are known: a root that an earlier run put and that is
    still there is not read again, and has those that the store remembers of it.
    `moved`: what the source's tag names by the end of the run, "nothing" if it is gone; "" if it did not
    move. `referrers`: what refers to it, if that was looked up. `signatures`: why a signature policy accepts
    it, a verdict for each of its manifests that was judged; none without a policy.
    """

    source: str
    target: str
    digest: str
    source_digest: str
    platforms: tuple[str, ...]
    status: Status
    error: str = ""
    moved: str = ""
    referrers: tuple[ReferrerRecord, ...] = ()
    reason: str = ""
    signatures: tuple[Verdict, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the image is as requested: at its target, or skipped because the request allows it."""
        return self.status in ("done", "present") or bool(self.reason)


class Totals(msgspec.Struct, frozen=True):
    """Sums over a run. Bytes are body bytes over the wire, retries included; `seconds` is wall time.

    `blobs_copied` and `blobs_mounted` count steps that ended well, and `bytes_mounted` are the sizes of the
    latter, none of which were sent; `blobs_present` blobs that the survey
    found at their target (those of a root that was known to be whole are not looked at, so not counted).
    `audited`: roots put by earlier runs that were looked below to the end; `incomplete`: images that were
    found to lack something there, or were known to. `skipped`: images of that status, for whatever reason.
    `bytes_resent`: of the bytes written, those that blobs took beyond their sizes, since uploads broke or
    were refused.
    """

    images: int = 0
    failed: int = 0
    blobs_copied: int = 0
    blobs_mounted: int = 0
    blobs_present: int = 0
    manifests_put: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    requests: int = 0
    seconds: float = 0.0
    audited: int = 0
    incomplete: int = 0
    skipped: int = 0
    bytes_resent: int = 0
    bytes_mounted: int = 0


class TargetRecord(msgspec.Struct, frozen=True):
    """One target: its images by status, and what was moved to it; as in `Totals` otherwise."""

    target: str
    done: int = 0
    present: int = 0
    failed: int = 0
    skipped: int = 0
    blobs_copied: int = 0
    blobs_mounted: int = 0
    manifests_put: int = 0
    bytes_written: int = 0
    bytes_mounted: int = 0


class TagRecord(msgspec.Struct, frozen=True):
    """A tag at a target that the selection does not have, and what it named.

    `status`: removed; left (`why` says what keeps it); failed (`why` is the error); surplus (it would be
    removed, and was only looked at).
    """

    target: str
    digest: str
    status: TagStatus
    why: str = ""


class RangesRecord(msgspec.Struct, frozen=True):
    """What was read by several ranges at once: `blobs`, the `requests` for ranges and the `bytes` that came
    by them. `fallbacks`: how often a blob was read by one stream after all, by the reason: what a range was
    answered by, or "wrong bytes" where the whole turned out to be another."""

    blobs: int = 0
    requests: int = 0
    bytes: int = 0
    fallbacks: dict[str, int] = {}


class HostRecord(msgspec.Struct, frozen=True):
    """A host that the run was about (`sides`), or that it was sent to, as where tokens or blobs come from.

    `requests` are HTTP requests; bytes are body bytes of blobs and manifests.
    """

    host: str
    sides: tuple[Side, ...] = ()
    requests: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


class WorkerRecord(msgspec.Struct, frozen=True):
    """What a worker of an engine did for the run: `copies` of blobs that it brought to a target, with so many
    `bytes`; and how many of those that it was handed `failed`."""

    worker: str
    copies: int = 0
    bytes: int = 0
    failed: int = 0


class RunRecord(msgspec.Struct, frozen=True):
    """Which run it was: when it began and ended (UTC, RFC 3339; by the clock on the wall, so `Totals.seconds`
    is what it took), the version of blobflow, and with which hosts it dealt.

    `command`: the command line, a word each, with `***` in place of what may be secret; empty for a run that
    a program began through the library. `error`: what ended the run before its images were done or had
    failed, each for itself; "" if nothing did. `workers`: those of an engine that carried blobs; none: it had
    none. None and empty fields otherwise: a version that did not tell.
    """

    started: datetime | None = None
    ended: datetime | None = None
    blobflow: str = ""
    command: tuple[str, ...] = ()
    hosts: tuple[HostRecord, ...] = ()
    error: str = ""
    workers: tuple[WorkerRecord, ...] = ()


class Report(msgspec.Struct, frozen=True):
    """What a run did. `targets` in the order given, one a host; `notes`: what a person decided otherwise than
    content says, or should know of it, a sentence each. `tags`: those at the targets that were too many, if
    that was asked. `run`: when, where and by what. `version` changes when a reader of an earlier one
    would be misled."""

    totals: Totals
    images: tuple[ImageRecord, ...]
    targets: tuple[TargetRecord, ...] = ()
    version: int = 1
    notes: tuple[str, ...] = ()
    tags: tuple[TagRecord, ...] = ()
    ranges: RangesRecord = RangesRecord()
    run: RunRecord = RunRecord()

    @property
    def ok(self) -> bool:
        """Whether every image is as requested."""
        return all(image.ok for image in self.images)


def with_unresolved(report: Report, lost: Mapping[Pair, BlobflowError]) -> Report:
    """The report with images, or repositories, of which it was not even found out what they are."""
    return with_records(
        report,
        {
            pair: ImageRecord(str(pair.source), str(pair.target), "", "", (), "failed", str(error))
            for pair, error in lost.items()
        },
    )


def with_records(report: Report, records: Mapping[Pair, ImageRecord]) -> Report:
    """The report with images that failed or were skipped before there was anything to do for them."""
    failed = Counter(pair.target.host for pair, record in records.items() if record.status == "failed")
    skipped = Counter(pair.target.host for pair, record in records.items() if record.status == "skipped")
    known = {target.target: target for target in report.targets}
    targets = [known.get(host) or TargetRecord(host) for host in dict.fromkeys((*known, *failed, *skipped))]
    totals = report.totals
    return msgspec.structs.replace(
        report,
        images=(*report.images, *records.values()),
        totals=msgspec.structs.replace(
            totals,
            images=totals.images + len(records),
            failed=totals.failed + failed.total(),
            skipped=totals.skipped + skipped.total(),
        ),
        targets=tuple(
            msgspec.structs.replace(
                each,
                failed=each.failed + failed[each.target],
                skipped=each.skipped + skipped[each.target],
            )
            for each in targets
        ),
        run=msgspec.structs.replace(report.run, hosts=_with_hosts(report.run.hosts, records)),
    )


def _with_hosts(hosts: tuple[HostRecord, ...], pairs: Iterable[Pair]) -> tuple[HostRecord, ...]:
    """The hosts, and those of further pairs that are not among them."""
    found = {each.host: each for each in hosts}
    for host, sides in sides_of(pairs).items():
        found.setdefault(host, HostRecord(host, sides))
    return tuple(found.values())


def sides_of(pairs: Iterable[Pair]) -> dict[str, tuple[Side, ...]]:
    """The hosts of the pairs, in their order: sources first; a host may be both."""
    sides: dict[str, dict[Side, None]] = {}
    pairs = tuple(pairs)
    for pair in pairs:
        sides.setdefault(pair.source.host, {})["source"] = None
    for pair in pairs:
        sides.setdefault(pair.target.host, {})["target"] = None
    return {host: tuple(each) for host, each in sides.items()}


def encode_report(report: Report) -> bytes:
    """The report as indented JSON, whatever the names of its files are made of."""
    try:
        content = msgspec.json.encode(report)
    except UnicodeEncodeError:
        content = msgspec.json.encode(encodable(msgspec.to_builtins(report)))
    return msgspec.json.format(content, indent=2) + b"\n"
