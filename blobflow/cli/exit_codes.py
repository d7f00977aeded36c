"""What the exit code of the `blobflow` command means."""

from __future__ import annotations

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C

# Code → what it means; docs/exit-codes.md has the same table, and a test compares the two.
EXIT_CODES = {
    0: "all done (`plan --exit-code`: the mirror is current)",
    1: "`plan --exit-code`: something is missing; otherwise an error of no other kind",
    2: "what was asked for can't be asked for: a bad reference, digest, list, spec or option",
    3: "of a set some images failed, or none is for a chosen platform; report and last lines say which",
    4: "network: no connection, no progress, connection lost",
    5: "the registry said no",
    6: "content does not have the digest or size that names it",
    7: "a manifest that can't be mirrored: schema 1, of unknown kind, ambiguous, too large",
    8: "the store, an archive, a layout: full, read-only, cut off, corrupt",
    INTERRUPTED: "interrupted; no tag or blob is half done, and the same command does what is left",
}
