"""`blobflow config`: an image's config, as crane has it; beside that, verbs about the configuration file."""

from __future__ import annotations

import click

from blobflow.cli.commands.config_files import check, schema, show
from blobflow.cli.commands.image_config import image
from blobflow.cli.verb import VerbFamily

_HELP = ("-h", "--help", "--help-all")


class ConfigGroup(VerbFamily):
    """Any word that is no verb of it is an image: `config alpine:3` is `config image alpine:3`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in _HELP:
            args = [image.name or "", *args]
        return super().parse_args(ctx, args)


@click.group("config", cls=ConfigGroup, subcommand_metavar="REF | VERB [ARGS]...")
def verb() -> None:
    """Show the config of an image, as crane does: what it runs, its environment, history and layers. Or show
    and check how blobflow is configured.

    An image that is called as a verb is has its host in front, as docker.io/library/show.

    \b
      blobflow config alpine:3
      blobflow config alpine:3 --platform linux/arm64
      blobflow config show
      blobflow config check mirror.yaml
      blobflow config schema --of spec > blobflow-spec.json
    """


for each in (image, show, check, schema):
    verb.add_command(each)
