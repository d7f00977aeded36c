"""policy.json: what is read, and that what is not understood is refused with its place."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow import bounded_file
from blobflow.errors import InvalidConfig
from blobflow.signatures.policy_file import (
    MAX_BYTES,
    Accept,
    Reject,
    SignaturePolicy,
    SignedBaseLayer,
    SignedBy,
    SigstoreSigned,
    parse_policy,
    read_policy,
)
from blobflow.signatures.requirements import Fulcio, Pki, type_of
from blobflow.signatures.signed_identity import (
    ExactReference,
    ExactRepository,
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    RemapIdentity,
)
from tests.signature_vectors import signature_vectors

KEY = {"type": "sigstoreSigned", "keyPath": "/k"}
FULCIO = {"caPath": "/ca", "oidcIssuer": "https://issuer.example.com", "subjectEmail": "a@example.com"}
PKI = {"caRootsPath": "/roots", "subjectHostname": "signer.example.com"}
PKI_SIGNED = {"type": "sigstoreSigned", "pki": PKI}


def policy_of(*requirements: object, scope: str = "h.example", transport: str = "docker") -> SignaturePolicy:
    document = {"default": [{"type": "reject"}], "transports": {transport: {scope: list(requirements)}}}
    return parse_policy(json.dumps(document).encode())


def required(requirement: object) -> Any:
    """The one requirement of a policy's scope, as it is read."""
    _, found = policy_of(requirement).all_requirements()
    return found


def refusal(requirement: object) -> str:
    with pytest.raises(InvalidConfig) as caught:
        policy_of(requirement)
    return caught.value.message


def test_policies_of_others_load() -> None:
    folder = signature_vectors("policy-json")
    files = [*folder.glob("valid/*.json"), *folder.glob("template/*.json")]
    assert len(files) == 6
    for file in files:
        assert list(read_policy(file).all_requirements()), file


def test_each_made_policy_is_read_or_refused_as_containers_image_does_it() -> None:
    file = signature_vectors("policy-json") / "made-cases.json"
    cases = json.loads(file.read_bytes())["cases"]
    assert len(cases) == 83
    assert {each["name"] for each in cases if is_read(each["text"]) != (each["expect"] == "valid")} == set()


def is_read(text: str) -> bool:
    try:
        parse_policy(text.encode())
    except InvalidConfig as error:
        assert error.message.startswith("policy.json"), error
        return False
    return True


def test_the_types_of_requirements_that_ask_for_no_key() -> None:
    place = 'transports.docker["h.example"][0]'
    assert required({"type": "insecureAcceptAnything"}) == Accept(place)
    assert required({"type": "reject"}) == Reject(place)
    signed_by = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}
    assert required(signed_by) == SignedBy(place)
    assert required({**signed_by, "signedIdentity": {"type": "matchExact"}}) == SignedBy(place)
    identity = {"type": "exactRepository", "dockerRepository": "h.example/base"}
    assert required({"type": "signedBaseLayer", "baseLayerIdentity": identity}) == SignedBaseLayer(place)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"keyPath": "/k"}, SigstoreSigned(key_paths=("/k",))),
        ({"keyPaths": ["/a", "/b"]}, SigstoreSigned(key_paths=("/a", "/b"))),
        ({"keyData": "a2V5"}, SigstoreSigned(key_datas=(b"key",))),
        ({"keyData": "a2\r\nV5\n"}, SigstoreSigned(key_datas=(b"key",))),
        ({"keyDatas": ["a2V5", "azI="]}, SigstoreSigned(key_datas=(b"key", b"k2"))),
        (
            {"keyPath": "/k", "rekorPublicKeyData": "cg=="},
            SigstoreSigned(key_paths=("/k",), rekor_public_key_datas=(b"r",)),
        ),
        (
            {"fulcio": FULCIO, "rekorPublicKeyPaths": ["/r1", "/r2"]},
            SigstoreSigned(
                fulcio=Fulcio("https://issuer.example.com", "a@example.com", ca_path="/ca"),
                rekor_public_key_paths=("/r1", "/r2"),
            ),
        ),
        ({"pki": PKI}, SigstoreSigned(pki=Pki("/roots", subject_hostname="signer.example.com"))),
        (
            {
                "pki": {
                    "caRootsData": "cg==",
                    "caIntermediatesData": "aQ==",
                    "subjectEmail": "a@example.com",
                }
            },
            SigstoreSigned(
                pki=Pki(ca_roots_data=b"r", ca_intermediates_data=b"i", subject_email="a@example.com")
            ),
        ),
    ],
)
def test_keys_certificates_and_logs(fields: dict[str, object], found: SigstoreSigned) -> None:
    read = required({"type": "sigstoreSigned", **fields})
    assert type_of(read) == "sigstoreSigned"
    names = [each for each in SigstoreSigned.__struct_fields__ if each != "place"]
    assert [getattr(read, name) for name in names] == [getattr(found, name) for name in names]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"type": "matchExact"}, MatchExact()),
        ({"type": "matchRepoDigestOrExact"}, MatchRepoDigestOrExact()),
        ({"type": "matchRepository"}, MatchRepository()),
        ({"type": "exactReference", "dockerReference": "alpine:3"}, ExactReference("alpine:3")),
        ({"type": "exactRepository", "dockerRepository": "h.example/a"}, ExactRepository("h.example/a")),
        (
            {"type": "remapIdentity", "prefix": "m.example:5000/hub", "signedPrefix": "docker.io"},
            RemapIdentity("m.example:5000/hub", "docker.io"),
        ),
    ],
)
def test_identities(fields: dict[str, str], found: object) -> None:
    assert required({**KEY, "signedIdentity": fields}).signed_identity == found


