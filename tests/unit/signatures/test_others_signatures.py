"""What others have signed, judged as its makers say (`tests/signature_vectors.py` finds it).

`DIFFERING` is all that is judged in another way, with the reason.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

from blobflow.errors import InvalidConfig, SignatureRejected
from blobflow.oci import parse_reference
from blobflow.oci.digest import Digest, digest_of, parse_digest
from blobflow.signatures.bundle_proofs import prove_signer
from blobflow.signatures.bundles import Bundle, Envelope, read_bundle, read_statement
from blobflow.signatures.certificates import (
    CertificateRule,
    check_usage,
    der_of,
    read_certificates,
    read_chain,
    read_der,
    read_leaf,
)
from blobflow.signatures.contract import ClaimedImage, FoundSignature
from blobflow.signatures.judge import load_judge
from blobflow.signatures.keys import Message, read_public_key
from blobflow.signatures.log_entries import LogKey, read_promised_entry
from blobflow.signatures.proofs import NotProven, without_warnings
from blobflow.signatures.sigstore_root import SigstoreRoot, read_trusted_root
from blobflow.signatures.simple_signing import CERTIFICATE, CHAIN, LOG_ENTRY
from blobflow.signatures.trust import Trust
from tests.signature_vectors import signature_vectors
from tests.unit.signatures.signing import Authority, certificate_pem

NOW = datetime(2026, 9, 1, tzinfo=UTC)
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"

# What is judged in another way than its source says, and why.
DIFFERING = {
    "intoto-with-custom-trust-root": "sigstore reads no intoto entries, which are of Rekor's past",
    "trust-root-tsa-validity-end-inclusive": "sigstore takes the end of an authority's time as outside of it",
    "slsa v1.4.0": "its log entry (intoto 0.0.1) has no signature in it, so it proves nothing of one",
    "bogus-leaf-missing-eku": "a certificate that names no usage has all of them (RFC 5280, 4.2.1.12)",
}


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything is judged from what is at hand: no socket is opened, and no name looked up."""
    asked: list[tuple[object, ...]] = []

    def refuse(*arguments: object, **_: object) -> None:
        asked.append(arguments)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert asked == []


@cache
def trusted_root(path: Path) -> SigstoreRoot:
    return read_trusted_root(path)


@without_warnings()
def verdict(
    raw: bytes, digest: Digest, root: Path, rule: CertificateRule, key: Path | None, content: bytes = b""
) -> str:
    """Of a bundle under a root, whatever it is attached to: "valid", or the reason why not."""
    try:
        trusted = trusted_root(root.resolve())
        bundle = read_bundle(raw)
        envelope = bundle.envelope
        if key is not None:
            keys = (read_public_key(key.read_bytes(), "the key"),)
            prove_signer(bundle, Message(content), Trust(keys, log_keys=trusted.log_keys), trusted, NOW)
        elif envelope is None:
            trusted.check_message(raw, digest, rule)
        else:
            _, kind, payload = trusted.check_envelope(raw, rule)
            envelope = Envelope(payload, kind)
        if envelope is not None and read_statement(envelope.payload).names_of(digest) is None:
            return "it is for another digest"
    except (NotProven, InvalidConfig) as error:
        return str(error)
    return "valid"


def agrees(case: str, found: str, expected: str) -> bool:
    """Whether a verdict is the expected one, or the other one where that is told."""
    return ((found == "valid") == (expected == "valid")) != (case in DIFFERING)


