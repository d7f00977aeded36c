"""Signature policies on the command line: which file judges what, and what was read of them.

`--policy` judges all images of a run, whatever a spec says; else `policy` of an entry or of the defaults of a
spec judges its images, and `[signatures]` of the configuration file all others. Nothing of it is imported
before there is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.options.run import RunOptions
from blobflow.errors import UsageError

if TYPE_CHECKING:
    from blobflow.engine.policy import Policy
    from blobflow.engine.saved.plan import SavedPlan
    from blobflow.settings import SignatureSettings
    from blobflow.signatures.contract import SignatureJudge


class PolicyFiles(msgspec.Struct, frozen=True):
    """The files of a signature policy."""

    policy: Path
    trusted_root: Path | None = None


def policy_files(run: RunOptions, config: Path | None, named: Iterable[str]) -> dict[str, PolicyFiles]:
    """The files by the names that pairs have for them; "" is the run's own. `named`: those that a spec names.
    `config`: the configuration file that was given.

    Raises InvalidConfig for a configuration that can't be used, and UsageError for a `--trusted-root` or
    `--policy-for` that nothing would ask for.
    """
    return _files(run, configured_signatures(config), named)


def with_signatures(run: RunOptions, config: Path | None, named: Iterable[str], policy: Policy) -> Policy:
    """The policy with all that judges signatures: see `policy_files`. Raises as that does, and InvalidConfig
    for a policy that can't be read, or be applied by what is installed here."""
    settings = configured_signatures(config)
    files = _files(run, settings, named)
    if not files:
        return policy
    judges = load_judges(files)
    judged = run.policy_for or settings.judged
    return msgspec.structs.replace(
        policy, signatures=judges.pop("", None), named_signatures=judges, judged=judged
    )


def with_plan_signatures(run: RunOptions, config: Path | None, saved: SavedPlan, policy: Policy) -> Policy:
    """The policy with all that judges the images of a saved plan: under `--policy`, else the plan's own
    policies, as their files are now; images that had none, under that of the configuration file.

    Raises as `with_signatures`, and UsageError for a plan whose policy is in no file.
    """
    if run.policy is not None:
        return with_signatures(run, config, saved.demanded, policy)
    files: dict[str, PolicyFiles] = {}
    for name, each in saved.demanded.items():
        if not each.file:
            raise UsageError(
                "a program made the plan under a signature policy of its own; name it with --policy"
            )
        trusted_root = run.trusted_root or (Path(each.trusted_root) if each.trusted_root else None)
        files[name] = PolicyFiles(Path(each.file), trusted_root)
    settings = configured_signatures(config)
    if settings.policy is not None and "" not in files:
        files[""] = PolicyFiles(settings.policy, run.trusted_root or settings.trusted_root)
    if not files:
        return with_signatures(run, config, (), policy)
    judges = load_judges(files)
    judged = policy.judged if saved.demanded else settings.judged
    return msgspec.structs.replace(
        policy, signatures=judges.pop("", None), named_signatures=judges, judged=judged
    )


def changed_policies(saved: SavedPlan, policy: Policy) -> list[str]:
    """A sentence for each signature policy of a plan that is not what it was when the plan was made."""
    notes = []
    for name, each in saved.demanded.items():
        judge = policy.named_signatures[name] if name else policy.signatures
        if judge is not None and judge.fingerprint != each.fingerprint:
            notes.append(
                f"the signature policy {each.file or 'of the plan'} was another one when the plan was made;"
                " the images are judged under the one of now"
            )
    return notes


def files_for_plan(run: RunOptions, config: Path | None, named: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The files of the policies of a plan that is saved, as absolute paths, and "" for none."""
    return {
        name: (str(each.policy.absolute()), str(each.trusted_root.absolute()) if each.trusted_root else "")
        for name, each in policy_files(run, config, named).items()
    }


def _files(run: RunOptions, settings: SignatureSettings, named: Iterable[str]) -> dict[str, PolicyFiles]:
    trusted_root = run.trusted_root or settings.trusted_root
    if run.policy is not None:
        return {name: PolicyFiles(run.policy, trusted_root) for name in ("", *named)}
    found = {name: PolicyFiles(Path(name), trusted_root) for name in named}
    if settings.policy is not None:
        found[""] = PolicyFiles(settings.policy, trusted_root)
    given = {"--trusted-root": run.trusted_root, "--policy-for": run.policy_for}
    for option, value in given.items():
        if value is not None and not found:
            raise UsageError(f"{option} is about a signature policy; say which one with --policy FILE")
    return found


def load_judges(files: Mapping[str, PolicyFiles]) -> dict[str, SignatureJudge]:
    """The judges by the names of their policies; each file is read once. Raises as `load_judge`."""
    from blobflow.signatures.judge import load_judge

    loaded = {each: load_judge(each.policy, trusted_root=each.trusted_root) for each in set(files.values())}
    return {name: loaded[each] for name, each in files.items()}


def configured_signatures(config: Path | None) -> SignatureSettings:
    """What the configuration file says of signatures. Raises InvalidConfig."""
    from blobflow.environment import config_file
    from blobflow.settings import SignatureSettings

    file = config or config_file(os.environ)
    if file is None:
        return SignatureSettings()
    from blobflow.config_file import read_signatures  # its TOML is paid for where there is some

    return read_signatures(file)
