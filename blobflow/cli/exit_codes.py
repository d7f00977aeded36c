"""What the exit code of the `blobflow` command means."""

from __future__ import annotations

from collections.abc import Iterable

from blobflow.errors import BlobflowError, RunIncomplete

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C

# Code → what it means; docs/exit-codes.md has the same table, and a test compares the two.
EXIT_CODES = {
    0: "all done (`plan --exit-code`: the mirror is current)",
    1: "`plan --exit-code`: something is missing; otherwise an error of no other kind",
    2: "what was asked for can't be asked for: a bad reference, digest, list, spec or option, no such file",
    3: "of a set some images failed, or none is for a chosen platform; in files some can't be replaced",
    4: "network: no connection, no progress, connection lost",
    5: "the registry said no",
    6: "content does not have the digest or size that names it",
    7: "a manifest of schema 1, unknown kind, ambiguous, too large; a file of another kind",
    8: "the store, an archive, a layout, a plan, a report: full, read-only, cut off, corrupt",
    9: "the signature policy does not accept the image",
    INTERRUPTED: "interrupted; no tag or blob is half done, and the same command does what is left",
}


def error_of_set(errors: Iterable[BlobflowError], images: int, sentence: str) -> BlobflowError:
    """What a verb about a set of so many images ends with, if some of them failed: 3 with the sentence.

    Where no image could be looked at, since the one file they are all in is missing, of another kind or
    damaged, it is that: then the set was never begun.
    """
    return error_of_file(errors, images) or RunIncomplete(sentence)


def error_of_file(errors: Iterable[BlobflowError], images: int) -> BlobflowError | None:
    """The one error of all so many images, where it is about the file that they are in."""
    found = list(errors)
    whole = len(found) == images and all(each.about_file for each in found)
    return found[0] if whole and len({each.message for each in found}) == 1 else None
