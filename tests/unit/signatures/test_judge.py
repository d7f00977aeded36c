"""Which images a judge accepts, and with which sentence it refuses the others."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blobflow.errors import InvalidConfig, SignatureRejected
from blobflow.oci import parse_reference
from blobflow.oci.digest import digest_of
from blobflow.signatures.certificates import CertificateRule, few_alike
from blobflow.signatures.contract import Acceptance, ClaimedImage, FoundSignature, SignatureJudge
from blobflow.signatures.judge import MAX_JUDGED, load_judge
from blobflow.signatures.proofs import NotProven
from blobflow.signatures.proving import Prover
from blobflow.signatures.signed_identity import MatchRepository
from blobflow.signatures.sigstore_root import SigstoreRoot
from blobflow.signatures.trust import Trust
from tests.unit.signatures.signing import (
    ISSUER,
    NOW,
    Authority,
    Log,
    attestation_bundle,
    bundle,
    certificate_pem,
    der,
    dsse_entry,
    encoded,
    hashedrekord,
    message_bundle,
    payload,
    pem,
    private_key,
    sign,
    simple,
    statement,
    text,
)

NAME = "registry.example.com/team/app"
MANIFEST = b'{"schemaVersion": 2}'
DIGEST = digest_of(MANIFEST)
OTHER = digest_of(b"another manifest")
IMAGE = ClaimedImage("docker", parse_reference(f"{NAME}:1"), DIGEST, MANIFEST)
KEY = private_key()
MAIL = x509.RFC822Name("build@example.com")

Judging = Callable[..., SignatureJudge]


@pytest.fixture
def judging(tmp_path: Path) -> Judging:
    """Makes a judge of requirements, in a folder with the files that they name."""

    def make(*requirements: dict[str, Any], now: datetime = NOW, **options: Any) -> SignatureJudge:
        policy = tmp_path / "policy.json"
        policy.write_text(json.dumps({"default": list(requirements)}))
        return load_judge(policy, now=lambda: now, **options)

    return make


def by_key(*keys: Any, **fields: Any) -> dict[str, Any]:
    """A requirement of one of these keys, and that the repository is the right one."""
    datas = [text(pem(key)) for key in keys or (KEY,)]
    fields.setdefault("signedIdentity", {"type": "matchRepository"})
    return {"type": "sigstoreSigned", "keyDatas": datas, **fields}


def refusal(judge: SignatureJudge, *signatures: FoundSignature, image: ClaimedImage = IMAGE) -> str:
    with pytest.raises(SignatureRejected) as caught:
        judge.judge(image, signatures)
    return caught.value.message


def acceptance(judge: SignatureJudge, *signatures: FoundSignature, image: ClaimedImage = IMAGE) -> Acceptance:
    (found,) = judge.judge(image, signatures).acceptances
    return found


KINDS = ("p256", "p384", "p521", "ed25519", "rsa")


@pytest.mark.parametrize("kind", KINDS)
def test_a_payload_that_a_key_signed_proves_the_image(kind: str, judging: Judging) -> None:
    key = private_key(kind)
    signature = simple(key, payload(DIGEST, NAME))
    found = acceptance(judging(by_key(key)), signature)
    assert found == Acceptance(
        "sigstoreSigned", "the key of the policy", signature.digest, signature.manifest
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_that_signs_the_manifest_proves_the_image(kind: str, judging: Judging) -> None:
    key = private_key(kind)
    found = acceptance(judging(by_key(key)), bundle(message_bundle(key, MANIFEST)))
    assert found.by == "the key of the policy, for the digest under any name"


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_of_cosign_3_proves_the_image(kind: str, judging: Judging) -> None:
    key = private_key(kind)
    acceptance(judging(by_key(key)), bundle(attestation_bundle(key, statement(DIGEST))))


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (("verificationMaterial",), "tlogEntries"),
        (("verificationMaterial", "timestampVerificationData"), "rfc3161Timestamps"),
        (("verificationMaterial", "publicKey"), "hint"),
    ],
)
def test_null_is_what_is_not_there(place: tuple[str, ...], name: str, judging: Judging) -> None:
    """As protobuf reads JSON; of what has to be there it is a mistake."""
    raw = attestation_bundle(KEY, statement(DIGEST))
    part = raw
    for each in place:
        part = part.setdefault(each, {})
    part[name] = None
    acceptance(judging(by_key()), bundle(raw))
    raw["dsseEnvelope"]["payloadType"] = None
    assert "is no bundle that can be read" in refusal(judging(by_key()), bundle(raw))


def test_a_subject_may_have_null_for_a_name(judging: Judging) -> None:
    named = json.loads(statement(DIGEST, "x"))
    named["subject"][0]["name"] = None
    acceptance(judging(by_key()), bundle(attestation_bundle(KEY, json.dumps(named).encode())))


@pytest.mark.parametrize(("kind", "strength"), [("p384", hashes.SHA384()), ("p521", hashes.SHA512())])
def test_the_hash_of_a_curve_counts_as_sha256_does(
    kind: str, strength: hashes.HashAlgorithm, judging: Judging
) -> None:
    key = private_key(kind)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    content = payload(DIGEST, NAME)
    acceptance(judging(by_key(key)), simple(key, content, key.sign(content, ec.ECDSA(strength))))
    weak = simple(key, content, key.sign(content, ec.ECDSA(hashes.SHA224())))
    assert "it is not by the key" in refusal(judging(by_key(key)), weak)


def test_a_message_signature_needs_the_manifest_only_for_keys_that_sign_it_as_it_is(judging: Judging) -> None:
    image = ClaimedImage("docker", IMAGE.reference, DIGEST)
    acceptance(judging(by_key()), bundle(message_bundle(KEY, MANIFEST)), image=image)
    key = private_key("ed25519")
    message = refusal(judging(by_key(key)), bundle(message_bundle(key, MANIFEST)), image=image)
    assert message.endswith("Ed25519 needs the manifest itself")


@pytest.mark.parametrize("form", ["file", "der"])
def test_a_key_is_read_from_a_file_in_pem_or_der(form: str, judging: Judging, tmp_path: Path) -> None:
    raw = pem(KEY)
    if form == "der":
        raw = base64.b64decode(b"".join(raw.splitlines()[1:-1]))
    path = tmp_path / "app.pub"
    path.write_bytes(raw)
    requirement = {key: value for key, value in by_key().items() if key != "keyDatas"}
    judge = judging({**requirement, "keyPath": str(path)})
    assert acceptance(judge, simple(KEY, payload(DIGEST, NAME))).by == f"the key {path}"


# The attacks: each is refused with one sentence.


def rejected(reason: str) -> str:
    return f"{NAME}:1 is not accepted by the signature policy (scope default): {reason}"


def its_only(signature: FoundSignature, reason: str) -> str:
    return rejected(f"its only signature ({signature.digest[:19]}…) does not count: {reason}")


def test_no_signature(judging: Judging) -> None:
    assert refusal(judging(by_key())) == rejected("no signature was found")


FORGED = private_key("p256", 1)
FORMS: dict[str, Callable[[Any, str], FoundSignature]] = {
    "payload": lambda key, digest: simple(key, payload(digest, NAME)),
    "message": lambda key, digest: bundle(message_bundle(key, MANIFEST if digest == DIGEST else b"other")),
    "attestation": lambda key, digest: bundle(
        attestation_bundle(key, statement(digest_of(MANIFEST) if digest == DIGEST else OTHER))
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_wrong_key(form: str, judging: Judging) -> None:
    signature = FORMS[form](FORGED, DIGEST)
    assert refusal(judging(by_key()), signature) == its_only(signature, "it is not by the key of the policy")


@pytest.mark.parametrize("form", FORMS)
def test_the_right_key_over_another_digest(form: str, judging: Judging) -> None:
    """A signature that was copied from another image is that."""
    signature = FORMS[form](KEY, OTHER)
    signed = digest_of(b"other") if form == "message" else OTHER
    assert refusal(judging(by_key()), signature) == its_only(
        signature, f"it is for {signed}, not for {DIGEST}"
    )


def test_a_message_signature_that_lies_about_its_digest(judging: Judging) -> None:
    raw = message_bundle(KEY, b"other")
    raw["messageSignature"]["messageDigest"]["digest"] = text(bytes.fromhex(DIGEST[7:]))
    assert "it is not by the key" in refusal(judging(by_key()), bundle(raw))
    del raw["messageSignature"]["messageDigest"]
    assert "it is not by the key" in refusal(judging(by_key()), bundle(raw))


@pytest.mark.parametrize("signed", [f"{NAME}-2", "registry.example.com/team", f"evil.example.com/{NAME}", ""])
def test_a_payload_for_another_repository(signed: str, judging: Judging) -> None:
    signature = simple(KEY, payload(DIGEST, signed))
    shown = f'"{signed}"' if signed else "no repository"
    reason = f"it names {shown}, and the policy wants {NAME}"
    assert refusal(judging(by_key()), signature) == its_only(signature, reason)


def test_a_bundle_that_names_another_repository(judging: Judging) -> None:
    signature = bundle(attestation_bundle(KEY, statement(DIGEST, f"{NAME}-2")))
    reason = f'it names "{NAME}-2", and the policy wants {NAME}'
    assert refusal(judging(by_key()), signature) == its_only(signature, reason)


@pytest.mark.parametrize(
    ("identity", "named", "unnamed"),
    [
        (None, True, True),
        ({"type": "matchExact"}, True, True),
        ({"type": "matchRepository"}, True, True),
        ({"type": "exactRepository", "dockerRepository": NAME}, True, False),
        ({"type": "exactRepository", "dockerRepository": f"{NAME}-2"}, False, False),
        ({"type": "exactReference", "dockerReference": f"{NAME}:1"}, False, False),
        (
            {"type": "remapIdentity", "prefix": "registry.example.com", "signedPrefix": "o.example"},
            False,
            True,
        ),
    ],
)
def test_a_bundle_without_a_name_is_for_its_digest_unless_a_name_is_wanted(
    identity: dict[str, str] | None, named: bool, unnamed: bool, judging: Judging
) -> None:
    requirement = by_key(signedIdentity=identity)
    if identity is None:
        del requirement["signedIdentity"]
    judge = judging(requirement)
    for name, accepted in ((NAME, named), (None, unnamed), ("_", unnamed)):
        signature = bundle(attestation_bundle(KEY, statement(DIGEST, name)))
        if accepted:
            acceptance(judge, signature)
        else:
            assert "and the policy wants" in refusal(judge, signature)


def test_a_tag_that_a_bundle_names_counts(judging: Judging) -> None:
    requirement = by_key(signedIdentity={"type": "matchRepoDigestOrExact"})
    acceptance(judging(requirement), bundle(attestation_bundle(KEY, statement(DIGEST, f"{NAME}:1"))))
    signature = bundle(attestation_bundle(KEY, statement(DIGEST, f"{NAME}:2")))
    assert f'it names "{NAME}:2", and the policy wants exactly {NAME}:1' in refusal(
        judging(requirement), signature
    )


def test_an_attestation_of_something_else_is_no_signature(judging: Judging) -> None:
    provenance = "https://slsa.dev/provenance/v1"
    signature = bundle(attestation_bundle(KEY, statement(DIGEST, predicate_type=provenance)))
    reason = f"it attests something about the image ({provenance}), and does not sign it"
    assert refusal(judging(by_key()), signature) == its_only(signature, reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "its payload is not JSON: Expecting value (line 1, column 1)"),
        (b"[]", "its payload: should be an object, and is a list"),
        (payload(DIGEST, NAME, creator="me"), 'critical: has an unknown field "creator"'),
        (
            payload(DIGEST, NAME).replace(b'"optional"', b'"Optional"'),
            'its payload: has an unknown field "Optional"',
        ),
        (
            payload(DIGEST, NAME).replace(b'{"critical"', b'{"optional": null, "critical"'),
            'has "optional" twice',
        ),
        (
            payload(DIGEST, NAME).replace(b"cosign", b"atomic"),
            'critical.type: is "atomic container image signature"',
        ),
        (payload(DIGEST[:-1], NAME), "is not a digest"),
        (payload("md5:00", NAME), "has an algorithm that blobflow can't verify"),
        (payload(DIGEST, NAME).replace(b"null", b"[]"), "optional: should be an object, and is a list"),
        (
            payload(DIGEST, NAME).replace(b"null", b'{"timestamp": 1.5}'),
            "optional.timestamp: should be a whole number",
        ),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * 300_000, "its payload has more than 256 KiB"),
    ],
)
def test_a_malformed_payload(content: bytes, reason: str, judging: Judging) -> None:
    assert reason in refusal(judging(by_key()), simple(KEY, content))


def test_a_payload_may_say_more_than_it_has_to(judging: Judging) -> None:
    content = payload(DIGEST, NAME).replace(b"null", b'{"creator": "me", "timestamp": 1e9, "pipeline": [1]}')
    acceptance(judging(by_key()), simple(KEY, content))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"no json", "it is no bundle that can be read"),
        (b"[" * 100_000, "it is no bundle that can be read"),
        (b"{}", "it is no bundle that can be read"),
        (json.dumps({**message_bundle(KEY, MANIFEST), "mediaType": "v9"}).encode(), "of a version"),
        (
            json.dumps({**message_bundle(KEY, MANIFEST), "messageSignature": None}).encode(),
            "with no signature",
        ),
        (
            json.dumps({**attestation_bundle(KEY, b"{}"), **message_bundle(KEY, MANIFEST)}).encode(),
            "with no signature, or with two",
        ),
        (json.dumps(attestation_bundle(KEY, b"{}")).encode(), "its statement lacks _type"),
        (
            json.dumps(attestation_bundle(KEY, statement(DIGEST).replace(b"v1", b"v9", 1))).encode(),
            "of a version",
        ),
        (
            json.dumps(attestation_bundle(KEY, statement(DIGEST).replace(b"sha256", b"gitCommit"))).encode(),
            "no image",
        ),
    ],
)
def test_a_malformed_bundle(raw: bytes, reason: str, judging: Judging) -> None:
    assert reason in refusal(judging(by_key()), FoundSignature("bundle", digest_of(raw), raw, OTHER, "api"))


def test_an_envelope_with_two_signatures(judging: Judging) -> None:
    raw = attestation_bundle(KEY, statement(DIGEST))
    raw["dsseEnvelope"]["signatures"] *= 2
    assert "exactly one signature" in refusal(judging(by_key()), bundle(raw))


def test_a_signature_may_end_in_the_end_of_a_line(judging: Judging) -> None:
    """As in an annotation that a shell made of `openssl base64`."""
    found = simple(KEY, payload(DIGEST, NAME))
    lines = {name: f"{value[:64]}\n{value[64:]}\n" for name, value in found.annotations.items()}
    acceptance(judging(by_key()), msgspec.structs.replace(found, annotations=lines))


@pytest.mark.parametrize("annotation", [{}, {"dev.cosignproject.cosign/signature": "no base64!"}])
def test_a_payload_without_a_signature(annotation: dict[str, str], judging: Judging) -> None:
    content = payload(DIGEST, NAME)
    found = FoundSignature("simple", digest_of(content), content, OTHER, "cosign", annotation)
    reason = "its signature is not base64" if annotation else "it has no signature annotation"
    assert refusal(judging(by_key()), found) == its_only(found, reason)


def test_one_good_signature_among_bad_ones_is_enough(judging: Judging) -> None:
    good = simple(KEY, payload(DIGEST, NAME))
    bad = simple(FORGED, payload(DIGEST, NAME))
    assert acceptance(judging(by_key()), bad, bundle({}), good).signature == good.digest


def test_the_error_is_about_the_signature_that_came_closest(judging: Judging) -> None:
    other = simple(KEY, payload(OTHER, NAME))
    message = refusal(judging(by_key()), simple(FORGED, payload(DIGEST, NAME)), other, bundle({}))
    assert message == rejected(
        f"of 3 signatures, the one that came closest ({other.digest[:19]}…) does not count: "
        f"it is for {OTHER}, not for {DIGEST}"
    )


def test_of_very_many_signatures_only_the_first_are_judged(judging: Judging) -> None:
    bad = [simple(FORGED, payload(DIGEST, NAME))] * MAX_JUDGED
    message = refusal(judging(by_key()), *bad, simple(KEY, payload(DIGEST, NAME)))
    assert f"of the first {MAX_JUDGED} of {MAX_JUDGED + 1} signatures" in message


def test_all_requirements_have_to_be_met(judging: Judging) -> None:
    second = private_key("p256", 2)
    judge = judging(by_key(), by_key(second))
    ours, theirs = simple(KEY, payload(DIGEST, NAME)), simple(second, payload(DIGEST, NAME))
    assert [each.signature for each in judge.judge(IMAGE, [ours, theirs]).acceptances] == [
        ours.digest,
        theirs.digest,
    ]
    assert "is not by the key of the policy" in refusal(judge, ours)


def test_any_of_several_keys_is_enough(judging: Judging) -> None:
    judge = judging(by_key(FORGED, KEY))
    assert acceptance(judge, simple(KEY, payload(DIGEST, NAME))).by == "key 2 of the policy"


# Certificates.


def by_ca(authority: Authority, log: Log, **fields: Any) -> dict[str, Any]:
    fulcio = {
        "caData": text(certificate_pem(authority.root)),
        "oidcIssuer": ISSUER,
        "subjectEmail": "build@example.com",
        **fields,
    }
    return {
        "type": "sigstoreSigned",
        "fulcio": fulcio,
        "rekorPublicKeyData": text(pem(log.key)),
        "signedIdentity": {"type": "matchRepository"},
    }


AUTHORITY, LOG = Authority(), Log()


def certified(
    leaf: x509.Certificate,
    *,
    log: Log = LOG,
    at: datetime = NOW,
    logged: bytes | None = None,
    chain: Sequence[x509.Certificate] = (AUTHORITY.intermediate, AUTHORITY.root),
) -> FoundSignature:
    """A payload signed with a certificate, as cosign 2 does it without a key. `logged`: the bytes that the
    log was told of."""
    content = payload(DIGEST, NAME)
    signature = sign(KEY, content)
    body = hashedrekord(content if logged is None else logged, signature, certificate_pem(leaf))
    return simple(
        KEY,
        content,
        signature,
        certificate=certificate_pem(leaf).decode(),
        chain=certificate_pem(*chain).decode(),
        bundle=log.annotation(body, at),
    )


def certified_bundle(leaf: x509.Certificate, at: datetime = NOW) -> FoundSignature:
    content = statement(DIGEST)
    signature = sign(KEY, encoded(content))
    entry = LOG.entries(dsse_entry(content, signature, certificate_pem(leaf)), at)
    chain = [{"rawBytes": der(each)} for each in (leaf, AUTHORITY.intermediate)]
    return bundle(
        attestation_bundle(
            KEY, content, signature, x509CertificateChain={"certificates": chain}, tlogEntries=[entry]
        )
    )


def test_a_certificate_proves_the_image_at_the_time_of_the_log(judging: Judging) -> None:
    leaf = AUTHORITY.issue(KEY, MAIL, issuer=ISSUER)
    judge = judging(by_ca(AUTHORITY, LOG), now=NOW + timedelta(days=100))
    assert acceptance(judge, certified(leaf)).by == f"build@example.com (issuer {ISSUER})"
    assert acceptance(judge, certified_bundle(leaf)).by.startswith("build@example.com")


def test_a_certificate_that_expired_before_it_signed(judging: Judging) -> None:
    leaf = AUTHORITY.issue(KEY, MAIL, issuer=ISSUER, last=NOW)
    late = NOW + timedelta(seconds=1)
    judge = judging(by_ca(AUTHORITY, LOG))
    assert refusal(judge, certified(leaf, at=late)).endswith(
        "its certificate expired at 2026-06-01 12:00:00 UTC, and it was signed at 2026-06-01 12:00:01 UTC"
    )
    assert "its certificate expired at 2026-06-01 12:00:00 UTC" in refusal(
        judge, certified_bundle(leaf, late)
    )


def test_a_certificate_before_it_is_valid(judging: Judging) -> None:
    leaf = AUTHORITY.issue(KEY, MAIL, issuer=ISSUER)
    early = certified(leaf, at=NOW - timedelta(days=1))
    assert "its certificate is valid from 2026-06-01 11:55:00 UTC on" in refusal(
        judging(by_ca(AUTHORITY, LOG)), early
    )


@pytest.mark.parametrize(
    "name",
    [
        x509.RFC822Name("build@example.com.evil.example"),
        x509.RFC822Name("build@example.co"),
        x509.RFC822Name("other-build@example.com"),
        x509.DNSName("build.example.com"),
        x509.UniformResourceIdentifier("build@example.com"),
    ],
)
def test_an_identity_that_is_only_like_the_right_one(name: x509.GeneralName, judging: Judging) -> None:
    leaf = AUTHORITY.issue(KEY, name, issuer=ISSUER)
    judge = judging(by_ca(AUTHORITY, LOG))
    for signature in (certified(leaf), certified_bundle(leaf)):
        assert refusal(judge, signature).endswith("not of build@example.com")


def test_an_identity_of_a_build_job_is_a_uri(judging: Judging) -> None:
    job = "https://ci.example.com/team/app/release.yml@refs/tags/v1"
    leaf = AUTHORITY.issue(KEY, x509.UniformResourceIdentifier(job), issuer=ISSUER)
    acceptance(judging(by_ca(AUTHORITY, LOG, subjectEmail=job)), certified(leaf))
    message = refusal(judging(by_ca(AUTHORITY, LOG, subjectEmail=job[:-1])), certified(leaf))
    assert message.endswith(f'its certificate is of "{job}", not of {job[:-1]}')


@pytest.mark.parametrize("issuer", ["https://evil.example.com", f"{ISSUER}.evil.example", ""])
def test_a_certificate_with_another_issuer_of_its_subject(issuer: str, judging: Judging) -> None:
    leaf = AUTHORITY.issue(KEY, MAIL, issuer=issuer)
    message = refusal(judging(by_ca(AUTHORITY, LOG)), certified(leaf))
    assert message.endswith(f'its certificate is of the issuer "{issuer}", not {ISSUER}')


def test_a_certificate_of_another_ca(judging: Judging) -> None:
    """With the same names, and with the other CA's root brought along."""
    forger = Authority(1)
    leaf = forger.issue(KEY, MAIL, issuer=ISSUER)
    signature = certified(leaf, chain=(forger.intermediate, forger.root))
    message = refusal(judging(by_ca(AUTHORITY, LOG)), signature)
    assert "its certificate is not vouched for by the CA of the policy" in message


