"""What a run does where it has a choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from blobflow.engine.pairs import Lookup, Pair
from blobflow.errors import UsageError
from blobflow.signatures.contract import SignatureJudge

# How closely targets are verified, see `engine.targets.verification`.
VerifyLevel = Literal["roots", "blobs", "content"]
# Which roots of earlier runs are audited, see `engine.targets.audit`.
AuditMode = Literal["rolling", "all", "none"]
# Of which manifests a signature policy is asked, see `engine.signature_checks`.
Judged = Literal["root", "images", "all"]


class Policy(msgspec.Struct, frozen=True):
    """What a run does where it has a choice.

    `verify`: how closely the targets are verified after the transfer, see `engine.targets.verification`;
    "roots" checks the images that this run put, the others check every image, before the transfer too, and so
    repair what they can. `keep_going`: a failed image does not keep the others from being mirrored.
    `no_overwrite`: a target tag that names another digest is an error. `trust_root`: a target tag that names
    the right root counts as complete, also where no earlier run put it there. `wait`: where a source's pull
    quota is too small, read what it allows and wait for more; without it such a run is not begun.
    `foreign_layers`: layers with `urls`, or that are not meant to be distributed, are mirrored too where the
    source registry itself holds them; from their `urls` nothing is ever fetched. `referrers`: when to look up
    signatures, SBOMs and attestations; None: as each pair says. An image whose referrers can't be looked up
    fails. `audit`: which of the images that an earlier run put are audited before they count as complete, see
    `engine.targets.audit`; with another `verify` than "roots" all of them are checked anyway.

    `signatures` judges whether an image may be mirrored, before anything of it is put anywhere; None: every
    one may. `named_signatures`: the same for pairs that name another policy. `judged`: whether it is asked of
    what a source's name leads to, of each image below that, or of each manifest, see
    `engine.signature_checks`.
    """

    keep_going: bool = True
    no_overwrite: bool = False
    trust_root: bool = False
    verify: VerifyLevel = "roots"
    wait: bool = False
    foreign_layers: bool = False
    referrers: Lookup | None = None
    audit: AuditMode = "rolling"
    signatures: SignatureJudge | None = None
    named_signatures: Mapping[str, SignatureJudge] = {}
    judged: Judged = "root"

    def lookup(self, pair: Pair) -> Lookup:
        """When the referrers of a pair's image are looked up."""
        return self.referrers or pair.referrers

    def judge_of(self, pair: Pair) -> SignatureJudge | None:
        """Who judges a pair's image; None: nobody has to. Raises UsageError for a policy that is not here."""
        if not pair.signature_policy:
            return self.signatures
        if pair.signature_policy not in self.named_signatures:
            raise UsageError(
                f"{pair.source} is to be judged under the signature policy {pair.signature_policy}, which was"
                " not loaded"
            )
        return self.named_signatures[pair.signature_policy]


KEEP_GOING = Policy()
