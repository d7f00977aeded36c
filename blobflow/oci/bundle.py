"""What a bundle says of what it holds: annotations in its index.json, and plain files as artifacts. Pure.

A bundle is an OCI layout in a tar. Its index.json is the list of what it holds; beside the names that every
tool reads, each entry says where the image was, and the whole says which form of bundle it is. What is no
image is an artifact with files as its layers, in the form that `oci.artifact` has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from blobflow.errors import UnsupportedContent
from blobflow.lazy_pattern import LazyPattern
from blobflow.oci.artifact import EMPTY_TYPE
from blobflow.oci.manifest import Manifest
from blobflow.printable import printable

# Of index.json as a whole: the form of the bundle, a number that grows with what older readers would miss.
FORMAT = "io.blobflow.bundle.format"
OWN_FORMAT = 1
# Of an entry of index.json: the reference that the image had where it was saved from.
SOURCE = "io.blobflow.bundle.source"

# The artifacts that hold plain files, and the deployment files that images were collected from.
FILES_TYPE = "application/vnd.blobflow.files.v1"
DEPLOYMENT_TYPE = "application/vnd.blobflow.deployment-files.v1"
# The config of a chart, as Helm pushes it (helm.sh/docs/topics/registries).
CHART_CONFIG = "application/vnd.cncf.helm.config.v1+json"

# The repositories of plain files, and their tag: a bundle has one edition of each.
FILES_REPOSITORY, FILES_TAG = "files", "latest"
# The name of the artifact of deployment files, and what it says of itself: custom resources are looked into.
DEPLOYMENTS = f"{FILES_REPOSITORY}/deployments:{FILES_TAG}"
CUSTOM_RESOURCES = "io.blobflow.bundle.custom-resources"
# What stays of a file's name in a repository's, of which a registry takes 255 characters with all prefixes.
_MOST_NAME = 100

_PIECE = LazyPattern(r"[a-z0-9]+|[^a-z0-9]+")
_KEPT = LazyPattern(r"[a-z0-9]+|\.|__?|-+")


def check_format(annotations: Mapping[str, str], place: str) -> None:
    """Raise UnsupportedContent for a bundle of a form that only newer versions read."""
    text = annotations.get(FORMAT, "")
    if text and text != str(OWN_FORMAT):
        raise UnsupportedContent(
            f"{place} is of a bundle of the form {printable(text[:20])}, and this blobflow reads form "
            f"{OWN_FORMAT}; read it with a newer one"
        )


def kind_of(manifest: Manifest) -> str:
    """What a manifest is to people: `image`, `chart`, `files` or `artifact`. An index is an image."""
    if manifest.artifact_type in (FILES_TYPE, DEPLOYMENT_TYPE):
        return "files"
    if manifest.config is None:
        return "image"
    if manifest.config.media_type == CHART_CONFIG:
        return "chart"
    if manifest.artifact_type or manifest.config.media_type == EMPTY_TYPE:
        return "artifact"
    return "image"


def file_names(titles: Iterable[str]) -> list[str]:
    """What the artifacts of files are called, in their order, as `files/etc/app.conf:latest`.

    A title becomes a repository's name: lower case, with `-` for what that can't have. Where two would become
    the same, the later has a part of its title's digest, too.
    """
    taken = {DEPLOYMENTS}
    names = []
    for title in titles:
        name = "/".join(filter(None, map(_component, title.lower().split("/"))))
        short = hashlib.sha256(title.encode(errors="surrogateescape")).hexdigest()[:12]
        if not name or len(name) > _MOST_NAME:
            name = f"{name[:_MOST_NAME].rstrip('-._/')}-{short}".lstrip("-")
        full = f"{FILES_REPOSITORY}/{name}:{FILES_TAG}"
        if full in taken:
            full = f"{FILES_REPOSITORY}/{name}-{short}:{FILES_TAG}"
        taken.add(full)
        names.append(full)
    return names


def _component(text: str) -> str:
    """A component of a repository's name (distribution-spec, Pulling manifests); "" where nothing is left."""
    kept = (each if _KEPT.fullmatch(each) else "-" for each in _PIECE.findall(text))
    return "".join(kept).strip("-._")
