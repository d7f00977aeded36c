"""Parses platform options, and applies the command line's choice to pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.options.platforms import PlatformOptions
from blobflow.errors import UsageError

if TYPE_CHECKING:
    from blobflow.cli.options.single_platform import SinglePlatform
    from blobflow.engine.pairs import Pair
    from blobflow.oci import Platform
    from blobflow.oci.platform_choice import PlatformChoice

ALL, SYSTEM = "all", "system"


def choose_platforms(pairs: Sequence[Pair], options: PlatformOptions) -> list[Pair]:
    """The pairs with the platforms that the options choose; each keeps its own choice where they say nothing.

    Raises UsageError for options that contradict each other.
    """
    chosen = []
    for pair in pairs:
        choice = _choice(options, pair.choice)
        missing = options.missing_platform or pair.missing_platform
        chosen.append(msgspec.structs.replace(pair, choice=choice, missing_platform=missing))
    return chosen


def _choice(options: PlatformOptions, own: PlatformChoice) -> PlatformChoice:
    from blobflow.oci.platform_choice import PlatformChoice

    words = [word for text in options.platform for word in text.split(",")]
    index = options.index
    system = bool(options.override_os or options.override_arch or options.override_variant)
    if options.all_platforms or options.multi_arch == "all":
        words.append(ALL)
    if options.multi_arch == "system" or (system and not words and not options.multi_arch):
        words.append(SYSTEM)
    if options.multi_arch == "index-only":
        if index not in (None, "only") or words:
            raise UsageError("--multi-arch index-only leaves nothing to choose with --index and --platform")
        index = "only"
    if system and SYSTEM not in words:
        raise UsageError("--override-os, -arch and -variant say what `system` is; add --platform system")
    said = (options.override_os, options.override_arch, options.override_variant)
    stands_for = system_platform(*said) if SYSTEM in words else None
    platforms = own.platforms if not words else parse_platforms(words, stands_for)
    if options.preserve_digests:
        if (index or own.index) == "prune" or options.format or own.format:
            other = "--format" if options.format or own.format else "a pruned index"
            raise UsageError(
                f"--preserve-digests: {other} gives what is copied another digest; leave one out"
            )
        index = index or ("keep" if platforms and own.index == "auto" else index)
    if options.format and (index or own.index) in ("keep", "only"):
        raise UsageError("--format makes other manifests; an index can't be kept or brought alone then")
    if not platforms and index in ("keep", "prune"):
        raise UsageError(f"--index {index} is about a choice of platforms; say which with --platform")
    return PlatformChoice(platforms, index or own.index, options.format or own.format)


def parse_platforms(words: Sequence[str], system: Platform | None = None) -> tuple[Platform, ...]:
    """The platforms that the words name, each once, sorted; an empty tuple for `all`.

    Raises UsageError.
    """
    from blobflow.oci import parse_platform

    if ALL in words:
        if set(words) != {ALL}:
            raise UsageError("`all` platforms and some of them can't both be meant")
        return ()
    found = {parse_platform(word) for word in words if word != SYSTEM}
    if SYSTEM in words:
        from blobflow.transports.local import host_platform

        found.add(system or host_platform())
    return tuple(sorted(found))


def parse_single(options: SinglePlatform) -> Platform:
    """The one platform that is meant: this machine's where none was asked for. Raises UsageError."""
    from blobflow.oci import parse_platform

    if options.platform not in ("", ALL, SYSTEM):
        return parse_platform(options.platform)
    return system_platform(options.override_os, options.override_arch, options.override_variant)


def system_platform(os: str = "", architecture: str = "", variant: str = "") -> Platform:
    """The platform of this machine, with what is said otherwise."""
    from blobflow.transports.local import host_platform

    own = host_platform()
    variant = variant or ("" if architecture else own.variant)
    return msgspec.structs.replace(
        own, os=os or own.os, architecture=architecture or own.architecture, variant=variant
    )
