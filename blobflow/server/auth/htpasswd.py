"""Parses logins: htpasswd files with bcrypt hashes, and HTTP's Basic (RFC 7617). Pure."""

from __future__ import annotations

import base64
import binascii
import re

from blobflow.errors import InvalidConfig

_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}\Z", re.ASCII)
# htpasswd itself goes no higher; each step doubles the work, and 31 would be days.
_MAX_COST = 17
# Bytes of a password; no implementation of bcrypt reads more.
PASSWORD_BYTES = 72
_MAX_HEADER = 4096


def parse_htpasswd(text: str, name: str) -> dict[str, bytes]:
    """User names and their hashes; empty lines and `#` comments are skipped.

    `name` is what the file is called in errors. Raises InvalidConfig with the line; never with a hash.
    """
    found: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        user, colon, hashed = entry.partition(":")
        if not colon or not user:
            raise InvalidConfig(f"{name} line {number} is not `user:hash`; make it with `htpasswd -B`")
        form = _HASH.match(hashed)
        if form is None or not 4 <= int(form[1]) <= _MAX_COST:
            raise InvalidConfig(
                f"{name} line {number} has no bcrypt hash (of a cost up to {_MAX_COST}); "
                "make it with `htpasswd -B`"
            )
        if user in found:
            raise InvalidConfig(f"{name} line {number} has a user that is there already; keep one")
        found[user] = hashed.encode()
    if not found:
        raise InvalidConfig(f"{name} has no user; add one with `htpasswd -B`")
    return found


def read_basic(authorization: str | None) -> tuple[str, bytes] | None:
    """User and password of an Authorization header; None for any other or none at all."""
    scheme, _, token = (authorization or "")[: _MAX_HEADER + 1].partition(" ")
    if scheme.lower() != "basic" or not token or len(token) >= _MAX_HEADER:
        return None
    try:
        user, colon, password = base64.b64decode(token.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


def is_nobody(authorization: str | None) -> bool:
    """Whether an Authorization header names no login: there is none, or its name and password are empty, as
    podman and skopeo send it where they know none and are asked for one."""
    return authorization is None or (authorization[6:] == "Og==" and authorization[:6].lower() == "basic ")
