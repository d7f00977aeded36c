"""`blobflow demo`: the whole flow between two registries of its own, without network or privileges."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.options.output import OutputOptions
from blobflow.cli.output.plan_text import dry_run_lines, plan_lines
from blobflow.cli.output.progress import show_progress
from blobflow.cli.output.report_text import failure_lines, summary_lines
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.output.units import size_text
from blobflow.cli.run_command import RunOutcome
from blobflow.cli.runtime.event_loop import run_loop
from blobflow.cli.verb import Verb
from blobflow.events import Meter

if TYPE_CHECKING:
    from blobflow.engine.pairs import Pair
    from blobflow.engine.results.report import Report
    from blobflow.oci.sample_images import SampleSet
    from blobflow.settings import Settings
    from blobflow.transports.store import Store

_SEED = 1
_IMAGES = 8
_PREFIX = "mirror"


@click.command("demo", cls=Verb)
def verb() -> None:
    """Mirror a generated set of eight images for three architectures between two embedded registries.

    Everything happens on loopback and in a temporary folder, which is gone afterwards.
    """
    run_loop(_run_demo())


async def _run_demo() -> None:
    from blobflow.client import Client
    from blobflow.oci.sample_images import sample_set
    from blobflow.settings import Settings

    sample = sample_set(_SEED, images=_IMAGES)
    with tempfile.TemporaryDirectory(prefix="blobflow-demo-") as folder:
        settings = Settings(cache_dir=Path(folder, "cache"))
        async with AsyncExitStack() as stack:
            source = await stack.enter_async_context(_registry(Path(folder, "source"), sample))
            target = await stack.enter_async_context(_registry(Path(folder, "target")))
            pairs = list(_pairs(sample, source, target))
            _print_set(sample, source, target)

            _print_title("The plan, made before a byte moves")
            async with Client(settings) as client:
                planned = await client.plan(pairs)
            print_lines(*dry_run_lines(planned), "", *plan_lines(planned))
            _print_title("The mirror: each shared layer is read once, uploaded once, then mounted")
            first = await _run_mirror(pairs, settings)
            _print_title("The same sync again: one question a tag at each side, nothing moves")
            second = await _run_mirror(pairs, settings)
    _print_conclusion(first, second)


@asynccontextmanager
async def _registry(root: Path, sample: SampleSet | None = None) -> AsyncIterator[str]:
    """An embedded registry on a free loopback port, holding `sample`. Gives its `host:port`."""
    from blobflow.server import Server, make_app
    from blobflow.transports.store import Store

    with closing(Store.open(root)) as store:
        if sample is not None:
            fill_registry(store, sample)
        async with Server(make_app(store)) as server:
            yield server.address


def fill_registry(store: Store, sample: SampleSet) -> None:
    """Put the set into a registry's store: every image in a repository of its own."""
    from blobflow.oci import parse_digest, parse_manifest
    from blobflow.oci.reference import split_name

    for digest, content in sample.blobs.items():
        store.blobs.write_small(content, parse_digest(digest))
    for digest, stored in sample.manifests.items():
        store.blobs.write_small(stored.raw, parse_digest(digest))
    for name, index in sample.images.items():
        _, repository, tag, _ = split_name(name)
        root = parse_manifest(index.raw, index.media_type)
        store.repositories.add(repository, root.descriptor.digest, root.descriptor.media_type)
        for child in root.manifests:
            store.repositories.add(repository, child.digest, child.media_type)
            for part in parse_manifest(sample.manifests[child.digest].raw, child.media_type).blobs:
                store.repositories.add(repository, part.digest)
        store.repositories.set_tag(repository, tag, root.descriptor.digest)


def _pairs(sample: SampleSet, source: str, target: str) -> Iterator[Pair]:
    from blobflow.engine.pairs import Pair
    from blobflow.oci import parse_reference

    for name in sample.images:
        yield Pair(parse_reference(f"{source}/{name}"), parse_reference(f"{target}/{_PREFIX}/{name}"))


async def _run_mirror(pairs: list[Pair], settings: Settings) -> Report:
    from blobflow.client import Client

    meter = Meter()
    async with (
        show_progress(OutputOptions(), meter) as show,
        Client(settings, observer=show, meter=meter) as client,
    ):
        report = await client.mirror(pairs)
    for line in [*summary_lines(report), *failure_lines(report)]:
        print_lines(line)
    return report


def _print_set(sample: SampleSet, source: str, target: str) -> None:
    mentioned = sum(len(stored.raw) for stored in sample.manifests.values()) + sample.unique_bytes
    print_lines(f"Source registry http://{source}, target registry http://{target}/{_PREFIX}")
    print_lines(
        f"{len(sample.images)} multi-arch images: {len(sample.manifests)} manifests, "
        f"{len(sample.blobs)} unique blobs, {size_text(mentioned)} in all"
    )


def _print_title(text: str) -> None:
    print_lines("", f"== {text}")


def _print_conclusion(first: Report, second: Report) -> None:
    for report in (first, second):
        RunOutcome(report, {}).check_set()
    moved = second.totals.blobs_copied + second.totals.blobs_mounted + second.totals.manifests_put
    print_lines(
        "",
        f"The first run read {size_text(first.totals.bytes_read)} in {first.totals.requests} requests; "
        f"the second moved {moved or 'nothing'}, in {second.totals.requests} requests.",
    )
