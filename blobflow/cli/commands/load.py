"""`blobflow load`: archives and bundles, to registries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.options.bundle import BundleOptions, bundle_options
from blobflow.cli.options.connection import COMMON, ConnectionOptions, target_connection_options
from blobflow.cli.options.engine import EngineOptions, engine_options
from blobflow.cli.options.images import any_host_option
from blobflow.cli.options.option_group import OnceOption, hide_options, show_first, was_typed
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.run import RunOptions, run_options
from blobflow.cli.run_command import RunRecorder, run_command
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb
from blobflow.errors import UsageError

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import RegistryPrefix
    from blobflow.client import Client
    from blobflow.engine.pairs import Pair
    from blobflow.oci.index_grouping import ImageName
    from blobflow.operations.airgap.load import Loaded


@click.command("load", cls=Verb)
@show_first("targets", "files_to", "nodes", "images", "digests", "arch_tags", "platform", "report", *COMMON)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--to",
    "targets",
    type=PLACE,
    metavar="HOST[/prefix]",
    multiple=True,
    help="Where to. Repeatable.",
)
@click.option(
    "--images",
    cls=OnceOption,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="LIST",
    help="Only these: one repository:tag a line; # comments; - is stdin.",
)
@any_host_option
@click.option("--arch-tags", is_flag=True, help="Tag each platform as well, as NAME:TAG-arm64.")
@bundle_options
@hide_options("dry_run")
@run_options
@engine_options
@target_connection_options
def verb(
    files: tuple[str, ...],
    targets: tuple[str, ...],
    images: Path | None,
    any_host: bool,
    arch_tags: bool,
    bundle: BundleOptions,
    run: RunOptions,
    engine: EngineOptions,
    connection: ConnectionOptions,
) -> None:
    """Bring what archives hold to a registry, each name as one multi-platform image.

    FILE is what `docker save`, `podman save -m` or `blobflow save` wrote: a tar, plain or compressed by gzip,
    zstd, bzip2, xz or lz4; - is standard input. Several with one platform each become one index a name;
    platforms come from the images' configs. Where those are known to be wrong,
    FILE,platform=OS/ARCH[/VARIANT] says so. A bundle in parts is given with all of them, or by its name
    without their numbers. Its plain files become artifacts, and with --files-to files again.

    \b
      blobflow load images-amd64.tar.gz images-arm64.tar.gz images-arm.tar.gz --to 127.0.0.1:5000
      blobflow load bundle.tar --to 127.0.0.1:5000/mirror --files-to files --nodes containerd:node
      ssh build docker save app:1 | blobflow load - --to 127.0.0.1:5000
    """
    from blobflow.cli.bundle_outputs import BundleOutputs
    from blobflow.cli.inputs.archives import names_stdin, parse_archives, spooled_archives
    from blobflow.cli.inputs.requests import parse_registry_prefix

    piped = names_stdin(files)
    _check(run, images, piped=piped)
    places = [parse_registry_prefix(target) for target in targets]
    listed = None if images is None else _read_listed(images, any_host=any_host)
    known = None if piped else parse_archives(files)
    outputs = BundleOutputs(bundle, places)
    idle = engine.resolve(connection.config) is not None and was_typed("engine")

    async def work(client: Client, begin: RunRecorder) -> Sequence[str]:
        from blobflow.operations.airgap.load import load

        def aim(loaded: Loaded) -> list[Pair]:
            names = _wanted_names(loaded, listed)
            outputs.take(names, loaded)
            pairs = (_pairs_of_name(loaded, *name, places, arch_tags) for name in names.items())
            return [*chain.from_iterable(pairs)]

        wanted = None if listed is None else {name: line.host for name, line in listed.items()}
        inputs = known or await spooled_archives(client, files)
        await outputs.begin(client, inputs)
        if places:
            await load(client, inputs, aim, begin, wanted=wanted, policy=begin.policy)
        return ("what archives hold is uploaded from here: --engine carried nothing of it",) if idle else ()

    hosts = Hosts(targets=frozenset(place.host for place in places))
    with outputs:
        outcome = run_command(work, hosts, connection, run)
        failed = {_name_of(pair) for pair in outcome.errors}
        outputs.finish(failed, files, run_settings(connection, run, hosts), connection.output)
    outcome.check_set()


def _check(run: RunOptions, images: Path | None, *, piped: bool) -> None:
    if run.dry_run:
        raise UsageError("load has no --dry-run: what archives hold is known when it has been taken in")
    if piped and images == Path("-"):
        raise UsageError("standard input is an archive or the list of --images, not both")


def _name_of(pair: Pair) -> ImageName:
    """The name of the archives' image that a pair is for."""
    from blobflow.oci.index_grouping import ImageName

    source = pair.source
    return ImageName(source.repository, source.tag, "" if source.tag else source.digest)


