"""Signature policies: containers' `policy.json`, read as skopeo and podman read it.

    {
      "default": [{"type": "reject"}],
      "transports": {
        "docker": {
          "registry.example.com/app": [{"type": "sigstoreSigned", "keyPath": "/keys/app.pub"}]
        }
      }
    }

containers-policy.json(5), and containers/image's `signature/policy_config.go` where that leaves something
open. What is not understood makes the whole file unusable: a policy that is half read lets too much through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from blobflow.bounded_file import read_named
from blobflow.errors import InvalidConfig
from blobflow.file_errors import FileErrors
from blobflow.oci import Reference
from blobflow.signatures.requirements import (
    Accept,
    Reject,
    Requirement,
    SignedBaseLayer,
    SignedBy,
    SigstoreSigned,
    read_requirement,
)
from blobflow.signatures.scopes import canonical_scope, scope_error, scopes_of
from blobflow.signatures.strict_json import Part, parse_strictly

__all__ = [
    "Accept",
    "Reject",
    "Requirement",
    "ScopedRequirements",
    "SignaturePolicy",
    "SignedBaseLayer",
    "SignedBy",
    "SigstoreSigned",
    "parse_policy",
    "read_policy",
]

# Bytes. Policies have a few hundred; those with dozens of keys inside have some ten thousand.
MAX_BYTES = 4 * 1024 * 1024

_DEFAULT = "default"


class ScopedRequirements(msgspec.Struct, frozen=True):
    """What is required of an image, all of it at once, and by which scope of the policy.

    `scope`: as the policy writes it; "docker, default" for the scope "" of a transport, and "default" for
    what holds where nothing else does.
    """

    scope: str
    requirements: tuple[Requirement, ...]


class SignaturePolicy:
    """A policy that was read. Its keys were not. Immutable.

    `raw`: the bytes of the file, of which a fingerprint can be made.
    """

    def __init__(
        self,
        default: tuple[Requirement, ...],
        transports: Mapping[str, Mapping[str, tuple[Requirement, ...]]],
        *,
        raw: bytes = b"",
    ) -> None:
        self.raw = raw
        self._default = ScopedRequirements(_DEFAULT, default)
        self._transports = {transport: _by_lookup(transport, each) for transport, each in transports.items()}

    def requirements(self, transport: str, reference: Reference) -> ScopedRequirements:
        """Those of the most specific scope that the image is in; of others nothing is required.

        `transport` as containers-policy.json(5) names it. Follows the links in the path of a layout or
        archive, and asks nobody else.
        """
        scopes = self._transports.get(transport)
        if scopes:
            for scope in scopes_of(transport, reference):
                if found := scopes.get(scope):
                    return found
        return self._default

    def all_requirements(self) -> Iterator[Requirement]:
        """The requirements of all scopes."""
        yield from self._default.requirements
        for scopes in self._transports.values():
            for each in scopes.values():
                yield from each.requirements


def read_policy(path: Path) -> SignaturePolicy:
    """Read a policy.

    Raises InvalidConfig with the file, and the place and the reason of each mistake in it.
    """
    return parse_policy(read_named(path, "signature policy", MAX_BYTES), str(path))


def parse_policy(raw: bytes, name: str = "policy.json") -> SignaturePolicy:
    """Read the text of a policy, which errors call `name`. Raises as `read_policy`."""
    if len(raw) > MAX_BYTES:
        raise InvalidConfig(f"{name} has more than {MAX_BYTES // 1024**2} MiB; is it a signature policy?")
    fields = parse_strictly(raw, name).fields(("default",), ("transports",))
    errors = FileErrors()
    default = _requirements(fields["default"], errors)
    transports = {}
    if "transports" in fields:
        for transport, part in fields["transports"].members().items():
            transports[transport] = _scopes(transport, part, errors)
    errors.check()
    return SignaturePolicy(default, transports, raw=raw)


def _scopes(transport: str, part: Part, errors: FileErrors) -> dict[str, tuple[Requirement, ...]]:
    scopes: dict[str, tuple[Requirement, ...]] = {}
    lookups: dict[str, str] = {}
    for scope, each in part.members().items():
        try:
            if reason := scope_error(transport, scope):
                each.refuse(reason)
            first = lookups.setdefault(canonical_scope(transport, scope), scope)
            if first != scope:
                each.refuse(f"is the scope {first} in another spelling")
        except InvalidConfig as error:
            errors.add(error)
        scopes[scope] = _requirements(each, errors)
    return scopes


def _requirements(part: Part, errors: FileErrors) -> tuple[Requirement, ...]:
    """The requirements of a list that can be read; what is wrong with the others is added to the errors."""
    found = []
    try:
        parts = part.items()
    except InvalidConfig as error:
        errors.add(error)
        return ()
    for each in parts:
        try:
            found.append(read_requirement(each))
        except InvalidConfig as error:
            errors.add(error)
    return tuple(found)


def _by_lookup(
    transport: str, scopes: Mapping[str, tuple[Requirement, ...]]
) -> dict[str, ScopedRequirements]:
    return {
        canonical_scope(transport, scope): ScopedRequirements(scope or f"{transport}, default", requirements)
        for scope, requirements in scopes.items()
    }
