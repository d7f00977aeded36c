"""Platform options: which platforms of an image, and how its index is treated; with skopeo's options for
it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.options.option_group import LabelOption, option_group

if TYPE_CHECKING:
    from blobflow.engine.pairs import MissingPlatform
    from blobflow.oci.docker_conversion import Format
    from blobflow.oci.platform_choice import IndexMode

_INDEX_MODES = ("auto", "keep", "prune", "only")


class PlatformOptions(msgspec.Struct, frozen=True):
    """The options about platforms and index; None or empty if an option was not given."""

    platform: tuple[str, ...] = ()
    index: IndexMode | None = None
    multi_arch: str | None = None
    all_platforms: bool = False
    override_os: str = ""
    override_arch: str = ""
    override_variant: str = ""
    format: Format = ""
    preserve_digests: bool = False
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
    click.option("-a", "--all", "all_platforms", is_flag=True, help="skopeo's word for --platform all."),
    click.option("--override-os", default="", metavar="OS", help="What `system` stands for."),
    click.option("--override-arch", default="", metavar="ARCH", help="What `system` stands for."),
    click.option(
        "--override-variant",
        cls=LabelOption,
        default="",
        metavar="VARIANT",
        help="What `system` stands for.",
    ),
    click.option(
        "--format",
        type=click.Choice(("oci", "v2s2")),
        callback=lambda _context, _option, said: said or "",
        help="Put manifests in this format, for targets that take no other; digests change.",
    ),
    click.option(
        "--preserve-digests",
        is_flag=True,
        help="Fail what could only arrive with another digest: no pruned index, no other format.",
    ),
    missing_platform_option,
    title="Platform",
    common=("platform",),
)