def test_images_that_cosign_signed(tmp_path: Path) -> None:
    folder = signature_vectors("dir-images-cosign")
    cases = json.loads((folder / "cases.json").read_bytes())["cases"]
    assert len(cases) >= 18
    for number, case in enumerate(cases):
        identity = {"type": case["identity_rule"]}
        if case["identity_rule"] == "exactRepository":
            identity["dockerRepository"] = case["reference"]
        requirement: dict[str, Any] = {"type": "sigstoreSigned", "signedIdentity": identity}
        requirement["keyPaths"] = [str(folder / key) for key in case.get("keys") or [case["key"]]]
        if "rekor_key" in case:
            requirement["rekorPublicKeyPath"] = str(folder / case["rekor_key"])
        policy = tmp_path / f"{number}.json"
        policy.write_text(json.dumps({"default": [requirement]}))
        # A signed child counts for itself: which children of a list are judged is not said here.
        child = "*." if (folder / case["image"] / "manifest.json").exists() and "platform" in case else ""
        image = folder / case["image"]
        manifest = next(image.glob(f"{child}manifest.json"), None)
        digest = digest_of(manifest.read_bytes() if manifest is not None else b"")
        claimed = ClaimedImage("docker", parse_reference(case["reference"]), digest)
        try:
            load_judge(policy).judge(claimed, list(attached(image, f"{child}signature-*")))
            found = "valid"
        except SignatureRejected as error:
            found = error.message
        assert agrees(case["image"], found, case["expect"]), (case, found)


def attached(image: Path, pattern: str) -> Iterator[FoundSignature]:
    """The signatures of a `dir:` image: JSON after a line that says so."""
    for path in sorted(image.glob(pattern)):
        fields = json.loads(path.read_bytes().partition(b"\n")[2])
        if fields["mimeType"] == SIMPLE:
            content = base64.b64decode(fields["payload"])
            yield FoundSignature(
                "simple", digest_of(content), content, digest_of(b""), "cosign", fields["annotations"]
            )


@pytest.mark.parametrize("name", ["policy-cosign.json", "policy-reject.json"])
def test_policies_that_others_wrote_for_these_images(name: str, tmp_path: Path) -> None:
    folder = signature_vectors("dir-images-cosign")
    raw = (signature_vectors("policy-json") / "valid" / name).read_text()
    policy = tmp_path / name
    policy.write_text(raw.replace("testdata/cosign.pub", str(folder / "cosign.pub")))
    judge = load_judge(policy)
    image = folder / "dir-img-cosign-valid"
    digest = digest_of((image / "manifest.json").read_bytes())
    # A `dir:` has no name; its policy's identity is one that needs none.
    claimed = ClaimedImage("dir", parse_reference("registry.example.com/any"), digest)
    found = list(attached(image, "signature-*"))
    if name == "policy-cosign.json":
        assert judge.judge(claimed, found).scope == "dir, default"
        found = []
    with pytest.raises(SignatureRejected):
        judge.judge(claimed, found)


def conformance_cases() -> list[str]:
    """Their names; one that says that they are not here, where they are not."""
    try:
        folder = signature_vectors("sigstore-conformance")
    except pytest.skip.Exception:
        return ["not here"]
    return [case["name"] for case in json.loads((folder / "cases.json").read_bytes())["cases"]]


@pytest.mark.parametrize("name", conformance_cases())
def test_bundles_of_the_sigstore_conformance_tests(name: str) -> None:
    folder = signature_vectors("sigstore-conformance")
    suite = json.loads((folder / "cases.json").read_bytes())
    case = next(each for each in suite["cases"] if each["name"] == name)
    identity, issuer = case.get("identity"), case.get("issuer", "")
    if "identity_file" in case:
        identity = (folder / case["identity_file"]).read_text().strip()
    rule = CertificateRule(
        (),
        issuer=suite["default_issuer"] if issuer == "default" else issuer,
        email=(suite["default_identity"] if identity == "default" else identity) or "",
    )
    content = (folder / case["artifact"]).read_bytes()
    key = folder / case["key"] if case.get("key") else None
    raw = (folder / case["bundle"]).read_bytes()
    root = folder / (case.get("root") or "../trusted-roots/production/trusted_root.json")
    found = verdict(raw, digest_of(content), root, rule, key, content)
    assert agrees(name, found, case["expect"]), (case["why"], found)


