"""Signatures and SBOMs between real registries: docker-registry 2.8.2 keeps no list of them, `serve` does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blobflow.oci import Digest, digest_of, media
from blobflow.oci.referrers import cosign_tags, fallback_tag
from tests.e2e.conftest import StartsRegistries
from tests.e2e.signed_images import push
from tests.scenarios.signed_images import Content, Signed, digests
from tests.scenarios.signed_registries import hang
from tests.unit.signatures.signing import attestation_bundle, bundle, pem, private_key, statement, text
from tools.processes import Registry, blobflow, blobflow_serve, skopeo

pytestmark = pytest.mark.e2e


@pytest.fixture
def serve(programs: None, tmp_path: Path) -> Iterator[Registry]:
    with blobflow_serve(tmp_path / "serve") as registry:
        yield registry


@pytest.fixture
def signed() -> Signed:
    return Signed()


def listed_by_api(registry: Registry, subject: Digest, query: str = "") -> list[dict[str, Any]] | None:
    """What the registry lists; None where it has no API."""
    status, headers, body = registry.ask("GET", f"/v2/copy/app/referrers/{subject}{query}")
    if status == 404:
        return None
    assert headers["content-type"] == media.OCI_INDEX
    found: list[dict[str, Any]] = json.loads(body)["manifests"]
    return found


def listed_by_tag(registry: Registry, subject: Digest) -> list[dict[str, Any]]:
    """What the fallback index lists, as oras and regclient look it up."""
    path = f"/v2/copy/app/manifests/{fallback_tag(subject)}"
    status, _, body = registry.ask("GET", path, {"Accept": media.OCI_INDEX})
    assert status == 200
    found: list[dict[str, Any]] = json.loads(body)["manifests"]
    return found


def check_signed(registry: Registry, signed: Signed, *, api: bool, home: Path) -> None:
    """Everything is there, byte for byte, and found by the digest of what it is about."""
    for subject, manifests in signed.by_subject.items():
        by_api = listed_by_api(registry, subject)
        assert (by_api is not None) == api
        found = by_api if by_api is not None else listed_by_tag(registry, subject)
        assert {each["digest"] for each in found} == {each.descriptor.digest for each in manifests}
        assert {each["artifactType"] for each in found} == {each.artifact_type for each in manifests}
    for subject, [signature] in signed.by_tag.items():
        raw = skopeo(
            "inspect",
            "--raw",
            "--tls-verify=false",
            f"docker://{registry.host}/copy/app:{cosign_tags(subject)[0]}",
            home=home,
        )
        assert raw.code == 0, raw.err
        assert raw.out.encode().rstrip() == signature.raw.rstrip()
    for manifest in signed.referrers:
        for blob in manifest.blobs:
            _, _, content = registry.ask("GET", f"/v2/copy/app/blobs/{blob.digest}")
            assert digest_of(content) == blob.digest


@pytest.mark.parametrize("source", ["docker-registry", "serve"])
@pytest.mark.parametrize("target", ["docker-registry", "serve"])
def test_what_hangs_on_an_index_and_its_children_is_found_at_the_target_by_digest(
    source: str, target: str, start_registry: StartsRegistries, serve: Registry, home: Path, signed: Signed
) -> None:
    begin = serve if source == "serve" else start_registry("source")
    end = serve if target == "serve" else start_registry("target")
    push(begin, signed.content)
    report = home / "report.json"
    names = (f"{begin.host}/app:1", f"{end.host}/copy/app:1")
    run = blobflow("copy", *names, "--report", report, home=home)
    assert run.code == 0, run.err
    check_signed(end, signed, api=target == "serve", home=home)

    [image] = json.loads(report.read_bytes())["images"]
    how = "api" if source == "serve" else "tag"
    assert {each["how"] for each in image["referrers"]} == {how, "cosign"}
    assert len(image["referrers"]) == len(signed.referrers)
    assert f"{len(signed.referrers)} referrers" in run.out


def test_an_unchanged_mirror_costs_one_head_a_tag_at_each_end(
    start_registry: StartsRegistries, home: Path, signed: Signed
) -> None:
    source, target = start_registry("source"), start_registry("target")
    push(source, signed.content)
    names = (f"{source.host}/app:1", f"{target.host}/copy/app:1")
    assert blobflow("copy", *names, home=home).code == 0
    source.forget()
    target.forget()
    assert blobflow("copy", *names, home=home).code == 0
    assert len(source.requests()) == len(target.requests()) == 1

    again = blobflow("copy", *names, "--referrers", "always", home=home)
    assert again.code == 0 and "1 present" in again.out


def test_the_list_of_a_target_without_the_api_is_merged_into_and_rid_of_what_is_gone(
    start_registry: StartsRegistries, home: Path, signed: Signed
) -> None:
    source, target = start_registry("source"), start_registry("target")
    push(source, signed.content)
    names = (f"{source.host}/app:1", f"{target.host}/copy/app:1")
    assert blobflow("copy", *names, "--referrers", "off", home=home).code == 0
    theirs, subject = Content(), signed.index.descriptor.digest
    kept = theirs.signature(signed.index, words="made at the target")
    lost = theirs.signature(signed.index, words="made there, and deleted")
    push(target, theirs, "copy/app")
    assert target.ask("DELETE", f"/v2/copy/app/manifests/{lost.descriptor.digest}")[0] == 202

    run = blobflow("copy", *names, home=home)
    assert run.code == 0, run.err
    found = {each["digest"] for each in listed_by_tag(target, subject)}
    assert found == digests([kept, *signed.by_subject[subject]])


@pytest.mark.parametrize("source", ["docker-registry", "serve"])
def test_a_policy_finds_a_bundle_wherever_it_is_listed(
    source: str, start_registry: StartsRegistries, serve: Registry, home: Path
) -> None:
    begin = serve if source == "serve" else start_registry("source")
    home.mkdir(exist_ok=True)
    key, content = private_key(), Content()
    made, bare = content.image("amd64"), content.image("arm64")
    content.tags |= {"1": made.descriptor.digest, "2": bare.descriptor.digest}
    hang(content, made, bundle(attestation_bundle(key, statement(made.descriptor.digest))))
    push(begin, content)
    required: dict[str, object] = {"type": "sigstoreSigned", "keyData": text(pem(key))}
    required |= {"signedIdentity": {"type": "matchRepository"}}
    (home / "policy.json").write_text(json.dumps({"default": [required]}))
    for tag, code in (("1", 0), ("2", 9)):
        target = f"oci:{home}/layout:{tag}"
        run = blobflow("copy", f"{begin.host}/app:{tag}", target, "--policy", home / "policy.json", home=home)
        assert run.code == code, run.err
    assert "no signature was found" in run.err
    names = json.loads((home / "layout" / "index.json").read_bytes())["manifests"]
    assert bare.descriptor.digest not in {each["digest"] for each in names}
