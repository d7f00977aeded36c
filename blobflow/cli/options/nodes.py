"""Options that say what machines are told of their mirrors, and in which format."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from blobflow.cli.options.option_group import option_group
from blobflow.cli.options.param_types import FOLDER
from blobflow.node_files.formats import FORMATS, OPENSHIFT_KINDS, Format, OpenshiftKind


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
