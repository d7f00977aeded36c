"""No login gets where Dask shows, logs, keeps or sends things.

A worker and the run have logins of their own at the target, with passwords that are looked for: in what the
scheduler and workers print, in every page of the dashboard, in a dump of the cluster in the middle of a run,
and in all bytes that the run and its worker exchange with the scheduler. Something fails on the way, since
what fails is what Dask tells the most about.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bcrypt
import pytest
from distributed import Client

from tests.e2e.cluster.conftest import PREFIX, SOME, Field, largest_of_one, poison, told
from tests.e2e.servers.locked_registry import locked_registry
from tests.scenarios.child_process import child
from tools.cluster import Part

PASSWORDS = {"worker": "marked-Hyacinth-7741", "coordinator": "marked-Larkspur-9052"}


def spellings(user: str) -> list[bytes]:
    """A password as it may be met: as it is, and as HTTP sends and docker keeps it."""
    password = PASSWORDS[user]
    login = f"{user}:{password}".encode()
    return [password.encode(), base64.b64encode(login).rstrip(b"="), quote(password).encode()]


SECRETS = [spelling for user in PASSWORDS for spelling in spellings(user)]


def secrets_in(content: bytes) -> list[bytes]:
    return [secret for secret in SECRETS if secret in content]


def log_in(folder: Path, user: str, host: str) -> None:
    """Write a docker configuration with the login."""
    folder.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(f"{user}:{PASSWORDS[user]}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


async def test_no_login_is_in_logs_pages_dumps_or_on_the_way_to_the_scheduler(
    field: Field, tmp_path: Path, home: Path
) -> None:
    layout = field.filled.fill()
    digest, _ = largest_of_one(layout)
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text("".join(f"{user}:{hashed(password)}\n" for user, password in PASSWORDS.items()))
    auth = {"htpasswd": {"realm": "locked", "path": str(htpasswd)}}
    way = field.filled.ways.to(field.cluster.address)
    way.record()
    with locked_registry(tmp_path / "target", auth=auth) as target:
        log_in(field.cluster.home_of("marked") / "docker", "worker", target.host)
        log_in(home / ".docker", "coordinator", target.host)
        gate = field.filled.way()
        proxies = {field.source.host: gate.host}
        worker = field.cluster.start_worker("marked", proxies=proxies, scheduler=f"dask://{way.host}")
        gate.hold_after(SOME)
        poison(field.source.root, digest)
        places = [f"{target.host}/{PREFIX}"]
        async with child(
            *("--engine", f"dask://{way.host}"),
            home=home,
            images=[*layout.images],
            source=field.source.host,
            targets=places,
        ) as run:
            await gate.until_held()
            dump = await asyncio.to_thread(lambda: asyncio.run(dumped(field, tmp_path / "dump")))
            seen = [*pages(field, worker), dump]
            gate.release()
            assert await run.ended() == 3, told(run)
            seen += pages(field, worker)
        assert any(image["status"] == "done" for image in run.report()["images"])
        field.cluster.stop(worker)
        field.cluster.wait_without(worker)
    seen += [worker.said().encode(), field.scheduler.said().encode(), bytes(way.recorded), told(run).encode()]
    assert digest.encode() in b"".join(seen), "nothing of the run was looked at"
    assert [secrets_in(each) for each in seen if secrets_in(each)] == []


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def pages(field: Field, worker: Part) -> list[bytes]:
    """Every page that the scheduler says it has, with the worker and the tasks for what they ask for."""
    address = quote(field.cluster.address_of(worker), safe="")
    paths = json.loads(field.cluster.page("/sitemap.json"))["paths"]
    found = []
    for path in paths:
        if path.startswith(("/statics", "/eventstream", "/proxy")):
            continue
        found.append(field.cluster.page(path.replace("(.*)", address)).encode())
    assert len(found) > 8 and any(worker.name.encode() in page for page in found)
    return found


async def dumped(field: Field, path: Path) -> bytes:
    """What a cluster tells of itself when everything is asked for."""
    connect: Any = Client
    async with connect(f"tcp://{field.cluster.address}", asynchronous=True, set_as_default=False) as client:
        await client.dump_cluster_state(str(path), format="msgpack")
    return gzip.decompress(path.with_suffix(".msgpack.gz").read_bytes())


@pytest.mark.parametrize("user", PASSWORDS)
def test_the_search_finds_a_password_however_it_is_written(user: str) -> None:
    login = base64.b64encode(f"{user}:{PASSWORDS[user]}".encode())
    assert secrets_in(b"Authorization: Basic " + login) and secrets_in(PASSWORDS[user].encode())
    assert not secrets_in(b"marked")
