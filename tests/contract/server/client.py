"""What the tests of the embedded registry ask and push, with a raw client."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp import ClientSession

from blobflow.oci import digest_of, media

BLOB = bytes(range(256)) * 1000  # more than goes out in one write with its headers
DIGEST = digest_of(BLOB)
SMALL = b"a config"
ABSENT = digest_of(b"nobody has this")
REPO = "/v2/team/app"


async def push(client: ClientSession, content: bytes, repo: str = REPO, algorithm: str = "sha256") -> str:
    digest = digest_of(content, algorithm)
    async with client.post(
        f"{repo}/blobs/uploads/", params={"digest": digest}, data=io.BytesIO(content)
    ) as answer:
        assert answer.status == 201
    return digest


async def start(client: ClientSession, repo: str = REPO) -> str:
    async with client.post(f"{repo}/blobs/uploads/") as answer:
        assert answer.status == 202
        return answer.headers["Location"]


async def status_of(client: ClientSession, path: str, method: str = "HEAD") -> int:
    async with client.request(method, path) as answer:
        return answer.status


async def refusal(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    """Status and first code, after a check that the body is the spec's error body ("Error Codes")."""
    assert answer.content_type == "application/json"
    errors = (await answer.json())["errors"]
    assert errors
    assert all(set(error) <= {"code", "message", "detail"} and error["message"] for error in errors)
    return answer.status, errors[0]["code"]


async def raw_refusal(client: ClientSession, method: str, target: str) -> tuple[int, str]:
    """As `refusal`, of a request whose target goes out as it is: no client library mends it first."""
    url = client._build_url("/")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), str(json.loads(body)["errors"][0]["code"])


def descriptor(content: bytes, media_type: str = "application/octet-stream", **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


def image(*layers: dict[str, Any], config: bytes = SMALL, **more: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": descriptor(config, media.OCI_CONFIG),
        "layers": list(layers),
        **more,
    }
    return json.dumps(document, indent=3).encode()  # as nobody would write it again


def index(*manifests: bytes, others: Sequence[dict[str, Any]] = ()) -> bytes:
    """Of images, and of what else is listed."""
    listed = [*(descriptor(raw, media.OCI_MANIFEST) for raw in manifests), *others]
    return json.dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": listed}).encode()


async def put(
    client: ClientSession, raw: bytes, reference: str, kind: str = media.OCI_MANIFEST, repo: str = REPO
) -> aiohttp.ClientResponse:
    answer = await client.put(f"{repo}/manifests/{reference}", data=raw, headers={"Content-Type": kind})
    await answer.read()
    return answer


async def pushed_image(client: ClientSession, tag: str = "1.0", repo: str = REPO) -> bytes:
    await push(client, SMALL, repo)
    await push(client, BLOB, repo)
    raw = image(descriptor(BLOB))
    assert (await put(client, raw, tag, repo=repo)).status == 201
    return raw
