"""What a signature policy can require of an image: the types of containers-policy.json(5).

They are read here and judged elsewhere. Of a key or certificate that stands in the file it is only known that
it is base64, and a path may lead nowhere. `place` is where a requirement stands in its file, for errors.

Paths are as the file has them; a relative one counts from the working folder, as skopeo and podman have it.
An empty path or name is refused, though containers/image takes a log key's empty path for no log at all: a
template whose variable is not set should not ask for less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from blobflow.signatures.signed_identity import MatchRepoDigestOrExact, SignedIdentity, read_identity
from blobflow.signatures.strict_json import Part

_KEY_TYPES = ("GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs")
_KEYS = ("keyPath", "keyPaths", "keyData", "keyDatas")
_LOG_KEYS = ("rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas")


class Accept(msgspec.Struct, frozen=True):
    """`insecureAcceptAnything`: any image, signed or not."""

    place: str = ""


class Reject(msgspec.Struct, frozen=True):
    """`reject`: no image at all."""

    place: str = ""


class SignedBy(msgspec.Struct, frozen=True):
    """`signedBy`: signed with GnuPG ("simple signing"), which blobflow does not verify: it meets no image."""

    place: str = ""


class SignedBaseLayer(msgspec.Struct, frozen=True):
    """`signedBaseLayer`: nobody verifies it, containers/image neither: it meets no image."""

    place: str = ""


class Fulcio(msgspec.Struct, frozen=True):
    """Certificates of a Fulcio CA, in PEM from a file or from here: exactly one of `ca_path` ("" if not) and
    `ca_data` (None if not). The certificate's issuer and e-mail address have to be these."""

    oidc_issuer: str
    subject_email: str
    ca_path: str = ""
    ca_data: bytes | None = None


class Pki(msgspec.Struct, frozen=True):
    """Certificates of a CA of one's own, in PEM: exactly one of `ca_roots_path` ("" if not) and
    `ca_roots_data` (None if not), at most one of the intermediates. At least one subject is given; those that
    are have to be in the certificate."""

    ca_roots_path: str = ""
    ca_roots_data: bytes | None = None
    ca_intermediates_path: str = ""
    ca_intermediates_data: bytes | None = None
    subject_email: str = ""
    subject_hostname: str = ""


class SigstoreSigned(msgspec.Struct, frozen=True):
    """`sigstoreSigned`: signed with one of these keys, or with a certificate of `fulcio` or of `pki`.

    Exactly one of `key_paths`, `key_datas`, `fulcio` and `pki` is given, with what is one in the file
    (`keyPath`) as a tuple of one. Keys of the log, of which one has to promise that the signature is there:
    at least one with `fulcio`, none with `pki`.
    """

    place: str = ""
    key_paths: tuple[str, ...] = ()
    key_datas: tuple[bytes, ...] = ()
    fulcio: Fulcio | None = None
    pki: Pki | None = None
    rekor_public_key_paths: tuple[str, ...] = ()
    rekor_public_key_datas: tuple[bytes, ...] = ()
    signed_identity: SignedIdentity = MatchRepoDigestOrExact()


Requirement: TypeAlias = Accept | Reject | SignedBy | SignedBaseLayer | SigstoreSigned


def type_of(requirement: Requirement) -> str:
    """The word of its type in the file."""
    return next(word for word, (kind, _) in _TYPES.items() if isinstance(requirement, kind))


def read_requirement(part: Part) -> Requirement:
    """Read a requirement. Raises InvalidConfig with its place."""
    kind = part.members().get("type")
    if kind is None:
        part.refuse('lacks "type"')
    if (word := kind.text()) not in _TYPES:
        kind.refuse(f"should be one of {', '.join(_TYPES)}")
    return _TYPES[word][1](part)


def _accept(part: Part) -> Accept:
    part.fields(("type",))
    return Accept(part.place)


def _reject(part: Part) -> Reject:
    part.fields(("type",))
    return Reject(part.place)


def _signed_base_layer(part: Part) -> SignedBaseLayer:
    read_identity(part.fields(("type", "baseLayerIdentity"))["baseLayerIdentity"])
    return SignedBaseLayer(part.place)


def _signed_by(part: Part) -> SignedBy:
    fields = part.fields(("type", "keyType"), ("keyPath", "keyPaths", "keyData", "signedIdentity"))
    if fields["keyType"].text() not in _KEY_TYPES:
        fields["keyType"].refuse(f"should be one of {', '.join(_KEY_TYPES)}")
    _only_one(part, fields, ("keyPath", "keyPaths", "keyData"))
    _paths(fields, "keyPath")
    _datas(fields, "keyData")
    if "signedIdentity" in fields:
        read_identity(fields["signedIdentity"])
    return SignedBy(part.place)