def test_bundles_of_sigstore_python() -> None:
    folder = signature_vectors("sigstore-python") / "bundles"
    root = folder / "../../trusted-roots/staging/trusted_root.json"
    anybody = CertificateRule(())
    plain, envelope = (folder / name for name in ("bundle.txt", "a.dsse.staging-rekor-v2.txt"))
    raw = (folder / "bundle.txt.sigstore").read_bytes()
    assert verdict(raw, digest_of(plain.read_bytes()), root, anybody, None) == "valid"
    assert "mismatch" in verdict(raw, digest_of(b"other"), root, anybody, None)
    raw = (folder / "a.dsse.staging-rekor-v2.txt.sigstore.json").read_bytes()
    statement = read_bundle(raw).envelope
    assert statement is not None
    ((signed, _),) = read_statement(statement.payload).subjects
    assert verdict(raw, signed, root, anybody, None) == "valid"
    assert verdict(raw, digest_of(envelope.read_bytes() + b"\n"), root, anybody, None) != "valid"


def test_roots_of_sigstore_python() -> None:
    folder = signature_vectors("sigstore-python") / "roots"
    for name in ("trustedroot.v1.json", "trustedroot.v1.local_tlog_ed25519_rekor-tiles.json"):
        assert read_trusted_root(folder / name).log_keys
    for name in ("trustedroot.badtype.json", "config.v1.json", "certificate_authority.json"):
        with pytest.raises(InvalidConfig, match="can't be used: "):
            read_trusted_root(folder / name)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"nonsense", "it is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"[]", "it is no object"),
        (b"{}", "mediaType: field required"),
    ],
)
def test_a_file_that_is_no_trusted_root_is_refused_in_one_sentence(raw: bytes, why: str) -> None:
    with pytest.raises(InvalidConfig) as failed:
        SigstoreRoot(raw, "the file x")
    assert str(failed.value) == f"the file x can't be used: {why}"


def test_certificates_of_sigstore_python() -> None:
    folder = signature_vectors("sigstore-python") / "x509"
    for path in sorted(folder.glob("bogus-leaf*.pem")):
        (leaf,) = read_certificates(path.read_bytes(), path.name)
        found = "valid"
        try:
            check_usage(leaf)
        except NotProven as error:
            found = error.reason
        assert agrees(path.stem, found, "valid" if path.stem == "bogus-leaf" else "invalid"), found


def test_bundles_of_sigstore_go() -> None:
    folder = signature_vectors("sigstore-go")
    roots, bundles = folder / "trusted-roots", folder / "bundles"
    key = folder / "public-keys" / "public-key-validity.pem"
    raw = (bundles / "public-key-validity.sigstore.json").read_bytes()
    assert signed_by(raw, Message(b"test content"), key, ()) == "valid"
    assert signed_by(raw, Message(b"other content"), key, ()) == "it is not by the key"
    assert read_trusted_root(roots / "public-key-validity.json").log_keys == ()
    signed = parse_digest("sha256:bc103b4a84971ef6459b294a2b98568a2bfb72cded09d4acd1e16366a401f95b")
    raw = (bundles / "othername.sigstore.json").read_bytes()
    rule = CertificateRule((), issuer="http://oidc.local:8080", email="foo!oidc.local")
    assert verdict(raw, signed, roots / "scaffolding.json", rule, None) == "valid"
    rule = msgspec.structs.replace(rule, email="foo@oidc.local")
    assert 'is of "foo!oidc.local", not of' in verdict(raw, signed, roots / "scaffolding.json", rule, None)


def signed_by(raw: bytes, manifest: Message, key: Path, log_keys: tuple[LogKey, ...]) -> str:
    """The verdict on a bundle by a key, with no root."""
    trust = Trust((read_public_key(key.read_bytes(), "the key"),), log_keys=log_keys)
    try:
        prove_signer(read_bundle(raw), manifest, trust, None, NOW)
    except NotProven as error:
        return error.reason
    return "valid"


def test_a_timestamp_of_a_root_is_about_one_signature() -> None:
    folder = signature_vectors("sigstore-conformance")
    bundle = read_bundle((folder / "bundles" / "rekor2-happy-path.json").read_bytes())
    root = trusted_root((folder / "roots" / "staging-2025.json").resolve())
    at = root.timestamped(bundle.timestamps, bundle.signature)
    (leaf,) = map(read_der, bundle.certificates)
    assert at is not None
    assert leaf.not_valid_before_utc <= at <= leaf.not_valid_after_utc
    assert root.timestamped(bundle.timestamps, b"another") is None
    with pytest.raises(NotProven, match="its timestamp can't be read"):
        root.timestamped([b"no timestamp"], bundle.signature)


