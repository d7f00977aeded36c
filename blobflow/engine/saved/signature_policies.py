"""What a saved plan has of the signature policies that its images were judged under."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from blobflow.engine.plan.planned import Planned


class SavedSignaturePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signature policy that images were judged under: its files, and the fingerprint that it had then.
    `file`: "" for one that a program brought along."""

    fingerprint: str
    file: str = ""
    trusted_root: str = ""


def signature_policies_of(
    planned: Planned, files: Mapping[str, tuple[str, str]]
) -> dict[str, SavedSignaturePolicy]:
    """The signature policies that the images of a plan were judged under, by name."""
    found: dict[str, SavedSignaturePolicy] = {}
    for goal in planned.plan.goals:
        if (judge := planned.policy.judge_of(goal.pair)) is not None:
            name = goal.pair.signature_policy
            found[name] = SavedSignaturePolicy(judge.fingerprint, *files.get(name, ()))
    return dict(sorted(found.items()))
