"""The floor for a mirror that is current: Python, its imports, one HEAD a tag at each end, and nothing else.

    python -m bench.heads LIST HOST[/prefix]…

LIST has one `repository:tag` a line. Each tag is asked for at each place, 16 requests at a time a place.
"""

import asyncio
import sys

import aiohttp
import msgspec
import uvloop

AT_ONCE = 16
ACCEPT = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"


async def ask(client: aiohttp.ClientSession, url: str) -> None:
    async with client.head(url, headers={"Accept": ACCEPT}) as answer:
        answer.raise_for_status()


async def main(names: list[str], places: list[str]) -> None:
    connector = aiohttp.TCPConnector(limit_per_host=AT_ONCE)
    async with aiohttp.ClientSession(connector=connector) as client, asyncio.TaskGroup() as asking:
        for place in places:
            host, _, prefix = place.partition("/")
            for name in names:
                repository, _, tag = name.rpartition(":")
                path = f"{prefix}/{repository}" if prefix else repository
                asking.create_task(ask(client, f"http://{host}/v2/{path}/manifests/{tag}"))


if __name__ == "__main__":
    msgspec.json.decode(b"[]")  # imported because blobflow has to
    with open(sys.argv[1]) as listed:  # noqa: PTH123  pathlib is one more import
        uvloop.run(main(listed.read().split(), sys.argv[2:]))
