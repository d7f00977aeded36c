"""signedIdentity: which signed names are about an image, over names that docker writes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.oci import Reference, parse_reference
from blobflow.signatures.signed_identity import (
    ExactReference,
    ExactRepository,
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    RemapIdentity,
    SignedIdentity,
    advice,
)

SHA, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
RELATIVE = (MatchExact(), MatchRepoDigestOrExact(), MatchRepository())


def matches(identity: SignedIdentity, claimed: str, signed: str) -> bool:
    return identity.matches(parse_reference(claimed), signed)


# What the image goes by, what is signed, and whether it is met: exactly; by repository and digest, or
# exactly; by repository.
@pytest.mark.parametrize(
    ("claimed", "signed", "exact", "digest_or_exact", "repository"),
    [
        ("h.example/app:1", "h.example/app:1", True, True, True),
        ("h.example/app:1", "h.example/app:2", False, False, True),
        ("h.example/app:1", "h.example/app", False, False, True),
        ("h.example/app:latest", "h.example/app", False, False, True),
        ("h.example/app:1", f"h.example/app@{SHA}", False, False, True),
        ("h.example/app:1", f"h.example/app:1@{SHA}", False, False, True),
        ("h.example/app:1", "h.example/apps:1", False, False, False),
        ("h.example/app:1", "h.example/team/app:1", False, False, False),
        ("h.example/app:1", "h.example:5000/app:1", False, False, False),
        ("h.example/app:1", "app:1", False, False, False),
        (f"h.example/app@{SHA}", f"h.example/app@{SHA}", True, True, True),
        (f"h.example/app@{SHA}", f"h.example/app@{OTHER}", False, True, True),
        (f"h.example/app@{SHA}", "h.example/app:1", False, True, True),
        (f"h.example/app@{SHA}", "h.example/app", False, False, True),
        (f"h.example/app@{SHA}", "h.example/other:1", False, False, False),
        (f"h.example/app:1@{SHA}", f"h.example/app@{SHA}", True, True, True),
        (f"h.example/app:1@{SHA}", "h.example/app:2", False, True, True),
        ("busybox:1", "docker.io/library/busybox:1", True, True, True),
        ("docker.io/library/busybox:1", "busybox:1", True, True, True),
        ("busybox:1", "index.docker.io/library/busybox:1", True, True, True),
        ("busybox:1", "library/busybox:2", False, False, True),
        ("H.example/app:1", "h.EXAMPLE/app:1", True, True, True),
        ("h.example/app:1", "", False, False, False),
        ("h.example/app:1", "h.example/APP:1", False, False, False),
        ("h.example/app:1", "docker://h.example/app:1", False, False, False),
        ("h.example/app:1", " h.example/app:1", False, False, False),
        ("h.example/app:1", "h.example/app:1\n", False, False, False),
    ],
)
def test_names_are_compared_in_full(
    claimed: str, signed: str, exact: bool, digest_or_exact: bool, repository: bool
) -> None:
    assert [matches(each, claimed, signed) for each in RELATIVE] == [exact, digest_or_exact, repository]


@pytest.mark.parametrize(
    ("signed", "reference", "repository"),
    [
        ("vendor.example/app:1", True, True),
        ("vendor.example/app:2", False, True),
        ("vendor.example/app", False, True),
        (f"vendor.example/app:1@{SHA}", False, True),
        ("vendor.example/other:1", False, False),
        ("mirror.example/app:1", False, False),
    ],
)
def test_a_name_of_the_policy_counts_whatever_the_image_goes_by(
    signed: str, reference: bool, repository: bool
) -> None:
    for claimed in ("mirror.example/app:9", "oci:/srv/app", f"mirror.example/app@{OTHER}"):
        assert matches(ExactReference("vendor.example/app:1"), claimed, signed) is reference
        assert matches(ExactRepository("vendor.example/app:9"), claimed, signed) is repository


@pytest.mark.parametrize(
    ("prefix", "signed_prefix", "claimed", "signed", "met"),
    [
        ("m.example", "v.example", "m.example/a/app:1", "v.example/a/app:1", True),
        ("m.example", "v.example", "m.example/a/app:1", "v.example/a/app:2", False),
        ("m.example", "v.example", "m.example/a/app:1", "m.example/a/app:1", False),
        ("m.example", "v.example", f"m.example/a/app@{SHA}", "v.example/a/app:7", True),
        ("m.example", "v.example", f"m.example/a/app@{SHA}", "v.example/a/app", False),
        ("m.example", "v.example", "m.example:5000/a:1", "v.example:5000/a:1", False),
        ("m.example", "v.example", "m.example.org/a:1", "v.example.org/a:1", False),
        ("m.example:5000/hub", "docker.io", "m.example:5000/hub/library/app:1", "app:1", True),
        ("m.example:5000/hub", "docker.io", "m.example:5000/hub/app:1", "docker.io/library/app:1", False),
        ("m.example/v", "v.example", "m.example/vv/app:1", "v.example/v/app:1", False),
        ("m.example/v/app", "v.example/app", "m.example/v/app:1", "v.example/app:1", True),
        ("m.example/v/app", "v.example", "m.example/v/app:1", "docker.io/library/v.example:1", False),
        ("m.example/v", "v.example", "other.example/app:1", "other.example/app:1", True),
        ("M.example", "V.example", "m.example/app:1", "v.example/app:1", True),
        ("docker.io/library", "v.example/hub", "busybox:1", "v.example/hub/busybox:1", True),
    ],
)
def test_a_mirrors_prefix_is_exchanged_by_whole_components(
    prefix: str, signed_prefix: str, claimed: str, signed: str, met: bool
) -> None:
    assert matches(RemapIdentity(prefix, signed_prefix), claimed, signed) is met


def test_an_image_in_a_file_goes_by_a_full_name_or_by_none() -> None:
    identities = (*RELATIVE, RemapIdentity("m.example", "h.example"))
    for nameless in ("oci:/srv/app", "oci:/srv/app:1", "oci:/srv/app:app:1", "docker-archive:/a.tar"):
        assert not any(matches(each, nameless, "docker.io/library/app:1") for each in identities)
        assert not any(matches(each, nameless, "") for each in identities)
    for named in ("docker-archive:/a.tar:h.example/app:1", "oci:/srv/app:h.example/app:1"):
        assert all(matches(each, named, "h.example/app:1") for each in identities)
        assert not any(matches(each, named, "h.example/other:1") for each in identities)
    pinned = Reference("oci:/srv/app", "", "h.example/app:1", SHA)
    assert MatchRepoDigestOrExact().matches(pinned, "h.example/app:2")
    assert not MatchExact().matches(pinned, "h.example/app:1")


@pytest.mark.parametrize(
    ("identity", "claimed", "words"),
    [
        (MatchExact(), "busybox", "exactly docker.io/library/busybox:latest"),
        (MatchRepoDigestOrExact(), "h.example/a:1", "exactly h.example/a:1"),
        (MatchRepoDigestOrExact(), f"h.example/a:1@{SHA}", "h.example/a with a tag or a digest"),
        (MatchRepository(), "h.example/a:1", "h.example/a"),
        (MatchRepository(), "oci:/srv/a", "a name that it does not have, since it is in no registry"),
        (ExactReference("busybox:1"), "oci:/srv/a", "exactly docker.io/library/busybox:1"),
        (ExactRepository("busybox"), "oci:/srv/a", "docker.io/library/busybox"),
        (RemapIdentity("m.example", "v.example"), "m.example/a:1", "exactly v.example/a:1"),
        (
            RemapIdentity("m.example", "docker.io"),
            "m.example/a:1",
            "a repository under docker.io, which this name does not become",
        ),
    ],
)
def test_what_is_wanted_is_said_in_words(identity: SignedIdentity, claimed: str, words: str) -> None:
    assert identity.wanted(parse_reference(claimed)) == words


@pytest.mark.parametrize(
    ("identity", "signed", "form"),
    [
        (MatchExact(), "m.example/app", "matchRepository"),
        (MatchRepoDigestOrExact(), "m.example/app", "matchRepository"),
        (RemapIdentity("m.example", "v.example"), "v.example/app", "exactRepository"),
        (ExactReference("v.example/app:1"), "v.example/app", "exactRepository"),
        (MatchRepoDigestOrExact(), "m.example/app:2", ""),
        (MatchRepoDigestOrExact(), "m.example/other", ""),
        (RemapIdentity("m.example", "v.example"), "m.example/app", ""),
        (ExactReference("v.example/app:1"), "m.example/app", ""),
        (MatchRepository(), "v.example/app", ""),
        (MatchExact(), "", ""),
    ],
)
def test_who_lacks_a_tag_alone_is_told_which_identity_takes_it(
    identity: SignedIdentity, signed: str, form: str
) -> None:
    said = advice(identity, parse_reference("m.example/app:1"), signed)
    assert said == (f"{form} takes a name without a tag" if form else "")


@given(st.text(max_size=30), st.sampled_from(["h.example/app:1", f"h.example/app@{SHA}", "oci:/srv/app"]))
def test_no_other_text_is_a_name(signed: str, claimed: str) -> None:
    identities = (*RELATIVE, ExactReference("h.example/app:1"), RemapIdentity("m.example", "h.example"))
    assert not any(matches(each, claimed, f"{signed}?") for each in identities)
