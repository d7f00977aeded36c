"""What files listed as referring to images when these were put: where they list the same, it need not be
looked for at the target again."""

from __future__ import annotations

from blobflow.content import Journal
from blobflow.engine.pairs import Pair
from blobflow.oci import Digest


def note_referrers(journal: Journal, pair: Pair, root: Digest, listed: str) -> None:
    """Remember what was listed for the image of the source's `root` (see `sources.referrers`), once it is at
    the pair's target."""
    if noted_referrers(journal, pair, root) != listed:
        journal.record_note(pair.target.host, _key(pair, root), listed)


def noted_referrers(journal: Journal, pair: Pair, root: Digest) -> str:
    """What was listed when the image was put; "" if that was not remembered."""
    return journal.note(pair.target.host, _key(pair, root)) or ""


def _key(pair: Pair, root: Digest) -> str:
    return f"referrers of {root} in {pair.target.repository}: {pair.choice.key}"
