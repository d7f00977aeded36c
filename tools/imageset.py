#!/usr/bin/env python3
"""A real multi-platform image set made of Debian's own packages, and a plain way to push it.

    imageset.py make DIR                      15 images for linux/amd64, linux/arm64 and linux/arm/v7
    imageset.py synthetic DIR --seed N        the small set of blobflow.oci.sample_images, nothing downloaded
    imageset.py push DIR HOST:PORT            into a plain-http registry on loopback
    imageset.py show DIR                      what is in DIR

DIR becomes an OCI image layout with two files beside it: `images.txt`, one `repository:tag` a line, and
`packages.json`, the versions that went in. The same packages at the same versions give the same digests on a
machine, and a complete DIR (its stamp is written last) is left as it is. Sources and keys are those of the
machine's own apt, copied into a private state that is gone when the set is made.

Only the standard library, and nothing of the engine: what tests the engine must not share its mistakes.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

if not __package__:  # run as a file: its neighbours are found from the folder above
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import debianset
from tools.imagelayout import (
    DOCKER,
    OCI,
    Image,
    ImageSetError,
    Layout,
    Say,
    claimed,
    fingerprint,
    finish,
    keep,
    read_layout,
)
from tools.imagepush import push

__all__ = ["DOCKER", "OCI", "Image", "ImageSetError", "Layout", "make", "push", "read_layout", "synthetic"]


def make(path: str | Path, say: Say = lambda _: None) -> Layout:
    """Make the set of Debian packages at `path`, unless it is complete there, and read it.

    Needs apt-get and dpkg-deb, package lists of all three architectures, and 2 GB for a while. Processes that
    make the same path wait for each other. Raises ImageSetError, also when a package is missing.
    """
    stamp = debianset.recipe_stamp()
    with claimed(Path(path), stamp) as complete:
        if not complete:
            debianset.make(Path(path), stamp, say)
    return read_layout(path)


def synthetic(path: str | Path, seed: int, images: int = 8, layer_size: int = 128 * 1024) -> Layout:
    """Write the sample set of `seed` at `path`, unless it is complete there, and read it.

    `layer_size` in bytes, as the sample set has it.
    """
    sample = _sample_module().sample_set(seed, images=images, layer_size=layer_size)
    stamp = fingerprint({name: stored.digest for name, stored in sample.images.items()})
    with claimed(Path(path), stamp) as complete:
        if not complete:
            for raw in [*sample.blobs.values(), *(stored.raw for stored in sample.manifests.values())]:
                keep(Path(path), "", raw)
            roots = {name: keep(Path(path), *stored) for name, stored in sample.images.items()}
            finish(Path(path), roots, {}, stamp)
    return read_layout(path)


def _sample_module() -> ModuleType:
    """The sample module by its file: the package around it may import what a plain Python hasn't got."""
    file = Path(__file__).resolve().parent.parent / "blobflow" / "oci" / "sample_images.py"
    spec = importlib.util.spec_from_file_location("blobflow_sample", file)
    if spec is None or spec.loader is None:
        raise ImageSetError(f"{file} can't be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A multi-platform image set of Debian packages.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, words in (
        ("make", "make the set of Debian packages"),
        ("synthetic", "write the small sample set"),
        ("push", "push a set into a plain-http registry on loopback"),
        ("show", "say what is in a set"),
    ):
        command = verbs.add_parser(verb, help=words)
        command.add_argument("dir", type=Path)
        if verb == "synthetic":
            command.add_argument("--seed", type=int, required=True)
            command.add_argument("--images", type=int, default=8)
        if verb == "push":
            command.add_argument("host", metavar="HOST:PORT")
            command.add_argument("--prefix", default="")
    arguments = parser.parse_args(argv)
    try:
        print(_perform(arguments))
    except (ImageSetError, ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"imageset: {error}", file=sys.stderr)
        return 1
    return 0


def _perform(arguments: argparse.Namespace) -> str:
    """Do what was asked; returns the line that says what came of it."""
    match arguments.verb:
        case "make":
            return _summary(make(arguments.dir, lambda words: print(words, file=sys.stderr)))
        case "synthetic":
            return _summary(synthetic(arguments.dir, arguments.seed, arguments.images))
        case "push":
            done = push(arguments.dir, arguments.host, arguments.prefix)
            return (
                f"{done.sent} blobs sent ({done.sent_bytes / 1e6:.1f} MB), {done.present} were there, "
                f"{done.manifests} manifests put"
            )
        case _:
            return _summary(read_layout(arguments.dir))


def _summary(layout: Layout) -> str:
    children = {digest for image in layout.images.values() for digest in image.children}
    return (
        f"{len(layout.images)} images, {len(children)} image manifests, {len(layout.blobs)} blobs, "
        f"{layout.unique_bytes / 1e6:.1f} MB ({layout.referenced_bytes / 1e6:.1f} MB before sharing)"
    )


if __name__ == "__main__":
    sys.exit(main())
