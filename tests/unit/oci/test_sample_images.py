import gzip
import hashlib
import io
import json
import tarfile
from collections import Counter
from typing import Any

import pytest

from blobflow.oci.sample_images import SampleSet, Stored, sample_set


@pytest.fixture(scope="module")
def sample() -> SampleSet:
    return sample_set(7)


def children(sample: SampleSet, index: Stored) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The descriptor and the parsed manifest of each child."""
    listed = json.loads(index.raw)["manifests"]
    return [(child, json.loads(sample.manifests[child["digest"]].raw)) for child in listed]


def layer_digests(manifest: dict[str, Any]) -> set[str]:
    return {layer["digest"] for layer in manifest["layers"]}


def every_manifest(sample: SampleSet) -> list[dict[str, Any]]:
    return [manifest for index in sample.images.values() for _, manifest in children(sample, index)]


def test_the_same_seed_gives_the_same_set(sample: SampleSet) -> None:
    assert sample_set(7) == sample


def test_the_set_of_a_seed_never_changes() -> None:
    digests = "".join(index.digest for index in sample_set(1, images=2, layer_size=1000).images.values())
    pinned = "60601d72c95eca023d2293e8d9321a92563494d5633a9b4b5aa891bc8c947d2e"
    assert hashlib.sha256(digests.encode()).hexdigest() == pinned


def test_another_seed_gives_other_blobs(sample: SampleSet) -> None:
    assert not sample.blobs.keys() & sample_set(8).blobs.keys()


def test_every_digest_is_that_of_its_bytes(sample: SampleSet) -> None:
    stored = dict(sample.blobs) | {digest: manifest.raw for digest, manifest in sample.manifests.items()}
    assert all(digest == f"sha256:{hashlib.sha256(raw).hexdigest()}" for digest, raw in stored.items())


def test_every_descriptor_has_the_size_and_media_type_of_what_it_names(sample: SampleSet) -> None:
    for index in sample.images.values():
        for child, manifest in children(sample, index):
            stored = sample.manifests[child["digest"]]
            assert (child["mediaType"], child["size"]) == (stored.media_type, len(stored.raw))
            assert manifest["mediaType"] == stored.media_type
            for blob in [manifest["config"], *manifest["layers"]]:
                assert blob["size"] == len(sample.blobs[blob["digest"]])


def test_every_child_has_the_platform_of_its_config(sample: SampleSet) -> None:
    for index in sample.images.values():
        for child, manifest in children(sample, index):
            config = json.loads(sample.blobs[manifest["config"]["digest"]])
            named = {key: config[key] for key in ("architecture", "os", "variant") if key in config}
            assert child["platform"] == named


def test_every_layer_is_a_tar_with_the_diff_id_of_the_config(sample: SampleSet) -> None:
    for manifest in every_manifest(sample):
        config = json.loads(sample.blobs[manifest["config"]["digest"]])
        for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
            tar = gzip.decompress(sample.blobs[layer["digest"]])
            assert diff_id == f"sha256:{hashlib.sha256(tar).hexdigest()}"
            with tarfile.open(fileobj=io.BytesIO(tar)) as members:
                assert len(members.getnames()) == 1


def test_the_platforms_of_an_image_share_layers(sample: SampleSet) -> None:
    for index in sample.images.values():
        layers = [layer_digests(manifest) for _, manifest in children(sample, index)]
        assert len(set.intersection(*layers)) == 2


def test_one_layer_is_in_every_manifest_and_each_base_layer_in_every_image(sample: SampleSet) -> None:
    uses = Counter(digest for manifest in every_manifest(sample) for digest in layer_digests(manifest))
    assert list(uses.values()).count(8 * 3) == 1
    assert list(uses.values()).count(8) == 3


def test_children_come_before_the_index_that_lists_them(sample: SampleSet) -> None:
    order = list(sample.manifests)
    for index in sample.images.values():
        listed = [child["digest"] for child, _ in children(sample, index)]
        assert max(map(order.index, listed)) < order.index(index.digest)


def test_nothing_is_in_the_set_that_no_image_reaches(sample: SampleSet) -> None:
    manifests = {index.digest for index in sample.images.values()}
    blobs = {manifest["config"]["digest"] for manifest in every_manifest(sample)}
    for manifest in every_manifest(sample):
        blobs |= layer_digests(manifest)
    for index in sample.images.values():
        manifests |= {child["digest"] for child, _ in children(sample, index)}
    assert (set(sample.manifests), set(sample.blobs)) == (manifests, blobs)


def test_both_families_of_media_types_occur(sample: SampleSet) -> None:
    assert {index.media_type.split(".")[1] for index in sample.images.values()} == {"oci", "docker"}


def test_the_default_set_has_a_few_megabytes_and_grows_with_the_layer_size(sample: SampleSet) -> None:
    assert 2_000_000 < sample.unique_bytes < 6_000_000
    assert sample_set(7, layer_size=256 * 1024).unique_bytes > 1.8 * sample.unique_bytes


@pytest.mark.parametrize("images", [1, 3, 20])
def test_there_are_as_many_images_as_asked_for(images: int) -> None:
    made = sample_set(1, images=images, architectures=["riscv64"], layer_size=16)
    assert len(made.images) == images
    assert [child["platform"] for child, _ in children(made, made.images["shop/gateway:1.0"])] == [
        {"architecture": "riscv64", "os": "linux"}
    ]


def test_an_empty_layer_is_still_a_gzip_member() -> None:
    layers = [raw for raw in sample_set(1, layer_size=0).blobs.values() if raw.startswith(b"\x1f\x8b")]
    assert layers and all(gzip.decompress(raw) for raw in layers)


def test_a_set_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        sample_set(1, images=0)
