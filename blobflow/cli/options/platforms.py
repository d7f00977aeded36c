"""Which platforms of an image, and what its index then is: the options, skopeo's words for them included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.options.connection import option_group
from blobflow.errors import UsageError

if TYPE_CHECKING:
    from blobflow.engine.plan.steps import MissingPlatform, Pair
    from blobflow.oci import Platform
    from blobflow.oci.docker_conversion import Format
    from blobflow.oci.platform_choice import IndexMode, PlatformChoice

_INDEX_MODES = ("auto", "keep", "prune", "only")
ALL, SYSTEM = "all", "system"


class PlatformOptions(msgspec.Struct, frozen=True):
    """What was said of platforms and index on the command line; None and nothing: not a word."""

    platform: tuple[str, ...] = ()
    index: IndexMode | None = None
    multi_arch: str | None = None
    all_platforms: bool = False
    override_os: str = ""
    override_arch: str = ""
    override_variant: str = ""
    format: Format = ""
    missing_platform: MissingPlatform | None = None


missing_platform_option = click.option(
    "--missing-platform",
    type=click.Choice(("fail", "skip")),
    help="Of an image for none of the platforms: fail it, or skip it and say so. [default: as the spec says, "
    "else skip in a set, fail a single image]",
)

platform_options = option_group(
    "platforms",
    PlatformOptions,
    click.option(
        "--platform",
        multiple=True,
        metavar="PLATFORM",
        help="os/architecture[/variant], `system` or `all` (the default); several by commas or by repeating.",
    ),
    click.option(
        "--index",
        type=click.Choice(_INDEX_MODES),
        help="Of a choice of platforms: keep the index as it is (sparse), prune it to them (another digest), "
        "auto: keep where the target takes it, else prune (the default); only: the index alone.",
    ),
    click.option(
        "--multi-arch",
        type=click.Choice(("system", "all", "index-only")),
        help="skopeo's words for --platform system, --platform all and --index only.",
    ),
    click.option("--all", "all_platforms", is_flag=True, help="skopeo's word for --platform all."),
    click.option("--override-os", default="", metavar="OS", help="What `system` stands for."),
    click.option("--override-arch", default="", metavar="ARCH", help="What `system` stands for."),
    click.option("--override-variant", default="", metavar="VARIANT", help="What `system` stands for."),
    click.option(
        "--format",
        type=click.Choice(("oci", "v2s2")),
        callback=lambda _context, _option, said: said or "",
        help="Put manifests in this format, for targets that take no other; digests change.",
    ),
    missing_platform_option,
)


def choose_platforms(pairs: Sequence[Pair], options: PlatformOptions) -> list[Pair]:
    """The pairs with the choice that the command line makes; where it says nothing, with their own.

    Raises UsageError for words that contradict each other.
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
    stands_for = _system_platform(options) if SYSTEM in words else None
    platforms = own.platforms if not words else parse_platforms(words, stands_for)
    if options.format and (index or own.index) in ("keep", "only"):
        raise UsageError("--format makes other manifests; an index can't be kept or brought alone then")
    if not platforms and index in ("keep", "prune"):
        raise UsageError(f"--index {index} is about a choice of platforms; say which with --platform")
    return PlatformChoice(platforms, index or own.index, options.format or own.format)


def parse_platforms(words: Sequence[str], system: Platform | None = None) -> tuple[Platform, ...]:
    """The platforms that some words stand for, each once, in a fixed order; none for `all`.

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


def _system_platform(options: PlatformOptions) -> Platform:
    from blobflow.transports.local import host_platform

    own = host_platform()
    architecture = options.override_arch or own.architecture
    variant = options.override_variant or ("" if options.override_arch else own.variant)
    return msgspec.structs.replace(
        own, os=options.override_os or own.os, architecture=architecture, variant=variant
    )
