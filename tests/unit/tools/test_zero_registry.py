"""The registry of zeros: what it generates is what its digest says, and what is pushed is verified."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.deadlines import HANGS_AFTER
from tools.registry.zeros import ZeroRegistry, digest_of, zero_registry

SIZE = 10_000_000


@pytest.fixture
def registry() -> Iterator[ZeroRegistry]:
    with zero_registry() as running:
        yield running


@pytest.fixture
def client(registry: ZeroRegistry) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection(registry.host, timeout=HANGS_AFTER)) as connection:
        yield connection


def answer(
    client: http.client.HTTPConnection, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, str | None, bytes]:
    """One exchange: status, Location, body."""
    client.request(method, path, body, headers)  # type: ignore[arg-type]
    response = client.getresponse()
    return response.status, response.getheader("Location"), response.read()


def test_layers_are_what_their_digests_say(
    registry: ZeroRegistry, client: http.client.HTTPConnection
) -> None:
    first = registry.hold_image(SIZE, SIZE + 1)
    _, _, raw = answer(client, "GET", "/v2/giant/manifests/1")
    layers = json.loads(raw)["layers"]
    assert [layer["size"] for layer in layers] == [SIZE, SIZE + 1]
    assert layers[0]["digest"] == first
    for layer in layers:
        _, _, content = answer(client, "GET", f"/v2/giant/blobs/{layer['digest']}")
        assert digest_of(content) == layer["digest"]


@pytest.mark.parametrize(
    ("asked", "comes"),
    [
        (f"{SIZE - 7}-", 7),
        (f"{SIZE - 7}-{SIZE + 5}", 7),
        ("0-0", 1),
        ("5-1004", 1000),
        ("5000000-9999998", 4_999_999),
    ],
)
def test_a_range_is_what_it_is_asked_to_be(
    registry: ZeroRegistry, client: http.client.HTTPConnection, asked: str, comes: int
) -> None:
    layer = registry.hold_image(SIZE)
    status, _, content = answer(client, "GET", f"/v2/giant/blobs/{layer}", Range=f"bytes={asked}")
    assert (status, content) == (206, bytes(comes))


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_goes_on_over_requests_and_connections(
    registry: ZeroRegistry, client: http.client.HTTPConnection, chunked: bool
) -> None:
    content = hashlib.sha256(b"seed").digest() * 50_000
    _, where, _ = answer(client, "POST", "/v2/app/blobs/uploads/")
    body = iter([content[:1000], content[1000:]]) if chunked else content
    status, where, _ = answer(client, "PATCH", str(where), body)
    assert status == 202
    client.close()
    assert answer(client, "PUT", f"{where}?digest={digest_of(content)}", b"")[0] == 201
    assert registry.sizes[digest_of(content)] == len(content)
    assert answer(client, "HEAD", f"/v2/app/blobs/{digest_of(content)}")[0] == 200


def test_what_is_not_its_digest_is_refused(
    registry: ZeroRegistry, client: http.client.HTTPConnection
) -> None:
    _, where, _ = answer(client, "POST", "/v2/app/blobs/uploads/")
    assert answer(client, "PUT", f"{where}?digest={digest_of(b'other')}", b"content")[0] == 400
    assert answer(client, "HEAD", f"/v2/app/blobs/{digest_of(b'other')}")[0] == 404