def keyless(tmp_path: Path, **fulcio: str) -> Path:
    """A policy of signatures by the job that made the conformance tests' bundles."""
    folder = signature_vectors("trusted-roots") / "production"
    suite = json.loads((signature_vectors("sigstore-conformance") / "cases.json").read_bytes())
    found = {
        "caPath": str(folder / "fulcio_v1.crt.pem"),
        "oidcIssuer": suite["default_issuer"],
        "subjectEmail": suite["default_identity"],
        **fulcio,
    }
    requirement = {
        "type": "sigstoreSigned",
        "fulcio": found,
        "rekorPublicKeyPath": str(folder / "rekor.pub"),
        "signedIdentity": {"type": "matchRepository"},
    }
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"default": [requirement]}))
    return policy


@pytest.mark.parametrize("has_root", [True, False])
def test_a_bundle_of_the_public_instance_meets_a_policy(tmp_path: Path, has_root: bool) -> None:
    """With a trusted root; without one if the CA of the policy has the intermediate certificate in it."""
    folder = signature_vectors("sigstore-conformance")
    production = signature_vectors("trusted-roots") / "production"
    root = production / "trusted_root.json" if has_root else None
    raw = (folder / "bundles" / "happy-path-v0.3.json").read_bytes()
    found = FoundSignature("bundle", digest_of(raw), raw, digest_of(b""), "api")
    manifest = (folder / "artifacts" / "a.txt").read_bytes()
    image = ClaimedImage("docker", parse_reference("registry.example.com/app:1"), digest_of(manifest))
    authorities: dict[str, str] = {}
    if not has_root:
        both = tmp_path / "ca.pem"
        names = ("fulcio_v1.crt.pem", "fulcio_intermediate_v1.crt.pem")
        both.write_bytes(b"".join((production / name).read_bytes() for name in names))
        authorities["caPath"] = str(both)
    judge = load_judge(keyless(tmp_path, **authorities), trusted_root=root)
    (accepted,) = judge.judge(image, [found]).acceptances
    assert "extremely-dangerous-oidc-beacon.yml@refs/heads/main (issuer https://token" in accepted.by
    other = ClaimedImage("docker", image.reference, digest_of(b"other"))
    with pytest.raises(SignatureRejected, match=f"it is for {image.digest}, not for {other.digest}"):
        judge.judge(other, [found])
    for fulcio, reason in (
        ({"oidcIssuer": "https://token.example.com"}, "is of the issuer"),
        (
            {"subjectEmail": "https://github.com/sigstore-conformance"},
            "not of https://github.com/sigstore-conf",
        ),
        ({"caPath": str(_another_ca(tmp_path))}, "is not vouched for by the CA of the policy"),
    ):
        judge = load_judge(keyless(tmp_path, **{**authorities, **fulcio}), trusted_root=root)
        with pytest.raises(SignatureRejected, match=reason):
            judge.judge(image, [found])


def _another_ca(tmp_path: Path) -> Path:
    path = tmp_path / "other.pem"
    path.write_bytes(certificate_pem(Authority().root))
    return path


def production() -> tuple[tuple[LogKey, ...], tuple[x509.Certificate, ...]]:
    """The log key and the CA of the public instance, as a policy would name them: without a trusted root."""
    folder = signature_vectors("trusted-roots") / "production"
    log = LogKey(read_public_key((folder / "rekor.pub").read_bytes(), "the log"))
    names = ("fulcio_v1.crt.pem", "fulcio_intermediate_v1.crt.pem")
    return (log,), tuple(read_certificates((folder / name).read_bytes(), name)[0] for name in names)


