"""A pull-through cache under a signature policy, in front of docker's registry, and its clients."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import StartsRegistries
from tests.e2e.signed_images import push
from tests.scenarios.signed_images import Content
from tools.processes import READY_SECONDS, Registry, blobflow, blobflow_serve, skopeo

pytest.importorskip("cryptography", reason="signatures are verified by the extra [verify]")
from tests.scenarios.signed_registries import hang
from tests.unit.signatures.signing import payload, pem, private_key, simple

pytestmark = pytest.mark.e2e


@pytest.fixture
def upstream(start_registry: StartsRegistries) -> Registry:
    return start_registry("upstream")


@pytest.fixture
def policy(tmp_path: Path, upstream: Registry) -> Path:
    """What one key signed; and that key's images at the upstream, and another image."""
    key = private_key()
    for name in ("signed", "unsigned"):
        content = Content()
        children = {each: content.image(each) for each in ("amd64", "arm64")}
        index = content.index(children, "1")
        for each in (index, *children.values()) if name == "signed" else ():
            signed = payload(each.descriptor.digest, f"{upstream.host}/{name}:1")
            hang(content, each, simple(key, signed))
        push(upstream, content, name)
    (tmp_path / "key.pub").write_bytes(pem(key))
    wanted = {
        "type": "sigstoreSigned",
        "keyPath": str(tmp_path / "key.pub"),
        "signedIdentity": {"type": "matchRepository"},
    }
    docker = {upstream.host: [wanted]}
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"default": [{"type": "reject"}], "transports": {"docker": docker}}))
    return path


@pytest.fixture
def cache(tmp_path: Path, upstream: Registry, policy: Path) -> Iterator[Registry]:
    options = ("--upstream", upstream.host, "--policy", str(policy))
    with blobflow_serve(tmp_path / "cache", *options) as registry:
        yield registry


def test_clients_get_what_is_signed_and_hear_why_they_do_not_get_the_rest(
    cache: Registry, upstream: Registry, home: Path
) -> None:
    for name in ("signed", "unsigned"):
        plain = ("copy", "--all", "--src-tls-verify=false", f"docker://{cache.host}/{name}:1")
        got = skopeo(*plain, f"oci:{home}/{name}", home=home)
        assert (got.code == 0) == (name == "signed"), got.err
    said = f"denied: {upstream.host}/unsigned:1 is not accepted by the signature policy"
    assert said in got.err
    assert "no signature was found" in got.err
    status, _, body = cache.ask("GET", "/v2/_catalog")
    assert (status, json.loads(body)) == (200, {"repositories": ["signed"]})
    _, _, metrics = cache.ask("GET", "/metrics")
    assert f'kind="manifest",outcome="refused",upstream="{upstream.host}"'.encode() in metrics


def test_a_client_verifies_for_itself_through_the_cache(
    cache: Registry, upstream: Registry, policy: Path, home: Path
) -> None:
    """It gets the signature as well, and its policy knows the cache for the upstream."""
    own = json.loads(policy.read_bytes())
    [[signed]] = own["transports"]["docker"].values()
    signed["signedIdentity"] = {"type": "remapIdentity", "prefix": cache.host, "signedPrefix": upstream.host}
    own["transports"]["docker"] = {cache.host: [signed]}
    policy.with_name("client.json").write_text(json.dumps(own))
    words = ("--policy", policy.with_name("client.json"), "--policy-for", "all")
    got = blobflow("copy", f"{cache.host}/signed:1", f"oci:{home}/verified", *words, home=home)
    assert got.code == 0, got.err


def hang_up(cache: Registry, tmp_path: Path, sentence: str) -> None:
    """Send SIGHUP, and wait for what is said of it."""
    os.kill(cache.process.pid, signal.SIGHUP)
    deadline = time.monotonic() + READY_SECONDS
    while sentence not in (tmp_path / "cache" / "errors.log").read_text():
        assert time.monotonic() < deadline, (tmp_path / "cache" / "errors.log").read_text()
        time.sleep(0.01)


def test_a_policy_is_read_again_on_sighup_and_stays_what_it_was_if_it_can_not(
    cache: Registry, policy: Path, tmp_path: Path
) -> None:
    wanted = {name: f"/v2/{name}/manifests/1" for name in ("signed", "unsigned")}
    assert [cache.ask("GET", path)[0] for path in wanted.values()] == [200, 403]
    policy.write_text('{"default": [{"type": "none of these"}]}')
    hang_up(cache, tmp_path, "going on with the signature policy as before")
    assert [cache.ask("GET", path)[0] for path in wanted.values()] == [200, 403]
    policy.write_text('{"default": [{"type": "reject"}]}')
    hang_up(cache, tmp_path, f"{policy} was read again")
    assert [cache.ask("GET", path)[0] for path in wanted.values()] == [403, 403]
