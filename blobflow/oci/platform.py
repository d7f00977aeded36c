"""Platforms: image-spec image-index.md, `platform`, with the normal forms that Go's tools use."""

from __future__ import annotations

import msgspec

from blobflow.errors import UsageError

# What a platform's `length` may be. Windows has the longest ones, of some twenty characters.
MAX_PLATFORM = 1024
# Implied variants, as in containerd: linux/arm64 is linux/arm64/v8, linux/arm is linux/arm/v7.
_IMPLIED_VARIANT = {"arm64": "v8", "arm": "v7"}
_ALIASES = {
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armel": ("arm", "v6"),
    "i386": ("386", None),
    "i686": ("386", None),
}


class Platform(
    msgspec.Struct,
    frozen=True,
    order=True,
    gc=False,
    rename={"os_version": "os.version", "os_features": "os.features"},
):
    """What an image runs on. Empty strings mean "not said"."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def matches(self, wanted: Platform) -> bool:
        """Whether this one satisfies `wanted`; what `wanted` leaves out is free.

        linux/arm64 equals linux/arm64/v8, and linux/arm equals linux/arm/v7, both ways. What this one calls
        by another name (x86_64, aarch64, armhf), or in capitals, is understood.
        """
        architecture, variant = _normal(self.architecture, self.variant)
        if (self.os.lower(), architecture) != (wanted.os, wanted.architecture):
            return False
        if wanted.os_version and not self.os_version.startswith(wanted.os_version):
            return False
        implied = _IMPLIED_VARIANT.get(architecture, "")
        if not wanted.variant and architecture not in _IMPLIED_VARIANT:
            return True
        return (variant or implied) == (wanted.variant or implied)

    @property
    def is_known(self) -> bool:
        """Whether it says anything: empty words do not, nor does `unknown`, as attestations have it."""
        return not {self.os, self.architecture} <= {"", "unknown"}

    @property
    def length(self) -> int:
        """Characters of its longest part, and how many features there are: each is held, be it empty."""
        words = (self.architecture, self.os, self.variant, self.os_version)
        return max(*map(len, words), sum(map(len, self.os_features)) + len(self.os_features))

    def __str__(self) -> str:
        parts = [self.os or "unknown", self.architecture or "unknown"]
        if self.variant:
            parts.append(self.variant)
        text = "/".join(parts)
        return f"{text} ({self.os_version})" if self.os_version else text


def _normal(architecture: str, variant: str) -> tuple[str, str]:
    """An architecture and variant as Go's tools call them."""
    lowered = architecture.lower()
    name, implied = _ALIASES.get(lowered, (lowered, None))
    return name, variant.lower() or implied or ""


def implied_variant(architecture: str) -> str:
    """The variant that is meant where none is said, "" where none is."""
    return _IMPLIED_VARIANT.get(architecture, "")


def parse_platform(text: str) -> Platform:
    """Read `os/architecture[/variant]`; what Debian and uname say (x86_64, aarch64, armhf) is understood.

    Raises UsageError with the form that is wanted.
    """
    parts = text.strip().lower().split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(f"{text[:80]!r} is not a platform; write os/architecture[/variant], as linux/arm64")
    architecture, variant = _normal(parts[1], parts[2] if len(parts) == 3 else "")
    return Platform(architecture=architecture, os=parts[0], variant=variant)