def test_bundles_of_old_need_no_root_but_the_log_and_the_ca_of_a_policy() -> None:
    folder = signature_vectors("sigstore-go")
    log_keys, authorities = production()
    examples = folder / "examples"
    raw = (examples / "bundle-publish.json").read_bytes()
    key = examples / "publish_key.pub"
    assert signed_by(raw, Message(b""), key, log_keys) == "valid"
    other = LogKey(read_public_key(key.read_bytes(), "no log"))
    assert "not promised by a log" in signed_by(raw, Message(b""), key, (other,))
    for path in (
        examples / "bundle-provenance.json",
        folder / "bundles" / "sigstore.js@2.0.0-provenance.sigstore.json",
    ):
        issuer = "https://token.actions.githubusercontent.com"
        trust = Trust((), CertificateRule(authorities, issuer=issuer), log_keys, has_log_time=True)
        prove_signer(read_bundle(path.read_bytes()), Message(b""), trust, None, NOW)


@pytest.mark.parametrize("version", ["v1.4.0", "v2.1.0"])
def test_attestations_that_slsas_generator_attached_to_images(version: str) -> None:
    """They are of cosign's older kind and no signatures of an image; what proves them is the same."""
    folder = signature_vectors("slsa-container-layouts") / version
    digest = parse_digest((folder / "container_workflow_dispatch.digest").read_text().strip())
    layer, content = _attestation(folder / "container_workflow_dispatch")
    fields = json.loads(content)
    envelope = Envelope(base64.b64decode(fields["payload"]), fields["payloadType"])
    annotations = layer["annotations"]
    chain = [read_leaf(annotations[CERTIFICATE].encode()), *read_chain(annotations[CHAIN].encode())]
    bundle = Bundle(
        signature=base64.b64decode(fields["signatures"][0]["sig"]),
        certificates=tuple(map(der_of, chain)),
        entries=(read_promised_entry(annotations[LOG_ENTRY]),),
        timestamps=(),
        envelope=envelope,
        message_digest=None,
    )
    generator = "https://github.com/slsa-framework/slsa-github-generator/.github/workflows"
    workflow = f"{generator}/generator_container_slsa3.yml@refs/tags/{version}"
    log_keys, authorities = production()

    def found(subject: str) -> str:
        issuer = "https://token.actions.githubusercontent.com"
        rule = CertificateRule(authorities, issuer=issuer, email=subject)
        try:
            prove_signer(bundle, Message(b""), Trust((), rule, log_keys, has_log_time=True), None, NOW)
        except NotProven as error:
            return error.reason
        return "valid"

    assert agrees(f"slsa {version}", found(workflow), "valid")
    assert "not of " in found(workflow.replace("_slsa3", "_slsa4"))
    assert "not of " in found(workflow[:-1])
    assert read_statement(envelope.payload).names_of(digest) is not None
    assert read_statement(envelope.payload).names_of(digest_of(b"other")) is None


def _attestation(layout: Path) -> tuple[Mapping[str, Any], bytes]:
    def blob(digest: str) -> bytes:
        return (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()

    index = json.loads((layout / "index.json").read_bytes())
    (manifest,) = (each for each in index["manifests"] if each["annotations"]["kind"].endswith("/atts"))
    for layer in json.loads(blob(manifest["digest"]))["layers"]:
        if (layout / "blobs" / "sha256" / layer["digest"][7:]).exists():
            return layer, blob(layer["digest"])
    raise AssertionError("no attestation is here")


def test_public_keys_of_others() -> None:
    folder = signature_vectors("cosign")
    for name in ("release-cosign.pub", "google", "letsencrypt-testflume-2021"):
        assert read_public_key((folder / name).read_bytes(), name).der


def test_a_log_key_that_is_rsa(tmp_path: Path) -> None:
    folder = signature_vectors("dir-images-cosign")
    requirement = {
        "type": "sigstoreSigned",
        "keyPath": str(folder / "cosign.pub"),
        "rekorPublicKeyPath": str(folder / "some-rsa-key.pub"),
    }
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"default": [requirement]}))
    with pytest.raises(InvalidConfig, match="is no key of a log"):
        load_judge(policy)
