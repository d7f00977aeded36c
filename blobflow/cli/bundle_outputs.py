"""What `load` writes beside the images: a bundle's plain files, and node configuration for the mirrors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from blobflow.cli.options.bundle import BundleOptions
from blobflow.cli.options.nodes import NodeOptions
from blobflow.cli.output.stdio import print_lines
from blobflow.errors import UsageError
from blobflow.node_files.formats import Format
from blobflow.oci.local_reference import transport_of

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import RegistryPrefix
    from blobflow.client import Client
    from blobflow.mirror_places import MirrorPlaces
    from blobflow.oci import Reference
    from blobflow.oci.index_grouping import ImageName
    from blobflow.operations.airgap.load import ArchiveInput
    from blobflow.operations.artifacts.pull import PulledFile
    from blobflow.settings import Settings


class BundleOutputs:
    """What is to be written for one load. `places`: where its images go, each a mirror. `names`: the images
    that are loaded; whoever aims them sets it."""

    def __init__(self, options: BundleOptions, places: Sequence[RegistryPrefix]) -> None:
        """Raises UsageError for options that make no sense together."""
        self._options = options
        self._places = places
        self._nodes = [parse_nodes(text) for text in options.nodes]
        if not places and options.files_to is None:
            raise UsageError("say where to with --to HOST[/prefix], or --files-to DIR for plain files alone")
        if self._nodes:
            _check_mirrors(places, "--nodes")
        self._written: list[PulledFile] = []
        self._origins: Mapping[ImageName, Reference] = {}
        self.names: Iterable[ImageName] = ()

    async def begin(self, client: Client, inputs: Sequence[ArchiveInput]) -> None:
        """Check the archives, and write their files, before anything is loaded. Raises as `check_digest_list`
        and `extract_files`."""
        from blobflow.cli.inputs.digest_lists import check_digest_list

        await check_digest_list(client, self._options.digests, inputs)
        if self._options.files_to is not None:
            from blobflow.operations.airgap.extract import extract_files

            self._written = await extract_files(client, inputs, self._options.files_to)
        if self._nodes:
            from blobflow.operations.airgap.origins import image_origins

            self._origins = await image_origins(client, inputs)

    def finish(self, settings: Settings, archives: Sequence[str], *, quiet: bool) -> None:
        """Print what was written, and write what the mirrors need. `archives` is what they are called.

        Raises as `make_node_files` and `write_node_files`, before any of it is written where that shows.
        """
        if self._options.files_to is not None and not quiet:
            from blobflow.cli.output.artifact_text import written_lines

            print_lines(*written_lines(self._written, ", ".join(archives)))
        if self._nodes:
            from blobflow.cli.node_output import make_node_files, write_node_files

            mirrors = mirrors_of_load(self.names, self._origins, self._places)
            made = [make_node_files(mirrors, options, settings) for options in self._nodes]
            for files, options in zip(made, self._nodes, strict=True):
                write_node_files(files, options, quiet=quiet)


def parse_nodes(text: str) -> NodeOptions:
    """FORMAT[:DIR] as the options of `nodes`. Mirrors alone are asked, since what they lack is nowhere else
    on this side; docker, which always asks docker.io as well, is left its way. Raises UsageError."""
    form, colon, folder = text.partition(":")
    for known in get_args(Format):
        if form == known and (folder or not colon):
            output = Path(folder) if folder else None
            return NodeOptions(known, output, no_upstream=known != "docker")
    known = ", ".join(get_args(Format))
    raise UsageError(f"--nodes {text[:100]} is not FORMAT or FORMAT:DIR; the formats are {known}")


def _check_mirrors(places: Sequence[RegistryPrefix], option: str) -> None:
    """Raise UsageError where nothing could be told of the places that a load is for."""
    if not places:
        raise UsageError(f"{option} is about a mirror: say with --to HOST[/prefix] which")
    for place in places:
        if transport_of(place.host):
            raise UsageError(f"{place} is no registry, and {option} is about one")


def mirrors_of_load(
    names: Iterable[ImageName], origins: Mapping[ImageName, Reference], places: Sequence[RegistryPrefix]
) -> list[MirrorPlaces]:
    """Where images are that have been loaded to these places, the first of them first."""
    from blobflow.engine.pairs import Pair
    from blobflow.mirror_places import places_of_pairs

    known = [name for name in names if name in origins]
    return [
        places_of_pairs(
            [Pair(origins[name], place.under(name.path, name.tag, name.digest)) for name in known]
        )
        for place in places
    ]