def _wanted_names(loaded: Loaded, listed: Mapping[ImageName, _ListLine] | None) -> dict[ImageName, str]:
    """The names to load, each with the digest that it has to have, if any. Raises as `_check_hosts`."""
    if listed is None:
        return dict.fromkeys(loaded.groups, "")
    _check_hosts(listed, loaded)
    return {name: line.digest for name, line in listed.items()}


def _pairs_of_name(
    loaded: Loaded, name: ImageName, digest: str, places: Sequence[RegistryPrefix], arch_tags: bool
) -> Iterator[Pair]:
    """The pairs of a name, which has to mean `digest` if there is one."""
    from blobflow.engine.pairs import Pair
    from blobflow.oci.index_grouping import platform_tag
    from blobflow.oci.platform_choice import attested_digest
    from blobflow.operations.airgap.load import source_of

    # `library/` is where single words of other registries than docker.io were before bundles told of these.
    paths = dict.fromkeys((loaded.paths.get(name, name.path), name.path))
    for place in places:
        for path in paths:
            yield Pair(source_of(name, digest), place.under(path, name.tag, name.digest))
        for child in loaded.children.get(name, ()) if arch_tags and name.tag else ():
            if child.platform is not None and not attested_digest(child):
                tag = platform_tag(name.tag, child.platform)
                yield Pair(source_of(name, child.digest), place.under(name.path, tag))


class _ListLine(msgspec.Struct, frozen=True):
    """A line of the list: the host that its name has in the archives, and the digest that its tag has there.

    Both are "" where that is not said.
    """

    where: str
    host: str
    digest: str


def _read_listed(images: Path, *, any_host: bool) -> dict[ImageName, _ListLine]:
    """The names of a list, as they are at a registry, in its order."""
    from blobflow.cli.inputs.image_list import read_image_list
    from blobflow.cli.inputs.requests import RegistryPrefix
    from blobflow.oci.index_grouping import ImageName, with_official

    found: dict[ImageName, _ListLine] = {}
    for each in read_image_list(images, RegistryPrefix(""), any_host=any_host):
        name = ImageName(with_official(each.path), each.tag, "" if each.tag else each.digest)
        before = found.get(name)
        if before is not None and before.host != each.host:
            raise UsageError(
                f"{each.where}: {name} is wanted of {each.host or 'any host'} here and of "
                f"{before.host or 'any host'} at {before.where}; keep one, or drop the hosts with --any-host"
            )
        found[name] = _ListLine(each.where, each.host, each.digest)
    return found


def _check_hosts(listed: Mapping[ImageName, _ListLine], loaded: Loaded) -> None:
    """Raise UsageError for a name that is there, and is another host's than the list says."""
    for name, line in listed.items():
        if name in loaded.others:
            raise UsageError(
                f"{line.where}: {name} is wanted of {line.host}, and {loaded.others[name]}; correct the "
                "line, or drop the hosts with --any-host"
            )
