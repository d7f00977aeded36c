"""`signedIdentity` of a policy: which names in a signature are the name that an image goes by. Pure.

containers-policy.json(5). Names are compared in full, as docker writes them out (`docker.io/library/alpine`),
and no tag is ever made up: cosign signs `registry.example.com/app` without one, so what it signs is met by
`matchRepository` and `exactRepository`, and by the others only if a tag was signed as well
(`cosign sign --sign-container-identity`).

An image of a layout or archive goes by no name unless the place recorded a full one, host and all; without
one it is met by `exactReference` and `exactRepository` alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from blobflow.errors import InvalidDigest, InvalidReference
from blobflow.oci import Reference
from blobflow.oci.reference import DOCKER_HUB, looks_like_host, split_name
from blobflow.signatures.strict_json import Part

_NO_NAME = "a name that it does not have, since it is in no registry"

# containers/image's grammar of hosts, which a prefix has to begin with: a short name has none.
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PREFIX = re.compile(rf"{_LABEL}(?:\.{_LABEL})*(?::[0-9]+)?(?:/{_COMPONENT})*\Z")


class _Name(msgspec.Struct, frozen=True):
    """A reference in full. Without tag and digest it is a repository."""

    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def is_exact(self) -> bool:
        return bool(self.tag or self.digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"


class MatchExact(msgspec.Struct, frozen=True):
    """The same name with the same tag, or with the same digest."""

    def matches(self, claimed: Reference, signed: str) -> bool:
        """Whether a signature over `signed` is about the image that goes by `claimed`. What is no name, and a
        name without tag and digest, is about none."""
        name = _claimed(claimed)
        return name is not None and name.is_exact and _parse(signed) == name

    def wanted(self, claimed: Reference) -> str:
        """The names that it takes, in words that follow "the policy wants"."""
        return _exactly(_claimed(claimed))


class MatchRepoDigestOrExact(msgspec.Struct, frozen=True):
    """The same name with the same tag; of an image that goes by its digest any tag of its repository."""

    def matches(self, claimed: Reference, signed: str) -> bool:
        return _is_repo_digest_or_exact(_claimed(claimed), signed)

    def wanted(self, claimed: Reference) -> str:
        return _repo_digest_or_exact(_claimed(claimed))


class MatchRepository(msgspec.Struct, frozen=True):
    """The same repository, whatever the tag."""

    def matches(self, claimed: Reference, signed: str) -> bool:
        return _is_same_repository(_claimed(claimed), signed)

    def wanted(self, claimed: Reference) -> str:
        name = _claimed(claimed)
        return name.repository if name else _NO_NAME


class ExactReference(msgspec.Struct, frozen=True):
    """A name with tag or digest that the policy has, whatever the image goes by."""

    docker_reference: str

    def matches(self, claimed: Reference, signed: str) -> bool:
        name = _parse(self.docker_reference)
        return name is not None and name.is_exact and _parse(signed) == name

    def wanted(self, claimed: Reference) -> str:
        return _exactly(_parse(self.docker_reference))


class ExactRepository(msgspec.Struct, frozen=True):
    """A repository that the policy has, whatever the image goes by."""

    docker_repository: str

    def matches(self, claimed: Reference, signed: str) -> bool:
        return _is_same_repository(_parse(self.docker_repository), signed)

    def wanted(self, claimed: Reference) -> str:
        return str(_parse(self.docker_repository))


class RemapIdentity(msgspec.Struct, frozen=True):
    """As MatchRepoDigestOrExact, with `prefix` (host, namespace or repository of a mirror) exchanged for
    `signed_prefix`, whole components of the name at a time. A name without the prefix stays as it is."""

    prefix: str
    signed_prefix: str

    def matches(self, claimed: Reference, signed: str) -> bool:
        return _is_repo_digest_or_exact(self._remapped(claimed), signed)

    def wanted(self, claimed: Reference) -> str:
        name = self._remapped(claimed)
        if name is None and _claimed(claimed) is not None:
            return f"a repository under {self.signed_prefix}, which this name does not become"
        return _repo_digest_or_exact(name)

    def is_repository_of(self, claimed: Reference, signed: str) -> bool:
        """Whether it is the same repository, whatever the tag."""
        return _is_same_repository(self._remapped(claimed), signed)

    def _remapped(self, claimed: Reference) -> _Name | None:
        name = _claimed(claimed)
        prefix = _lower_host(self.prefix)
        if name is None or not f"{name.repository}/".startswith(f"{prefix}/"):
            return name
        text = f"{_lower_host(self.signed_prefix)}{name.repository[len(prefix) :]}"
        # What comes of it has to be a repository written out: docker.io/alpine is none.
        parsed = _parse(text)
        if parsed is None or parsed.repository != text:
            return None
        return _Name(text, name.tag, name.digest)


SignedIdentity: TypeAlias = (
    MatchExact | MatchRepoDigestOrExact | MatchRepository | ExactReference | ExactRepository | RemapIdentity
)


def advice(identity: SignedIdentity, claimed: Reference, signed: str) -> str:
    """Which identity takes a name that this one does not, as it lacks a tag; "" if that is not why."""
    parsed = _parse(signed)
    if parsed is None or parsed.is_exact:
        return ""
    match identity:
        case MatchExact() | MatchRepoDigestOrExact() if MatchRepository().matches(claimed, signed):
            return "matchRepository takes a name without a tag"
        case RemapIdentity() if identity.is_repository_of(claimed, signed):
            return "exactRepository takes a name without a tag"
        case ExactReference() if ExactRepository(identity.docker_reference).matches(claimed, signed):
            return "exactRepository takes a name without a tag"
        case _:
            return ""


def read_identity(part: Part) -> SignedIdentity:
    """Read a `signedIdentity` (or `baseLayerIdentity`). Raises InvalidConfig with its place."""
    kind = part.members().get("type")
    if kind is None:
        part.refuse('lacks "type"')
    if (word := kind.text()) not in _READERS:
        kind.refuse(f"should be one of {', '.join(_READERS)}")
    return _READERS[word](part)


def _without_fields(identity: SignedIdentity) -> Callable[[Part], SignedIdentity]:
    def read(part: Part) -> SignedIdentity:
        part.fields(("type",))
        return identity

    return read


def _exact_reference(part: Part) -> ExactReference:
    reference = part.fields(("type", "dockerReference"))["dockerReference"]
    if not _checked(reference).is_exact:
        reference.refuse("has neither a tag nor a digest; exactRepository is without")
    return ExactReference(reference.text())


def _exact_repository(part: Part) -> ExactRepository:
    repository = part.fields(("type", "dockerRepository"))["dockerRepository"]
    _checked(repository)
    return ExactRepository(repository.text())


def _remap_identity(part: Part) -> RemapIdentity:
    fields = part.fields(("type", "prefix", "signedPrefix"))
    return RemapIdentity(_prefix(fields["prefix"]), _prefix(fields["signedPrefix"]))


_READERS: dict[str, Callable[[Part], SignedIdentity]] = {
    "matchExact": _without_fields(MatchExact()),
    "matchRepoDigestOrExact": _without_fields(MatchRepoDigestOrExact()),
    "matchRepository": _without_fields(MatchRepository()),
    "exactReference": _exact_reference,
    "exactRepository": _exact_repository,
    "remapIdentity": _remap_identity,
}


def _claimed(reference: Reference) -> _Name | None:
    """The name that an image goes by; None if it has none. Where there is a digest a tag says nothing of what
    is read, so it is left out, as podman does it."""
    if reference.transport:
        host = reference.tag.partition("/")[0]
        named = _parse(reference.tag) if "/" in reference.tag and looks_like_host(host) else None
        if named is None or not reference.digest:
            return named
        return _Name(named.repository, digest=reference.digest)
    repository = f"{reference.host}/{reference.repository}"
    if reference.digest:
        return _Name(repository, digest=reference.digest)
    return _Name(repository, reference.tag)


def _checked(part: Part) -> _Name:
    try:
        return _read_name(part.text())
    except (InvalidReference, InvalidDigest) as error:
        part.refuse(error.message)


def _parse(text: str) -> _Name | None:
    try:
        return _read_name(text)
    except (InvalidReference, InvalidDigest):
        return None


def _read_name(text: str) -> _Name:
    host, repository, tag, digest = split_name(text)
    host = host or DOCKER_HUB
    if host == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return _Name(f"{host}/{repository}", tag, digest)


def _prefix(part: Part) -> str:
    text = part.text()
    if not _PREFIX.match(text):
        part.refuse("should be HOST[:PORT], a namespace or a repository, with its host and without a tag")
    return text


def _lower_host(prefix: str) -> str:
    host, slash, rest = prefix.partition("/")
    return f"{host.lower()}{slash}{rest}"


def _is_same_repository(name: _Name | None, signed: str) -> bool:
    parsed = _parse(signed)
    return name is not None and parsed is not None and parsed.repository == name.repository


def _is_repo_digest_or_exact(name: _Name | None, signed: str) -> bool:
    parsed = _parse(signed)
    if name is None or parsed is None or not name.is_exact or not parsed.is_exact:
        return False
    # That the digest is the signed one is proven by the signature itself.
    return parsed == name if name.tag else parsed.repository == name.repository


def _exactly(name: _Name | None) -> str:
    return f"exactly {name}" if name else _NO_NAME


def _repo_digest_or_exact(name: _Name | None) -> str:
    if name is None or name.tag:
        return _exactly(name)
    return f"{name.repository} with a tag or a digest"
