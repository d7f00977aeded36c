"""The option for verbs about one image of an index: which platform's."""

from __future__ import annotations

import click
import msgspec

from blobflow.cli.options.option_group import LabelOption, option_group


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
    click.option("--override-variant", cls=LabelOption, default="", metavar="VARIANT", hidden=True),
    title="",
)
