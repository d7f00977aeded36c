"""Options that say which mirrors machines have, what they are told of them, and in which format."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from blobflow.cli.options.images import (
    SelectionOptions,
    SpecFormat,
    any_host_option,
    custom_resources_option,
    images_from_option,
    images_option,
    spec_format_option,
)
from blobflow.cli.options.option_group import OnceOption, option_group
from blobflow.cli.options.param_types import FILE, FOLDER
from blobflow.cli.options.places import PLACE
from blobflow.errors import UsageError
from blobflow.node_files.formats import FORMATS, OPENSHIFT_KINDS, Format, OpenshiftKind


class NodeSelection(msgspec.Struct, frozen=True):
    """Which mirrors: those of a spec, a list or a report, or places by themselves."""

    spec: Path | None = None
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    images: Path | None = None
    images_from: tuple[str, ...] = ()
    report: Path | None = None
    custom_resources: bool = False
    any_host: bool = False
    spec_format: SpecFormat = "auto"
    scoped: bool = False

    @property
    def names_images(self) -> bool:
        """Whether it says which images, and not places alone."""
        return bool(self.spec or self.images or self.images_from)

    @property
    def as_of_sync(self) -> SelectionOptions:
        """The same for `sync`. Raises UsageError for several sources, which only places have."""
        if len(self.sources) > 1:
            raise UsageError("several --from go with --to alone; in a spec or list each image has its host")
        return SelectionOptions(
            self.spec,
            self.sources[0] if self.sources else None,
            self.targets,
            self.images,
            self.spec_format,
            self.scoped,
            self.any_host,
            self.images_from,
            self.custom_resources,
        )


node_selection_options = option_group(
    "selection",
    NodeSelection,
    click.argument("spec", type=FILE, required=False),
    click.option(
        "--from",
        "sources",
        type=PLACE,
        metavar="HOST[/prefix]",
        multiple=True,
        help="What is mirrored, all of it or what a list names. [default: every registry] Repeatable.",
    ),
    click.option(
        "--to",
        "targets",
        type=PLACE,
        metavar="HOST[/prefix]",
        multiple=True,
        help="The mirrors, in the order in which they are asked. With SPEC those of its targets. Repeatable.",
    ),
    images_option,
    images_from_option,
    click.option(
        "--from-report",
        "report",
        type=FILE,
        metavar="FILE",
        help="Of the images that a run brought to their places, by the JSON report that it wrote.",
    ),
    custom_resources_option,
    any_host_option,
    spec_format_option,
    click.option("--scoped", is_flag=True, help="Keep host and path of each source, as sync does."),
    title="Image",
)


class NodeOptions(msgspec.Struct, frozen=True):
    """What nodes are told, and how."""

    form: Format
    output: Path | None = None
    by_digest: bool = False
    no_upstream: bool = False
    openshift_kind: OpenshiftKind = "both"
    partial: bool = False


node_options = option_group(
    "nodes",
    NodeOptions,
    click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        required=True,
        help="What reads it: a runtime, a distribution of Kubernetes, or a policy engine.",
    ),
    click.option(
        "--output",
        "-o",
        cls=OnceOption,
        type=FOLDER,
        metavar="DIR",
        help="Write the files below DIR, as they belong below a node's /, with their certificates.",
    ),
    click.option(
        "--by-digest", is_flag=True, help="Ask mirrors for digests alone; tags mean what their registry says."
    ),
    click.option(
        "--no-upstream", is_flag=True, help="Ask mirrors alone, and no image's own registry after them."
    ),
    click.option(
        "--partial",
        is_flag=True,
        help="Leave out what the format can't say, with a warning each; without it that is an error.",
    ),
    click.option(
        "--openshift-kind",
        type=click.Choice(OPENSHIFT_KINDS),
        default="both",
        help="ImageDigestMirrorSet, ImageTagMirrorSet, both, or what OpenShift before 4.13 has.",
    ),
)
