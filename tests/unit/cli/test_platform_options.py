"""The words for platforms and indexes: flags, skopeo's flags, and what a spec says."""

from __future__ import annotations

import platform

import pytest

from blobflow.cli.inputs.copy_arguments import copy_pairs
from blobflow.cli.inputs.expansion import expand
from blobflow.cli.inputs.platforms import choose_platforms, parse_platforms
from blobflow.cli.inputs.spec import parse_spec
from blobflow.cli.options.platforms import PlatformOptions
from blobflow.errors import BlobflowError, UsageError
from blobflow.oci import parse_platform
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice
from blobflow.transports.local import host_platform

AMD64, ARM64, ARMV7 = map(parse_platform, ("linux/amd64", "linux/arm64", "linux/arm/v7"))


def choice_of(choosing: PlatformOptions, own: PlatformChoice = EVERYTHING) -> PlatformChoice:
    [pair] = copy_pairs("alpine:3", ["127.0.0.1:5000/alpine"])
    [chosen] = choose_platforms([pair.__class__(pair.source, pair.target, own)], choosing)
    return chosen.choice


@pytest.mark.parametrize(
    ("choosing", "choice"),
    [
        (PlatformOptions(), PlatformChoice()),
        (PlatformOptions(("linux/arm64",)), PlatformChoice((ARM64,))),
        (
            PlatformOptions(("linux/arm64,linux/amd64", "linux/amd64")),
            PlatformChoice(tuple(sorted((AMD64, ARM64)))),
        ),
        (PlatformOptions(("linux/arm64",), "keep"), PlatformChoice((ARM64,), "keep")),
        (PlatformOptions(("all",)), PlatformChoice()),
        (PlatformOptions(index="only"), PlatformChoice((), "only")),
        (PlatformOptions(multi_arch="all"), PlatformChoice()),
        (PlatformOptions(all_platforms=True), PlatformChoice()),
        (PlatformOptions(multi_arch="index-only"), PlatformChoice((), "only")),
        (PlatformOptions(multi_arch="system", override_arch="arm64"), PlatformChoice((ARM64,))),
        (PlatformOptions(override_arch="arm", override_variant="v7"), PlatformChoice((ARMV7,))),
        (PlatformOptions(("system",), override_os="linux", override_arch="amd64"), PlatformChoice((AMD64,))),
    ],
)
def test_what_flags_choose(choosing: PlatformOptions, choice: PlatformChoice) -> None:
    assert choice_of(choosing) == choice


def test_digests_that_are_to_stay_stay_or_it_is_an_error() -> None:
    kept = PlatformOptions(preserve_digests=True)
    assert choice_of(kept) == EVERYTHING
    assert choice_of(kept, PlatformChoice((ARM64,))) == PlatformChoice((ARM64,), "keep")
    assert choice_of(PlatformOptions(("linux/arm64",), preserve_digests=True)).index == "keep"
    assert choice_of(PlatformOptions(index="only", preserve_digests=True)).index == "only"
    for other in (
        PlatformOptions(("linux/arm64",), "prune", preserve_digests=True),
        PlatformOptions(format="v2s2", preserve_digests=True),
    ):
        with pytest.raises(UsageError, match=r"--preserve-digests: .* gives what is copied another digest"):
            choice_of(other)
    with pytest.raises(UsageError, match="a pruned index"):
        choice_of(kept, PlatformChoice((ARM64,), "prune"))


def test_flags_go_before_the_spec_s_own_choice() -> None:
    own = PlatformChoice((ARM64,), "prune")
    assert choice_of(PlatformOptions(), own) == own
    assert choice_of(PlatformOptions(("all",)), own) == PlatformChoice((), "prune")
    assert choice_of(PlatformOptions(index="keep"), own) == PlatformChoice((ARM64,), "keep")


@pytest.mark.parametrize(
    ("choosing", "said"),
    [
        (PlatformOptions(("all,linux/amd64",)), "can't both be meant"),
        (PlatformOptions(("windows",)), "is not a platform"),
        (PlatformOptions(index="prune"), "say which with --platform"),
        (PlatformOptions(("linux/amd64",), multi_arch="index-only"), "leaves nothing to choose"),
        (PlatformOptions(("linux/amd64",), override_arch="arm"), "add --platform system"),
    ],
)
def test_words_that_contradict_each_other(choosing: PlatformOptions, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choice_of(choosing)


@pytest.mark.parametrize(
    ("machine", "found"), [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("arm64", "linux/arm64")]
)
def test_system_is_this_machine(machine: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert host_platform() == parse_platform(found)
    assert parse_platforms(["system"]) == (parse_platform(found),)


SPEC = """\
version: 1
defaults: {{source: docker.io, targets: [127.0.0.1:5000], platforms: [linux/amd64, linux/arm64]}}
images:
  - rancher/pause:3.1
  - {entry}
"""


def spec_choices(entry: str) -> list[PlatformChoice]:
    return [pair.choice for pair in expand(parse_spec(SPEC.format(entry=entry), "mirror.yaml"), {}).pairs]


def test_a_spec_chooses_for_all_and_for_each() -> None:
    both = PlatformChoice(tuple(sorted((AMD64, ARM64))))
    assert spec_choices("rancher/shell:1") == [both, both]
    assert spec_choices("{image: 'rancher/shell:1', platforms: [all]}") == [both, PlatformChoice()]
    assert spec_choices("{image: 'rancher/shell:1', platforms: [linux/arm/v7], index: prune}") == [
        both,
        PlatformChoice((ARMV7,), "prune"),
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
