"""`blobflow demo`: the whole flow between two registries of its own, without network or privileges."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.carrying import Outcome
from blobflow.cli.console import display
from blobflow.cli.figures import size_text
from blobflow.cli.options import Look
from blobflow.cli.outlook import outlook_lines
from blobflow.cli.running import run as run_loop
from blobflow.cli.telling import failure_lines, plan_lines, summary_lines
from blobflow.cli.writing import say
from blobflow.events import Meter

if TYPE_CHECKING:
    from blobflow.engine.plan import Pair
    from blobflow.engine.report import Report
    from blobflow.mirror import Settings
    from blobflow.oci.sample import SampleSet
    from blobflow.transports.store import Store

_SEED = 1
_IMAGES = 8
_PREFIX = "mirror"


@click.command("demo")
def verb() -> None:
    """Mirror a generated set of eight images for three architectures between two embedded registries.

    Everything happens on loopback and in a temporary folder, which is gone afterwards.
    """
    run_loop(_demo())


async def _demo() -> None:
    from blobflow.mirror import Settings, plan_run
    from blobflow.oci.sample import sample_set

    sample = sample_set(_SEED, images=_IMAGES)
    with tempfile.TemporaryDirectory(prefix="blobflow-demo-") as folder:
        settings = Settings(cache_dir=Path(folder, "cache"))
        async with AsyncExitStack() as stack:
            source = await stack.enter_async_context(_registry(Path(folder, "source"), sample))
            target = await stack.enter_async_context(_registry(Path(folder, "target")))
            pairs = list(_pairs(sample, source, target))
            _say_set(sample, source, target)

            _title("The plan, made before a byte moves")
            planned = await plan_run(pairs, settings)
            say(*outlook_lines(planned), "", *plan_lines(planned))
            _title("The mirror: each shared layer is read once, uploaded once, then mounted")
            first = await _mirrored(pairs, settings)
            _title("The same sync again: one question a tag at each side, nothing moves")
            second = await _mirrored(pairs, settings)
    _conclude(first, second)


@asynccontextmanager
async def _registry(root: Path, sample: SampleSet | None = None) -> AsyncIterator[str]:
    """An embedded registry on a free loopback port, holding `sample`. Gives its `host:port`."""
    from blobflow.server import Server, make_app
    from blobflow.transports.store import Store

    with closing(Store.open(root)) as store:
        if sample is not None:
            fill(store, sample)
        async with Server(make_app(store)) as server:
            yield server.address


def fill(store: Store, sample: SampleSet) -> None:
    """Put the set into a registry's store: every image in a repository of its own."""
    from blobflow.oci import parse_digest, parse_manifest
    from blobflow.oci.reference import split_name

    for digest, content in sample.blobs.items():
        store.write_small(content, parse_digest(digest))
    for digest, stored in sample.manifests.items():
        store.write_small(stored.raw, parse_digest(digest))
    for name, index in sample.images.items():
        _, repository, tag, _ = split_name(name)
        root = parse_manifest(index.raw, index.media_type)
        store.add_member(repository, root.descriptor.digest, root.descriptor.media_type)
        for child in root.manifests:
            store.add_member(repository, child.digest, child.media_type)
            for part in parse_manifest(sample.manifests[child.digest].raw, child.media_type).blobs:
                store.add_member(repository, part.digest)
        store.set_tag(repository, tag, root.descriptor.digest)


def _pairs(sample: SampleSet, source: str, target: str) -> Iterator[Pair]:
    from blobflow.engine.plan import Pair
    from blobflow.oci import parse_reference

    for name in sample.images:
        yield Pair(parse_reference(f"{source}/{name}"), parse_reference(f"{target}/{_PREFIX}/{name}"))


async def _mirrored(pairs: list[Pair], settings: Settings) -> Report:
    from blobflow.mirror import mirror

    meter = Meter()
    async with display(Look(), meter) as show:
        report = await mirror(pairs, settings, observer=show, meter=meter)
    for line in [*summary_lines(report), *failure_lines(report)]:
        say(line)
    return report


def _say_set(sample: SampleSet, source: str, target: str) -> None:
    mentioned = sum(len(stored.raw) for stored in sample.manifests.values()) + sample.unique_bytes
    say(f"Source registry http://{source}, target registry http://{target}/{_PREFIX}")
    say(
        f"{len(sample.images)} multi-arch images: {len(sample.manifests)} manifests, "
        f"{len(sample.blobs)} unique blobs, {size_text(mentioned)} in all"
    )


def _title(text: str) -> None:
    say("", f"== {text}")


def _conclude(first: Report, second: Report) -> None:
    for report in (first, second):
        Outcome(report, {}).check_set()
    moved = second.totals.blobs_copied + second.totals.blobs_mounted + second.totals.manifests_put
    say(
        "",
        f"The first run read {size_text(first.totals.bytes_read)} in {first.totals.requests} requests; "
        f"the second moved {moved or 'nothing'}, in {second.totals.requests} requests.",
    )
