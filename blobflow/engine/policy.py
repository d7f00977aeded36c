"""What a run does where it has a choice."""

from __future__ import annotations

from typing import Literal

import msgspec

from blobflow.engine.pairs import Lookup, Pair

# How closely targets are asked whether they have what they should, see `engine.targets.verification`.
VerifyLevel = Literal["roots", "blobs", "content"]
# Below which roots of earlier runs it is looked, see `engine.targets.audit`.
AuditMode = Literal["rolling", "all", "none"]


class Policy(msgspec.Struct, frozen=True):
    """What a run does where it has a choice.

    `verify`: how closely the targets are asked after the transfer, see `engine.targets.verification`; "roots"
    looks at the images that this run put, the others at every image, before the transfer too, and so repair
    what they can. `keep_going`: a failed image does not keep the others from being mirrored. `no_overwrite`:
    a target tag that names another digest is an error. `trust_root`: a target tag that names the right root
    is taken as whole, also where no earlier run of ours put it there. `wait`: where a source lets fewer
    manifests be read than are needed, read those and wait for more; without it such a run is not begun.
    `foreign_layers`: layers with `urls`, or that are not meant to be distributed, are mirrored too where the
    source registry itself holds them; from their `urls` nothing is ever fetched. `referrers`: when to look up
    signatures, SBOMs and attestations; None: as each pair says. An image whose referrers can't be looked up
    fails. `audit`: below which of the images that an earlier run put it is looked before they are taken as
    whole, see `engine.targets.audit`; with another `verify` than "roots" all of them are looked below anyway.
    """

    keep_going: bool = True
    no_overwrite: bool = False
    trust_root: bool = False
    verify: VerifyLevel = "roots"
    wait: bool = False
    foreign_layers: bool = False
    referrers: Lookup | None = None
    audit: AuditMode = "rolling"

    def lookup(self, pair: Pair) -> Lookup:
        """When what refers to a pair's image is looked up."""
        return self.referrers or pair.referrers


KEEP_GOING = Policy()