def test_a_certificate_that_a_signers_certificate_issued(judging: Judging) -> None:
    """Who may sign code may not issue certificates."""
    signer = AUTHORITY.issue(private_key("p256", 201), MAIL, issuer=ISSUER)
    leaf = Authority(1).issue(KEY, MAIL, issuer=ISSUER)
    signature = certified(leaf, chain=(signer, AUTHORITY.intermediate, AUTHORITY.root))
    assert "is not vouched for" in refusal(judging(by_ca(AUTHORITY, LOG)), signature)


def test_a_ca_says_that_it_may_issue_certificates_or_nothing(judging: Judging) -> None:
    for usage, accepted in ((None, True), (False, False)):
        authority = Authority(2, usage=usage)
        leaf = authority.issue(KEY, MAIL, issuer=ISSUER)
        signature = certified(leaf, chain=(authority.intermediate,))
        judge = judging(by_ca(authority, LOG))
        if accepted:
            acceptance(judge, signature)
        else:
            assert "a certificate that may not issue others" in refusal(judge, signature)


@pytest.mark.parametrize("subject", ["", "somebody"])
@pytest.mark.parametrize("critical", [False, True])
def test_names_count_whether_they_are_critical_or_not(subject: str, critical: bool, judging: Judging) -> None:
    """openssl writes what its configuration says, and skopeo takes either."""
    leaf = AUTHORITY.issue(KEY, MAIL, issuer=ISSUER, subject=subject, critical=critical)
    acceptance(judging(by_ca(AUTHORITY, LOG)), certified(leaf))
    other = AUTHORITY.issue(
        KEY, x509.RFC822Name("other@example.com"), issuer=ISSUER, subject=subject, critical=critical
    )
    assert "not of build@example.com" in refusal(judging(by_ca(AUTHORITY, LOG)), certified(other))


