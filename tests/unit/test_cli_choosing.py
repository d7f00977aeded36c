"""The words for platforms and indexes: flags, skopeo's flags, and what a spec says."""

from __future__ import annotations

import platform

import pytest

from blobflow.cli.choosing import Choosing, choose, platforms_of
from blobflow.cli.selection import copy_pairs, settle
from blobflow.cli.spec import parse_spec
from blobflow.errors import BlobflowError, UsageError
from blobflow.oci import parse_platform
from blobflow.oci.choice import EVERYTHING, Choice
from blobflow.transports.local import this_machine

AMD64, ARM64, ARMV7 = map(parse_platform, ("linux/amd64", "linux/arm64", "linux/arm/v7"))


def choice_of(choosing: Choosing, own: Choice = EVERYTHING) -> Choice:
    [pair] = copy_pairs("alpine:3", ["127.0.0.1:5000/alpine"])
    [chosen] = choose([pair.__class__(pair.source, pair.target, own)], choosing)
    return chosen.choice


@pytest.mark.parametrize(
    ("choosing", "choice"),
    [
        (Choosing(), Choice()),
        (Choosing(("linux/arm64",)), Choice((ARM64,))),
        (Choosing(("linux/arm64,linux/amd64", "linux/amd64")), Choice(tuple(sorted((AMD64, ARM64))))),
        (Choosing(("linux/arm64",), "keep"), Choice((ARM64,), "keep")),
        (Choosing(("all",)), Choice()),
        (Choosing(index="only"), Choice((), "only")),
        (Choosing(multi_arch="all"), Choice()),
        (Choosing(all_platforms=True), Choice()),
        (Choosing(multi_arch="index-only"), Choice((), "only")),
        (Choosing(multi_arch="system", override_arch="arm64"), Choice((ARM64,))),
        (Choosing(override_arch="arm", override_variant="v7"), Choice((ARMV7,))),
        (Choosing(("system",), override_os="linux", override_arch="amd64"), Choice((AMD64,))),
    ],
)
def test_what_flags_choose(choosing: Choosing, choice: Choice) -> None:
    assert choice_of(choosing) == choice


def test_flags_go_before_the_spec_s_own_choice() -> None:
    own = Choice((ARM64,), "prune")
    assert choice_of(Choosing(), own) == own
    assert choice_of(Choosing(("all",)), own) == Choice((), "prune")
    assert choice_of(Choosing(index="keep"), own) == Choice((ARM64,), "keep")


@pytest.mark.parametrize(
    ("choosing", "said"),
    [
        (Choosing(("all,linux/amd64",)), "can't both be meant"),
        (Choosing(("windows",)), "is not a platform"),
        (Choosing(index="prune"), "say which with --platform"),
        (Choosing(("linux/amd64",), multi_arch="index-only"), "leaves nothing to choose"),
        (Choosing(("linux/amd64",), override_arch="arm"), "add --platform system"),
    ],
)
def test_words_that_contradict_each_other(choosing: Choosing, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choice_of(choosing)


@pytest.mark.parametrize(
    ("machine", "found"), [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("arm64", "linux/arm64")]
)
def test_system_is_this_machine(machine: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert this_machine() == parse_platform(found)
    assert platforms_of(["system"]) == (parse_platform(found),)


SPEC = """\
version: 1
defaults: {{source: docker.io, targets: [127.0.0.1:5000], platforms: [linux/amd64, linux/arm64]}}
images:
  - rancher/pause:3.1
  - {entry}
"""


def spec_choices(entry: str) -> list[Choice]:
    return [pair.choice for pair in settle(parse_spec(SPEC.format(entry=entry), "mirror.yaml"), {}).pairs]


def test_a_spec_chooses_for_all_and_for_each() -> None:
    both = Choice(tuple(sorted((AMD64, ARM64))))
    assert spec_choices("rancher/shell:1") == [both, both]
    assert spec_choices("{image: 'rancher/shell:1', platforms: [all]}") == [both, Choice()]
    assert spec_choices("{image: 'rancher/shell:1', platforms: [linux/arm/v7], index: prune}") == [
        both,
        Choice((ARMV7,), "prune"),
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{image: 'rancher/shell:1', platforms: [linux]}", "line 5: 'linux' is not a platform"),
        ("{image: 'rancher/shell:1', index: sparse}", "line 5.*index"),
        ("{image: 'rancher/shell:1', platform: [all]}", "did you mean `platforms`"),
    ],
)
def test_a_spec_that_chooses_badly(entry: str, said: str) -> None:
    with pytest.raises(BlobflowError, match=said):
        spec_choices(entry)
