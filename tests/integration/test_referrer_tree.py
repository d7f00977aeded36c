"""What hangs on an image, as a tree: all of it, each thing once, each manifest asked about once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner

from blobflow.cli import cli
from blobflow.cli.output.json_schemas import referrers_schema
from blobflow.cli.output.referrers_document import ReferrersDocument
from blobflow.cli.output.referrers_text import referrers_lines
from blobflow.content import Attaches
from blobflow.errors import Denied
from blobflow.oci import Reference, media
from blobflow.oci.referrers import cosign_tags
from blobflow.operations.artifacts.tree import ReferrerTree, referrer_tree
from blobflow.transports.store import Store
from tests.fakes.layouts import NAME, Layout
from tests.scenarios.referrers import SOURCE, ReferrersScenario
from tests.scenarios.signed_images import OCI_EMPTY, SIGNATURE, SPDX, digests

IMAGE = Reference("source", "app", "1")


async def tree(stand: ReferrersScenario, *types: str, image: Reference = IMAGE) -> ReferrerTree:
    stand.forget_calls()
    return await referrer_tree(stand.services(), image, artifact_types=frozenset(types))


@pytest.mark.parametrize("kept", ["api", "tag"])
async def test_all_that_hangs_on_an_index_and_its_children_is_in_the_tree(
    store: Store, kept: Literal["api", "tag"]
) -> None:
    stand = ReferrersScenario(store, source=kept)
    found = await tree(stand)
    assert found.referrers.keys() == digests(stand.signed.referrers)
    hows = {node.referrer.how for node in found.referrers.values() if node.referrer}
    assert hows == {kept, "cosign"}
    for image in (found.root, *found.root.manifests):
        by_type = {node.artifact_type: node for node in image.referrers}
        assert by_type.keys() == {SIGNATURE, SPDX, media.OCI_CONFIG}
        sbom, old = by_type[SPDX], by_type[media.OCI_CONFIG]
        assert [node.artifact_type for node in sbom.referrers] == [SIGNATURE]
        assert sbom.created == "2026-01-01T00:00:00Z"
        assert sbom.manifest is not None
        assert sbom.size == sbom.mention.size + sum(blob.size for blob in sbom.manifest.blobs)
        assert old.referrer is not None
        assert old.referrer.tag == cosign_tags(image.mention.digest)[0]


async def test_each_manifest_is_read_once_and_asked_about_once(store: Store) -> None:
    stand = ReferrersScenario(store)
    found = await tree(stand)
    everything = [node for node in found.root.walk() if not node.because]
    assert stand.source.count("referrers") == len({node.mention.digest for node in everything})
    assert stand.source.count("read") == len({node.mention.digest for node in everything})
    assert stand.source.count("open") == 0, "no blob is read"


async def test_with_a_type_others_are_left_out_but_for_what_they_hang_on(store: Store) -> None:
    stand = ReferrersScenario(store)
    found = await tree(stand, SIGNATURE)
    sbom = next(node for node in found.root.referrers if node.artifact_type == SPDX)
    assert {node.artifact_type for node in found.root.referrers} == {SIGNATURE, SPDX}
    assert [node.artifact_type for node in sbom.referrers] == [SIGNATURE]
    found = await tree(stand, SPDX)
    assert {node.artifact_type for node in found.referrers.values()} == {SPDX}
    assert len(found.referrers) == 3


async def test_what_is_listed_and_refers_to_something_else_is_shown_with_the_reason(store: Store) -> None:
    stand = ReferrersScenario(store, source="tag")
    sbom = stand.signed.by_subject[stand.signed.children["amd64"].descriptor.digest][1]
    at_source = stand.source.at(SOURCE)
    assert isinstance(at_source, Attaches)
    await at_source.attach(stand.signed.index.descriptor.digest, [sbom.descriptor])
    found = await tree(stand)
    [wrong] = [node for node in found.root.walk() if node.because]
    assert (wrong.mention.digest, wrong.referrers) == (sbom.descriptor.digest, ())
    assert "its subject is another manifest" in wrong.because
    assert wrong.mention.digest in found.referrers, "it counts where it belongs"


async def test_what_is_listed_and_gone_is_shown_with_the_reason(store: Store) -> None:
    stand = ReferrersScenario(store, source="tag")
    sbom = stand.signed.by_subject[stand.signed.index.descriptor.digest][1]
    del stand.source.manifests[SOURCE][sbom.descriptor.digest]
    found = await tree(stand)
    [gone] = [node for node in found.root.walk() if node.because]
    assert gone.mention.digest == sbom.descriptor.digest
    assert sbom.descriptor.digest not in found.referrers
    assert "nothing" not in "".join(referrers_lines(found))
    alone = msgspec.structs.replace(found.root, manifests=(), referrers=(gone,))
    lines = referrers_lines(ReferrerTree(found.reference, alone))
    assert lines[-1] == "nothing that is listed counts"


async def test_a_lookup_that_fails_fails_the_tree(store: Store) -> None:
    stand = ReferrersScenario(store)
    stand.source.fault = lambda call, site, name: Denied("no") if call == "referrers" else None
    with pytest.raises(Denied, match="looking for what refers to") as failed:
        await tree(stand)
    assert "--referrers" not in str(failed.value), "the verb has no such option"


def test_the_verb_draws_a_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    layout = Layout(tmp_path / "layout")
    image = layout.image("amd64")
    index = layout.index(image)
    empty = layout.put(b"{}", OCI_EMPTY)
    sbom = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "artifactType": SPDX,
        "config": empty,
        "layers": [empty],
        "subject": index,
    }
    hanging = layout.put(sbom, media.OCI_MANIFEST)
    listed = {"schemaVersion": 2, "manifests": [{**index, "annotations": {NAME: "x"}}, hanging]}
    (layout.folder / "index.json").write_text(json.dumps(listed))
    where = f"oci:{layout.folder}:x"
    for verb in ("referrers", "discover"):
        done = CliRunner().invoke(cli, [verb, where])
        assert done.exit_code == 0, done.output
        assert done.stdout.splitlines() == [
            where,
            f"{index['digest']}  index, {index['size']} B",
            f"├── {SPDX}",
            f"│   └── {hanging['digest']}  {hanging['size'] + 2} B  index.json",
            f"└── linux/amd64  {image['digest']}",
            f"1 referrer, {hanging['size'] + 2} B",
        ]
    printed = CliRunner().invoke(cli, ["referrers", "--json", where]).stdout
    document = msgspec.json.decode(printed, type=ReferrersDocument)
    [entry] = document.image.referrers
    assert (entry.found, entry.artifact_type, entry.total_size) == ("index", SPDX, hanging["size"] + 2)
    assert document.image.manifests[0].platform == "linux/amd64"
    jsonschema.validate(json.loads(printed), referrers_schema())

    other = CliRunner().invoke(cli, ["referrers", where, "--artifact-type", SIGNATURE])
    assert other.stdout.splitlines()[-1] == "nothing of this type refers to it"

    alone = CliRunner().invoke(cli, ["referrers", where, "--platform", "linux/amd64"])
    assert alone.stdout.splitlines()[-1] == "nothing refers to it"
    wrong = CliRunner().invoke(cli, ["referrers", f"oci:{layout.folder}:y"])
    assert (wrong.exit_code, wrong.stdout, wrong.stderr.count("\n")) == (5, "", 1)
