"""Pairs of images for transports of a user's own."""

from __future__ import annotations

from blobflow import Pair, Reference
from blobflow.oci.sample_images import SampleSet, sample_set

IMAGES = sample_set(5, images=3, architectures=("amd64", "arm64"), layer_size=8192)


def pairs_of(source: str, target: str, images: SampleSet = IMAGES) -> list[Pair]:
    pairs = []
    for name in images.images:
        repository, _, tag = name.rpartition(":")
        pairs.append(Pair(Reference(source, repository, tag), Reference(target, f"m/{repository}", tag)))
    return pairs