def test_a_certificate_for_another_use(judging: Judging) -> None:
    leaf = AUTHORITY.issue(KEY, MAIL, issuer=ISSUER, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    message = refusal(judging(by_ca(AUTHORITY, LOG)), certified(leaf))
    assert message.endswith("its certificate is not for signing code")


def test_a_log_entry_for_other_bytes(judging: Judging) -> None:
    leaf = AUTHORITY.issue(KEY, MAIL, issuer=ISSUER)
    signature = certified(leaf, logged=b"other bytes")
    assert refusal(judging(by_ca(AUTHORITY, LOG)), signature) == its_only(
        signature, "its log entry is for other bytes"
    )


def test_a_log_entry_for_another_signature_or_signer(judging: Judging) -> None:
    judge = judging(by_key(rekorPublicKeyData=text(pem(LOG.key))))
    content = payload(DIGEST, NAME)
    signature = sign(KEY, content)
    for body, reason in (
        (hashedrekord(content, signature, pem(KEY)), ""),
        (hashedrekord(content, sign(KEY, b"other"), pem(KEY)), "its log entry is for another signature"),
        (hashedrekord(content, signature, pem(FORGED)), "its log entry is for another key or certificate"),
        ({"kind": "rpm", "apiVersion": "0.0.1"}, "its log entry is of a kind that blobflow does not read"),
        ({"kind": "hashedrekord", "apiVersion": "0.0.1"}, "its log entry lacks spec"),
    ):
        found = simple(KEY, content, signature, bundle=LOG.annotation(body))
        if reason:
            assert reason in refusal(judge, found)
        else:
            acceptance(judge, found)


def test_a_bundle_whose_log_entry_is_for_other_bytes(judging: Judging) -> None:
    judge = judging(by_key(rekorPublicKeyData=text(pem(LOG.key))))
    content, signature = statement(DIGEST), sign(KEY, encoded(statement(DIGEST)))
    for logged, accepted in ((content, True), (statement(OTHER), False)):
        entry = LOG.entries(dsse_entry(logged, signature, pem(KEY)))
        found = bundle(attestation_bundle(KEY, content, signature, tlogEntries=[entry]))
        if accepted:
            acceptance(judge, found)
        else:
            assert refusal(judge, found) == its_only(found, "its log entry is for other bytes")
    assert refusal(judge, bundle(attestation_bundle(KEY, content))).endswith("it has no log entry")


def test_a_log_that_the_policy_does_not_know(judging: Judging) -> None:
    leaf = AUTHORITY.issue(KEY, MAIL, issuer=ISSUER)
    message = refusal(judging(by_ca(AUTHORITY, LOG)), certified(leaf, log=Log(1)))
    assert message.endswith("its log entry is not promised by a log of the policy")


def by_pki(**fields: Any) -> dict[str, Any]:
    pki = {"caRootsData": text(certificate_pem(AUTHORITY.root)), **fields}
    return {"type": "sigstoreSigned", "pki": pki, "signedIdentity": {"type": "matchRepository"}}


def test_a_ca_of_ones_own_needs_no_log(judging: Judging) -> None:
    leaf = AUTHORITY.issue(KEY, MAIL, x509.DNSName("build.example.com"))
    for requirement in (
        by_pki(subjectEmail="build@example.com"),
        by_pki(subjectHostname="BUILD.example.com"),
        by_pki(subjectEmail="build@example.com", subjectHostname="build.example.com"),
    ):
        acceptance(judging(requirement), certified(leaf))
    between = text(certificate_pem(AUTHORITY.intermediate))
    judge = judging(by_pki(subjectEmail="build@example.com", caIntermediatesData=between))
    acceptance(judge, certified(leaf, chain=()))
    refused = refusal(judging(by_pki(subjectEmail="build@example.com")), certified(leaf, chain=()))
    assert "is not vouched for by the CA of the policy" in refused
    message = refusal(judging(by_pki(subjectHostname="build.example.org")), certified(leaf))
    assert message.endswith("its certificate is not of the host build.example.org")


def test_an_expired_certificate_without_a_timestamp(judging: Judging) -> None:
    leaf = AUTHORITY.issue(KEY, MAIL)
    judge = judging(by_pki(subjectEmail="build@example.com"), now=NOW + timedelta(hours=1))
    for signature in (certified(leaf), certified_bundle(leaf)):
        assert refusal(judge, signature).endswith(
            "its certificate expired at 2026-06-01 12:05:00 UTC, "
            "and no timestamp says that it was signed before"
        )


class Root:
    """A trusted root whose authority says of every signature that it was there at a time."""

    log_keys = ()
    authorities = ()

    def __init__(self, at: datetime | None) -> None:
        self._at = at

    def timestamped(self, timestamps: Sequence[bytes], signature: bytes) -> datetime | None:
        return self._at if timestamps and signature else None


def test_an_expired_certificate_with_a_timestamp_from_before() -> None:
    leaf = AUTHORITY.issue(KEY, MAIL)
    rule = CertificateRule((AUTHORITY.root,), email="build@example.com")
    now = NOW + timedelta(hours=1)
    stamped = {"SignedRFC3161Timestamp": text(b"from an authority")}
    payload_form, bundle_form = certified(leaf), json.loads(certified_bundle(leaf).content)
    annotations = {**payload_form.annotations, "dev.sigstore.cosign/rfc3161timestamp": json.dumps(stamped)}
    bundle_form["verificationMaterial"]["timestampVerificationData"] = {
        "rfc3161Timestamps": [{"signedTimestamp": text(b"from an authority")}]
    }
    for signature in (msgspec.structs.replace(payload_form, annotations=annotations), bundle(bundle_form)):
        for at, accepted in ((NOW, True), (now, False), (None, False)):
            root = cast(SigstoreRoot, Root(at))
            prover = Prover(MatchRepository(), Trust(rule=rule), root)
            if accepted:
                assert prover.prove(signature, IMAGE, now).startswith("build@example.com")
            else:
                with pytest.raises(NotProven, match="its certificate expired at"):
                    prover.prove(signature, IMAGE, now)


def test_a_wildcard_stands_for_one_label(judging: Judging) -> None:
    leaf = AUTHORITY.issue(KEY, x509.DNSName("*.example.com"))
    acceptance(judging(by_pki(subjectHostname="build.example.com")), certified(leaf))
    for hostname in ("a.build.example.com", "example.com"):
        assert "not of the host" in refusal(judging(by_pki(subjectHostname=hostname)), certified(leaf))


def test_a_signature_that_is_not_by_its_certificate(judging: Judging) -> None:
    leaf = AUTHORITY.issue(FORGED, MAIL)
    message = refusal(judging(by_pki(subjectEmail="build@example.com")), certified(leaf))
    assert message.endswith("it is not by the key of its certificate")


def changed(content: bytes, at: int, to: int) -> bytes:
    """The content with one of its bytes exchanged."""
    at %= len(content)
    return content[:at] + bytes([to]) + content[at + 1 :]


@given(at=st.integers(0, 10_000), to=st.integers(0, 255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_byte_is_changed_to_there_is_a_verdict(at: int, to: int, judging: Judging) -> None:
    """And a payload that was changed is refused."""
    judge = judging(by_ca(AUTHORITY, LOG))
    leaf = AUTHORITY.issue(KEY, MAIL, issuer=ISSUER)
    payload_form, bundle_form = certified(leaf), certified_bundle(leaf)
    other = changed(payload_form.content, at, to)
    if other != payload_form.content:
        refusal(judge, msgspec.structs.replace(payload_form, content=other))
    found = [msgspec.structs.replace(bundle_form, content=changed(bundle_form.content, at, to))]
    for name, value in payload_form.annotations.items():
        text = changed(value.encode(), at, to).decode(errors="replace")
        annotations = {**payload_form.annotations, name: text}
        found.append(msgspec.structs.replace(payload_form, annotations=annotations))
    for each in found:
        with contextlib.suppress(SignatureRejected):  # a blank, or the hint of a key, changes nothing
            judge.judge(IMAGE, [each])


class WarningRoot(Root):
    def timestamped(self, timestamps: Sequence[bytes], signature: bytes) -> datetime | None:
        warnings.warn("a country of three letters", stacklevel=1)
        return super().timestamped(timestamps, signature)


def test_what_libraries_warn_of_is_no_verdict_and_is_not_printed() -> None:
    """Warnings are errors in tests."""
    rule = CertificateRule((AUTHORITY.root,), email="build@example.com")
    prover = Prover(MatchRepository(), Trust(rule=rule), cast(SigstoreRoot, WarningRoot(None)))
    found = certified_bundle(AUTHORITY.issue(KEY, MAIL))
    assert prover.prove(found, IMAGE, NOW).startswith("build@example.com")


# Policies.


def test_policies_that_ask_for_no_signature(judging: Judging) -> None:
    assert judging({"type": "insecureAcceptAnything"}).judge(IMAGE, ()).acceptances == (
        Acceptance("insecureAcceptAnything"),
    )
    assert refusal(judging({"type": "reject"})) == rejected("it rejects every image")
    signed_by = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/nowhere.gpg"}
    assert "signedBy asks for a GnuPG signature, which blobflow does not verify" in refusal(
        judging(signed_by)
    )


def test_signatures_are_wanted_where_a_verdict_follows_from_them(judging: Judging) -> None:
    accept, reject = {"type": "insecureAcceptAnything"}, {"type": "reject"}
    assert not judging(accept).wants_signatures(IMAGE)
    assert not judging(reject).wants_signatures(IMAGE)
    assert not judging(reject, by_key()).wants_signatures(IMAGE)
    assert judging(accept, by_key()).wants_signatures(IMAGE)


def test_a_fingerprint_follows_from_the_policy_and_its_keys(judging: Judging, tmp_path: Path) -> None:
    path = tmp_path / "app.pub"
    requirement = {"type": "sigstoreSigned", "keyPath": str(path)}
    path.write_bytes(pem(KEY))
    first = judging(requirement).fingerprint
    assert judging(requirement).fingerprint == first
    path.write_bytes(pem(FORGED))
    second = judging(requirement).fingerprint
    assert len({first, second, judging({"type": "reject"}).fingerprint}) == 3


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "it is no PEM and no DER of one"),
        (b"nonsense", "it is no PEM and no DER of one"),
        (pem(KEY)[:-40], "it is no PEM and no DER of one"),
        (pem(KEY) * 2, "holds 2 keys or certificates, and should hold one public key"),
        (certificate_pem(AUTHORITY.root), "is no public key but a certificate"),
        (
            b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
            "is no public key but a private key",
        ),
    ],
    ids=["empty", "nonsense", "cut off", "two", "a certificate", "private"],
)
def test_a_malformed_key(raw: bytes, reason: str, judging: Judging, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=reason):
        judging({"type": "sigstoreSigned", "keyData": text(raw)})


