"""Sigstore bundles as referrers, from a registry to a target under a policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.oci import Manifest
from tests.scenarios.signed_images import Content
from tests.scenarios.signed_registries import ServedRegistries, served_registries

pytest.importorskip("cryptography", reason="signatures are verified by the extra [verify]")

from tests.unit.signatures.signing import (
    BUNDLE,
    PrivateKey,
    attestation_bundle,
    message_bundle,
    pem,
    private_key,
    statement,
)

ACCEPTED = ("attestation", "message", "message-ed25519")
# What is wrong with a bundle, and what is said of it.
REFUSED = {
    "wrong-key": "it is not by",
    "of-another-image": "it is for sha256:",
    "provenance": "it attests something about the image (https://slsa.dev/provenance/v1)",
    "cut-off": "it is no bundle that can be read",
}


def made(name: str, image: Manifest) -> bytes:
    """The bundle that hangs on the image of this name."""
    digest, key = image.descriptor.digest, private_key()
    match name:
        case "message":
            raw = message_bundle(key, image.raw)
        case "message-ed25519":
            raw = message_bundle(private_key("ed25519"), image.raw)
        case "of-another-image":
            raw = message_bundle(key, b"another")
        case "wrong-key":
            raw = attestation_bundle(private_key("p256", 1), statement(digest))
        case "provenance":
            provenance = statement(digest, predicate_type="https://slsa.dev/provenance/v1")
            raw = attestation_bundle(key, provenance)
        case _:
            raw = attestation_bundle(key, statement(digest))
    content = json.dumps(raw).encode()
    return content[:-9] if name == "cut-off" else content


class Bundled(NamedTuple):
    served: ServedRegistries
    policy: Path

    def copy(self, name: str, *more: str) -> Result:
        self.served.forget()
        source, target = f"{self.served.source.host}/{name}:1", f"{self.served.target.host}/m/{name}:1"
        return CliRunner().invoke(cli, ["copy", source, target, "--policy", str(self.policy), *more])


@pytest.fixture(scope="module")
def registries_of_bundles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundled]:
    folder = tmp_path_factory.mktemp("bundles")
    keys: list[PrivateKey] = [private_key(), private_key("ed25519")]
    for number, key in enumerate(keys):
        (folder / f"{number}.pub").write_bytes(pem(key))
    requirement: dict[str, Any] = {
        "type": "sigstoreSigned",
        "keyPaths": [str(folder / f"{number}.pub") for number in range(len(keys))],
        "signedIdentity": {"type": "matchRepository"},
    }
    (folder / "policy.json").write_text(json.dumps({"default": [requirement]}))
    with served_registries(folder) as served:
        for name in (*ACCEPTED, *REFUSED):
            content = Content()
            image = content.image(name)
            content.tags["1"] = image.descriptor.digest
            content.referrer(image, BUNDLE, content.blob(made(name, image), BUNDLE))
            content.listing()
            served.load(name, content)
        yield Bundled(served, folder / "policy.json")


@pytest.fixture
def bundled(registries_of_bundles: Bundled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundled:
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "BLOBFLOW_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return registries_of_bundles


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_image_with_a_bundle_is_copied_and_the_report_says_by_whom(
    bundled: Bundled, name: str, tmp_path: Path
) -> None:
    done = bundled.copy(name, "--report", str(tmp_path / "report.json"))
    assert done.exit_code == 0, done.output
    [image] = json.loads((tmp_path / "report.json").read_bytes())["images"]
    [[met]] = [each["acceptances"] for each in image["signatures"]]
    key = "1.pub" if name == "message-ed25519" else "0.pub"
    assert met["by"].endswith(f"{key}, for the digest under any name")
    assert bundled.served.named(f"m/{name}", "1") == image["source_digest"]


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_with_a_bundle_that_does_not_count_is_refused_and_nothing_is_put(
    bundled: Bundled, name: str
) -> None:
    done = bundled.copy(name)
    assert done.exit_code == 9, done.output
    assert REFUSED[name] in done.stderr
    assert bundled.served.writes == 0
