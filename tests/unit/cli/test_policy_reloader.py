"""A signature policy that is read again: what takes effect, and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blobflow.cli.runtime.reload import PolicyReloader
from blobflow.errors import InvalidConfig
from blobflow.signatures.contract import SignatureJudge
from blobflow.signatures.judge import load_judge


def write(policy: Path, kind: str) -> None:
    policy.write_text(json.dumps({"default": [{"type": kind}]}))


def test_only_another_policy_takes_effect(tmp_path: Path) -> None:
    policy, taken = tmp_path / "policy.json", list[SignatureJudge]()
    write(policy, "reject")
    first = load_judge(policy)
    reloader = PolicyReloader(policy, first, lambda: load_judge(policy), taken.append)
    assert (reloader.name, reloader.what, reloader.on_demand) == (str(policy), "the signature policy", True)
    assert reloader.read() is None
    write(policy, "insecureAcceptAnything")
    take = reloader.read()
    assert take is not None
    assert taken == [], "it takes effect on the loop"
    take()
    assert taken[0].fingerprint == load_judge(policy).fingerprint != first.fingerprint
    assert reloader.read() is None
    write(policy, "reject")
    assert reloader.read() is not None


def test_a_policy_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    policy, taken = tmp_path / "policy.json", list[SignatureJudge]()
    write(policy, "reject")
    reloader = PolicyReloader(policy, load_judge(policy), lambda: load_judge(policy), taken.append)
    write(policy, "accept")
    with pytest.raises(InvalidConfig, match="should be one of"):
        reloader.read()
    write(policy, "reject")
    assert reloader.read() is None
    assert taken == []