def test_without_an_identity_the_repository_and_the_tag_have_to_match() -> None:
    assert required(KEY).signed_identity == MatchRepoDigestOrExact()


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        (None, "should be an object, and is null"),
        ({**KEY, "keyPth": "/k"}, 'has an unknown field "keyPth"'),
        ({**KEY, "type": "SigstoreSigned"}, ".type: should be one of insecureAcceptAnything, "),
        ({**KEY, "keyPath": ""}, ".keyPath: should not be empty"),
        ({**KEY, "rekorPublicKeyPath": ""}, ".rekorPublicKeyPath: should not be empty"),
        ({**KEY, "rekorPublicKeyPath": None}, ".rekorPublicKeyPath: should be text, and is null"),
        ({"type": "sigstoreSigned", "keyPaths": ["/k", ""]}, ".keyPaths[1]: should not be empty"),
        ({"type": "sigstoreSigned", "keyData": [1]}, ".keyData: should be text, and is a list"),
        ({"type": "sigstoreSigned", "keyData": "a"}, ".keyData: should be base64"),
        ({"type": "sigstoreSigned", "keyData": "a2V5 "}, ".keyData: should be base64"),
        ({"type": "sigstoreSigned", "pki": PKI, "fulcio": FULCIO}, "has fulcio and pki"),
        ({"type": "sigstoreSigned", "fulcio": FULCIO}, "fulcio goes with a key of the log"),
        (
            {
                "type": "sigstoreSigned",
                "fulcio": {**FULCIO, "subjectEmail": ""},
                "rekorPublicKeyPath": "/r",
            },
            ".fulcio.subjectEmail: should not be empty",
        ),
        (
            {
                "type": "sigstoreSigned",
                "pki": {**PKI, "caIntermediatesPath": "/i", "caIntermediatesData": ""},
            },
            ".pki: has caIntermediatesPath and caIntermediatesData",
        ),
        ({**KEY, "signedIdentity": {}}, '.signedIdentity: lacks "type"'),
        (
            {**KEY, "signedIdentity": {"type": "matchTag"}},
            ".signedIdentity.type: should be one of matchExact",
        ),
        (
            {**KEY, "signedIdentity": {"type": "exactReference", "dockerReference": "h.example/a"}},
            ".signedIdentity.dockerReference: has neither a tag nor a digest",
        ),
        (
            {"type": "signedBy", "keyType": "PGP", "keyPath": "/k"},
            ".keyType: should be one of GPGKeys, signedByGPGKeys",
        ),
        ({"type": "signedBaseLayer", "baseLayerIdentity": None}, ".baseLayerIdentity: should be an object"),
    ],
)
def test_a_requirement_that_is_not_understood_is_refused_with_its_place(
    requirement: object, words: str
) -> None:
    message = refusal(requirement)
    assert message.startswith('policy.json: transports.docker["h.example"][0]')
    assert words in message and "\n" not in message