def test_all_that_a_policy_names_and_that_cant_be_read_is_told_at_once(
    judging: Judging, tmp_path: Path
) -> None:
    log_key = {"rekorPublicKeyData": text(pem(private_key("rsa")))}
    with pytest.raises(InvalidConfig) as caught:
        judging({"type": "sigstoreSigned", "keyPath": f"{tmp_path}/a.pub", **log_key})
    policy = tmp_path / "policy.json"
    assert caught.value.message == (
        f"{policy}: default[0]: can't read the file {tmp_path}/a.pub: No such file or directory; "
        f"{policy}: default[0]: the log key of the policy is no key of a log: those are ECDSA or Ed25519"
    )


def test_a_ca_that_is_none(judging: Judging) -> None:
    for raw in (b"", b"nonsense", pem(KEY)):
        with pytest.raises(InvalidConfig, match="caRootsData holds no certificate in PEM that can be read"):
            judging(by_pki(caRootsData=text(raw), subjectEmail="a@example.com"))


# What is imported, and who is asked.


def test_keys_are_verified_without_sigstore_and_policies_without_keys_with_nothing(tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text('{"default": [{"type": "reject"}]}')
    (tmp_path / "key.json").write_text(json.dumps({"default": [by_key()]}))
    code = """
import sys, pathlib
from blobflow.signatures.judge import load_judge
load_judge(pathlib.Path(sys.argv[1], "none.json"))
print("cryptography" in sys.modules)
load_judge(pathlib.Path(sys.argv[1], "key.json"))
print("cryptography" in sys.modules, "sigstore" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]


def test_without_the_extra_a_policy_of_signatures_cant_be_applied(tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text('{"default": [{"type": "reject"}]}')
    (tmp_path / "key.json").write_text(json.dumps({"default": [by_key()]}))
    code = """
import sys, pathlib
sys.modules["cryptography"] = None
from blobflow.errors import InvalidConfig
from blobflow.signatures.judge import load_judge
load_judge(pathlib.Path(sys.argv[1], "none.json"))
try:
    load_judge(pathlib.Path(sys.argv[1], "key.json"))
except InvalidConfig as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert 'pip install "blobflow[verify]"' in done.stdout


def test_of_what_a_signature_brings_along_few_certificates_are_alike() -> None:
    """Each more would make the paths that are tried so many times as many."""
    brought = Authority()
    chain = [brought.intermediate] * 5 + [brought.root]
    assert few_alike(chain) == [brought.intermediate] * 2
