"""What `load` writes beside the images: a bundle's plain files, its deployment files with the images of the
mirror in them, and node configuration."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, get_args

import msgspec

from blobflow.cli.options.bundle import BundleOptions
from blobflow.cli.options.nodes import NodeOptions
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.output.warnings import print_warnings
from blobflow.errors import UsageError
from blobflow.node_files.formats import Format
from blobflow.oci.local_reference import transport_of

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import RegistryPrefix
    from blobflow.cli.options.output import OutputOptions
    from blobflow.client import Client
    from blobflow.mirror_places import MirrorPlaces
    from blobflow.oci import Digest, Reference
    from blobflow.oci.index_grouping import ImageName
    from blobflow.operations.airgap.archive_inputs import ArchiveInput
    from blobflow.operations.airgap.extract import ExtractedFiles
    from blobflow.operations.airgap.load import Loaded
    from blobflow.settings import Settings


class BundleOutputs:
    """What is to be written for one load. `places`: where its images go, each a mirror.

    A context manager: deployment files are in a temporary folder until they are written.
    """

    def __init__(self, options: BundleOptions, places: Sequence[RegistryPrefix]) -> None:
        """Raises UsageError for options that make no sense together."""
        self._options = options
        self._places = places
        self._nodes = [
            msgspec.structs.replace(parse_nodes(text), partial=options.partial) for text in options.nodes
        ]
        if not places and options.files_to is None:
            raise UsageError("say where to with --to HOST[/prefix], or --files-to DIR for plain files alone")
        for needed, option in ((self._nodes, "--nodes"), (options.rewrite, "--rewrite")):
            if needed:
                _check_mirrors(places, option)
        if options.partial and not self._nodes:
            raise UsageError("--partial is about the files of --nodes FORMAT; give that, too")
        if options.rewrite_digests and options.rewrite is None:
            raise UsageError("--rewrite-digests is about the files of --rewrite DIR; give that, too")
        self._stack = ExitStack()
        self._scratch = Path()
        self._written: ExtractedFiles | None = None
        self._deployments: ExtractedFiles | None = None
        self._origins: Mapping[ImageName, Reference] = {}
        self._paths: Mapping[ImageName, str] = {}
        self._loaded: dict[ImageName, Digest] = {}

    def __enter__(self) -> BundleOutputs:
        return self

    def __exit__(self, *ended: object) -> None:
        self._stack.close()

    async def begin(self, client: Client, inputs: Sequence[ArchiveInput]) -> None:
        """Check the archives, and write their files, before anything is loaded. Raises as `check_digest_list`
        and `extract_files`, and UsageError where there are no deployment files to rewrite."""
        from blobflow.cli.inputs.digest_lists import check_digest_list

        options = self._options
        await check_digest_list(client, options.digests, inputs)
        if options.files_to is None and options.rewrite is None:
            return
        from blobflow.operations.airgap.extract import extract_files

        if options.files_to is not None:
            self._written = await extract_files(client, inputs, options.files_to)
        if options.rewrite is not None:
            self._scratch = Path(self._stack.enter_context(TemporaryDirectory(prefix="blobflow-")))
            self._deployments = await extract_files(client, inputs, self._scratch, deployments_alone=True)
            if not self._deployments.files:
                raise UsageError(
                    "no deployment files are in the bundle; `save --images-from` puts them there"
                )

    def take(self, names: Iterable[ImageName], loaded: Loaded) -> None:
        """Take note of the images that are loaded, as far as they are there."""
        self._origins, self._paths = loaded.origins, loaded.paths
        self._loaded = {name: loaded.groups[name].root.digest for name in names if name in loaded.groups}

    def finish(
        self,
        failed: Collection[ImageName],
        archives: Sequence[str],
        settings: Settings,
        output: OutputOptions,
    ) -> None:
        """Print what was written, and write what is about the mirror, without the images that `failed`.
        `archives` is what they are called.

        Raises as `make_node_files`, `write_node_files` and `rewrite_deployments`.
        """
        if self._written is not None and not output.quiet:
            from blobflow.cli.output.artifact_text import written_lines

            print_lines(*written_lines(self._written.files, ", ".join(archives)))
        if self._nodes or self._deployments is not None:
            there = [name for name in self._loaded if name in self._origins and name not in failed]
            mirrors = [self._mirror(place, there) for place in self._places]
            self._write_nodes(mirrors, settings, output)
            self._rewrite(mirrors[0], there, output)

    def _mirror(self, place: RegistryPrefix, names: Sequence[ImageName]) -> MirrorPlaces:
        from blobflow.engine.pairs import Pair
        from blobflow.mirror_places import places_of_pairs

        return places_of_pairs(
            [
                Pair(
                    self._origins[name],
                    place.under(self._paths.get(name, name.path), name.tag, name.digest),
                )
                for name in names
            ]
        )

    def _write_nodes(
        self, mirrors: Sequence[MirrorPlaces], settings: Settings, output: OutputOptions
    ) -> None:
        """Write or print the configuration in each format, after all were made."""
        if not self._nodes:
            return
        from blobflow.cli.node_output import make_node_files, write_node_files

        try:
            made = [make_node_files(mirrors, options, settings) for options in self._nodes]
        except UsageError as error:
            raise UsageError(
                f"the images are loaded, and machines are told nothing: `blobflow nodes` says {error.message}"
            ) from None
        for files, options in zip(made, self._nodes, strict=True):
            print_warnings([f"left out: {each}" for each in files.refused], output)
            write_node_files(files, options, quiet=output.quiet)

    def _rewrite(self, places: MirrorPlaces, names: Sequence[ImageName], output: OutputOptions) -> None:
        if self._deployments is None or self._options.rewrite is None:
            return
        from blobflow.cli.bundle_rewriting import LoadedImage, LoadedPlaces, rewrite_deployments

        images = [LoadedImage(self._origins[name], self._loaded[name]) for name in names]
        loaded = LoadedPlaces(images, places, self._places[0], with_digests=self._options.rewrite_digests)
        folder = self._options.rewrite
        rewrite_deployments(self._deployments, self._scratch, folder, loaded.place_of, output)


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