@pytest.mark.parametrize(
    "prefix", ["", "/a", "h.example/", "h.example/A", "h.example/a:1", "h.example//a", "a b"]
)
def test_a_prefix_is_a_host_a_namespace_or_a_repository(prefix: str) -> None:
    identity = {"type": "remapIdentity", "prefix": prefix, "signedPrefix": "h.example"}
    assert ".signedIdentity.prefix: should be HOST[:PORT]" in refusal({**KEY, "signedIdentity": identity})


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is not JSON: Expecting value (line 1, column 1)"),
        (b'{"default": [{"type": "reject"}]} x', "is not JSON: Extra data"),
        (b'\xef\xbb\xbf{"default": [{"type": "reject"}]}', "is not JSON"),
        (b'{"default": [{"type": "\xff"}]}', "is not JSON: it is not UTF-8"),
        (b'{"default": [NaN]}', "is not JSON: NaN is no number"),
        (b'{"default": [{"type": "\\ud800"}]}', "default[0].type: has half a character in it"),
        (
            b'{"default": [{"type": "reject"}], "transports": null}',
            "transports: should be an object, and is null",
        ),
        (b'{"Default": [{"type": "reject"}]}', 'has an unknown field "Default"'),
        (b'{"default": [{"type": "reject", "type": "reject"}]}', 'default[0]: has "type" twice'),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_policy(raw)
    assert words in caught.value.message


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    document = {
        "default": [{"type": "rejct"}],
        "transports": {
            "docker": {"a.example": [], "b.example": [{"type": "reject"}, {}]},
            "oci": {"x": [{}]},
        },
    }
    with pytest.raises(InvalidConfig) as caught:
        parse_policy(json.dumps(document).encode(), "p.json")
    assert [each.partition(": ")[2].partition(": ")[0] for each in caught.value.message.split("; ")] == [
        "default[0].type",
        'transports.docker["a.example"]',
        'transports.docker["b.example"][1]',
        "transports.oci.x",
        "transports.oci.x[0]",
    ]


def test_a_file_has_a_bounded_size_and_depth(tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(InvalidConfig, match="has more than 4 MiB"):
        read_policy(policy)
    policy.write_bytes(b'{"default":' * 50_000)
    with pytest.raises(InvalidConfig, match=r"policy\.json .* nested too deeply"):
        read_policy(policy)


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"can't read the signature policy .*none\.json: No such"):
        read_policy(tmp_path / "none.json")
    with pytest.raises(InvalidConfig, match="Is a directory"):
        read_policy(tmp_path)
    with pytest.raises(InvalidConfig, match=r"can't read the signature policy a.*embedded null byte"):
        read_policy(Path("a\0b"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("reject") | st.just("/k"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["default", "transports", "type", "docker", "keyPath", "fulcio", "signedIdentity"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_document_is_read_or_refused(document: object) -> None:
    is_read(json.dumps(document))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        parse_policy(raw)
    except InvalidConfig as error:
        assert error.message.startswith("policy.json")


def test_a_pipe_is_read_but_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that waits for one is not ended by a signal."""
    policy = tmp_path / "policy.json"
    os.mkfifo(policy)
    written = tmp_path / "written"
    written.write_text('{"default": [{"type": "reject"}]}')
    with subprocess.Popen(["sh", "-c", 'cat "$1" >"$2"', "sh", str(written), str(policy)]) as writer:
        assert [*read_policy(policy).all_requirements()] == [Reject("default[0]")]
        assert writer.wait() == 0
    monkeypatch.setattr(bounded_file, "PIPE_SECONDS", 0.05)
    with pytest.raises(InvalidConfig, match="it is a pipe, and has not ended within"):
        read_policy(policy)