def _sigstore_signed(part: Part) -> SigstoreSigned:
    fields = part.fields(("type",), (*_KEYS, "fulcio", "pki", *_LOG_KEYS, "signedIdentity"))
    source = _only_one(part, fields, (*_KEYS, "fulcio", "pki"))
    log_key = _at_most_one(part, fields, _LOG_KEYS)
    if source == "fulcio" and not log_key:
        part.refuse(
            f"fulcio goes with a key of the log, whose time counts; add one of {', '.join(_LOG_KEYS)}"
        )
    if source == "pki" and log_key:
        part.refuse(f"pki does not go with a log; leave {log_key} out")
    identity = fields.get("signedIdentity")
    return SigstoreSigned(
        place=part.place,
        key_paths=_paths(fields, "keyPath"),
        key_datas=_datas(fields, "keyData"),
        fulcio=_fulcio(fields["fulcio"]) if source == "fulcio" else None,
        pki=_pki(fields["pki"]) if source == "pki" else None,
        rekor_public_key_paths=_paths(fields, "rekorPublicKeyPath"),
        rekor_public_key_datas=_datas(fields, "rekorPublicKeyData"),
        signed_identity=read_identity(identity) if identity else MatchRepoDigestOrExact(),
    )


_TYPES: dict[str, tuple[type[Requirement], Callable[[Part], Requirement]]] = {
    "insecureAcceptAnything": (Accept, _accept),
    "reject": (Reject, _reject),
    "signedBy": (SignedBy, _signed_by),
    "signedBaseLayer": (SignedBaseLayer, _signed_base_layer),
    "sigstoreSigned": (SigstoreSigned, _sigstore_signed),
}


def _fulcio(part: Part) -> Fulcio:
    fields = part.fields(("oidcIssuer", "subjectEmail"), ("caPath", "caData"))
    _only_one(part, fields, ("caPath", "caData"))
    return Fulcio(
        oidc_issuer=fields["oidcIssuer"].filled(),
        subject_email=fields["subjectEmail"].filled(),
        ca_path=_filled(fields, "caPath"),
        ca_data=_decoded(fields, "caData"),
    )


def _pki(part: Part) -> Pki:
    roots, intermediates = ("caRootsPath", "caRootsData"), ("caIntermediatesPath", "caIntermediatesData")
    subjects = ("subjectEmail", "subjectHostname")
    fields = part.fields((), (*roots, *intermediates, *subjects))
    _only_one(part, fields, roots)
    _at_most_one(part, fields, intermediates)
    if not any(each in fields for each in subjects):
        part.refuse(f"needs {' or '.join(subjects)}: any certificate of the CA would do without")
    return Pki(
        ca_roots_path=_filled(fields, "caRootsPath"),
        ca_roots_data=_decoded(fields, "caRootsData"),
        ca_intermediates_path=_filled(fields, "caIntermediatesPath"),
        ca_intermediates_data=_decoded(fields, "caIntermediatesData"),
        subject_email=_filled(fields, "subjectEmail"),
        subject_hostname=_filled(fields, "subjectHostname"),
    )


def _only_one(part: Part, fields: dict[str, Part], names: tuple[str, ...]) -> str:
    """Which of the fields is there. Refuses none of them, and several."""
    found = _at_most_one(part, fields, names)
    if not found:
        part.refuse(f"needs one of {', '.join(names)}")
    return found


def _at_most_one(part: Part, fields: dict[str, Part], names: tuple[str, ...]) -> str:
    found = [each for each in names if each in fields]
    if len(found) > 1:
        part.refuse(f"has {' and '.join(found)}, of which only one may be given")
    return found[0] if found else ""


def _paths(fields: dict[str, Part], one: str) -> tuple[str, ...]:
    """Of `keyPath` or `keyPaths`, whichever is there."""
    if one in fields:
        return (fields[one].filled(),)
    many = fields.get(f"{one}s")
    return tuple(each.filled() for each in many.items()) if many else ()


def _datas(fields: dict[str, Part], one: str) -> tuple[bytes, ...]:
    """Of `keyData` or `keyDatas`, whichever is there."""
    if one in fields:
        return (fields[one].decoded(),)
    many = fields.get(f"{one}s")
    return tuple(each.decoded() for each in many.items()) if many else ()


def _filled(fields: dict[str, Part], name: str) -> str:
    return fields[name].filled() if name in fields else ""


def _decoded(fields: dict[str, Part], name: str) -> bytes | None:
    return fields[name].decoded() if name in fields else None
