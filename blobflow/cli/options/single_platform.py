"""The option for verbs about one image of an index: which platform's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.options.option_group import option_group

if TYPE_CHECKING:
    from blobflow.oci import Platform


class SinglePlatform(msgspec.Struct, frozen=True):
    """Which platform was asked for; empty strings if an option was not given."""

    platform: str = ""
    override_os: str = ""
    override_arch: str = ""
    override_variant: str = ""

    @property
    def chooses(self) -> bool:
        """Whether one platform was asked for; `all` is what is named, as a whole."""
        return self not in (SinglePlatform(), SinglePlatform("all"))

    def parse(self) -> Platform:
        """The platform: this machine's where nothing was asked for. Raises UsageError."""
        from blobflow.cli.inputs.platforms import SYSTEM, system_platform
        from blobflow.oci import parse_platform

        if self.platform not in ("", "all", SYSTEM):
            return parse_platform(self.platform)
        return system_platform(self.override_os, self.override_arch, self.override_variant)


single_platform_option = option_group(
    "wanted",
    SinglePlatform,
    click.option(
        "--platform",
        default="",
        metavar="PLATFORM",
        help="Of an index, the image for this one: os/architecture[/variant], or `system`.",
    ),
    click.option("--override-os", default="", metavar="OS", hidden=True),
    click.option("--override-arch", default="", metavar="ARCH", hidden=True),
    click.option("--override-variant", default="", metavar="VARIANT", hidden=True),
)
