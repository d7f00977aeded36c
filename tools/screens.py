"""Scenes of runs on a terminal, for tests that read the screen and for pictures of it.

A real `blobflow sync` mirrors a generated set between two registries here, of which one misbehaves as
`tools.registry` can. Nothing depends on how fast a machine is: what is to be seen stays until somebody goes
on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from blobflow.cli.commands.demo import fill_registry
from blobflow.oci import digest_of
from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.transports.store import Store
from tools.registry.faults import Busy, Mute, Slow, Stall
from tools.registry.faulty import Fault, journalling
from tools.terminal import Terminal, on_terminal

RESOLVED = 120  # of `many_images`, before the source says no more
_ALL = 1_000_000


class Scene:
    """A run and its two registries. `let_go` lets what stands still go on."""

    def __init__(self, folder: Path, source: str, target: str, let_go: asyncio.Event) -> None:
        self.folder = folder
        self.source = source
        self.target = target
        self.let_go = let_go

    @property
    def arguments(self) -> list[str]:
        """The command."""
        images, store = str(self.folder / "images.txt"), str(self.folder / "store")
        return [
            *("sync", "--from", self.source, "--to", f"{self.target}/mirror"),
            *("--images", images, "--cache-dir", store),
        ]

    def on_terminal(self, columns: int, **environment: str) -> AbstractAsyncContextManager[Terminal]:
        """The command on a terminal of so many columns, with further variables in its environment."""
        return on_terminal(self.arguments, {"HOME": str(self.folder), **environment}, columns=columns)


@asynccontextmanager
async def _scene(
    folder: Path,
    *,
    at_source: Sequence[Fault] = (),
    at_target: Sequence[Fault] = (),
    tags: int = 1,
    let_go: asyncio.Event | None = None,
) -> AsyncIterator[Scene]:
    sample = sample_set(7, images=8, layer_size=200_000)
    async with (
        journalling(folder / "source", at_source) as source,
        journalling(folder / "target", at_target) as target,
    ):
        fill_registry(source.store, sample)
        names = [*sample.images, *_more_tags(source.store, sample, tags)]
        (folder / "images.txt").write_text("".join(f"{name}\n" for name in names))
        let_go = let_go or asyncio.Event()
        try:
            yield Scene(folder, source.host, target.host, let_go)
        finally:
            let_go.set()


def _more_tags(store: Store, sample: SampleSet, tags: int) -> Iterator[str]:
    """Further tags of each image, so that there are so many of it."""
    for name, root in sample.images.items():
        repository, _, tag = name.partition(":")
        for number in range(1, tags):
            store.repositories.set_tag(repository, f"{tag}.{number}", digest_of(root.raw))
            yield f"{name}.{number}"


def slow(folder: Path) -> AbstractAsyncContextManager[Scene]:
    """The source gives 30 kB/s for each blob: 5.5 MB take a while."""
    return _scene(folder, at_source=[Fault("GET", "/blobs/", times=_ALL, act=Slow(30_000, each=True))])


def stalled(folder: Path) -> AbstractAsyncContextManager[Scene]:
    """The source stops in the middle of each larger blob, until it is let go on."""
    let_go = asyncio.Event()
    stall = Stall(after=80_000, until=let_go)
    fault = Fault("GET", "/blobs/", times=_ALL, act=stall)
    return _scene(folder, at_source=[fault], let_go=let_go)


def unavailable(folder: Path) -> AbstractAsyncContextManager[Scene]:
    """The target answers the fourth manifest with 503, and wants to be left alone for 20 seconds."""
    return _scene(folder, at_target=[Fault("PUT", "/manifests/", nth=4, act=Busy(20, code=503))])


def many_images(folder: Path) -> AbstractAsyncContextManager[Scene]:
    """200 images, and a source that names the digests of 120 and then says no more."""
    mute = Fault("HEAD", "/manifests/", nth=RESOLVED + 1, times=_ALL, act=Mute())
    return _scene(folder, at_source=[mute], tags=25)
