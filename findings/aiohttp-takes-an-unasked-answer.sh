#!/usr/bin/env bash
# aiohttp 3.14.5 (PyPI) takes what a server says on an idle connection for the answer to its next request.
#
# Most expect: what comes on a kept connection while nothing is asked is no answer, and that connection is not used
# again (RFC 9112, section 9.2). Servers do say something there: 408 is meant for it (RFC 9110, section 15.5.9).
# urllib3 2.5.0 and httpcore 1.0.9, under httpx, look whether an idle socket has bytes, and open another one.
#
# What happens: aiohttp looks at what is left over on a connection when it takes it back into its pool, and not
# when it gives it out. What came in between is parsed and kept, and is the answer to the next request, which is
# sent on that connection all the same. From then on each request gets the answer to the one before it.
#
# Why it matters: of two files that are asked for one after the other, the second has the bytes of the first, with
# status 200. Who checks digests sees it as damage; who does not, does not see it. A subclass of ResponseHandler
# whose is_connected is False where should_close is True, set as the connector's _factory, is rid of it.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env >/dev/null 2>&1 || { echo "could not make a virtual environment" >&2; exit 2; }
packages=(aiohttp==3.14.5 urllib3==2.5.0 httpx==0.28.1 httpcore==1.0.9)
env/bin/pip install -q "${packages[@]}" >/dev/null 2>&1 || { echo "could not get ${packages[*]}" >&2; exit 2; }

cat >ask.py <<'PY'
"""Three requests by each client to a server that says 408 on the idle connection after its first answer."""
import asyncio
import contextlib
import socket
import threading
import time

import aiohttp
import httpx
import urllib3

UNASKED = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"


def serve(connection, said):
    with contextlib.suppress(ConnectionError), connection, connection.makefile("rb") as lines:
        while line := lines.readline():
            path = line.split()[1]
            while lines.readline() not in (b"\r\n", b""):
                pass
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))
            if path == b"/1":
                time.sleep(0.2)
                connection.sendall(UNASKED)
                said.set()


def server():
    listening, said = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def accept():
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=serve, args=(connection, said), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}", said


async def by_aiohttp(base, said):
    found = []
    async with aiohttp.ClientSession() as session:
        for path in ("/1", "/2", "/3"):
            async with session.get(base + path) as answer:
                found.append(f"{path} {answer.status} {await answer.text() or '-'}")
            await asyncio.to_thread(said.wait)
            await asyncio.sleep(0.2)
    return found


def by_urllib3(base, said):
    found, pool = [], urllib3.PoolManager(retries=False)
    for path in ("/1", "/2", "/3"):
        answer = pool.request("GET", base + path)
        found.append(f"{path} {answer.status} {answer.data.decode() or '-'}")
        said.wait()
        time.sleep(0.2)
    return found


def by_httpx(base, said):
    found = []
    with httpx.Client(trust_env=False) as client:
        for path in ("/1", "/2", "/3"):
            answer = client.get(base + path)
            found.append(f"{path} {answer.status_code} {answer.text or '-'}")
            said.wait()
            time.sleep(0.2)
    return found


print("aiohttp:", ", ".join(asyncio.run(by_aiohttp(*server()))))
print("urllib3:", ", ".join(by_urllib3(*server())))
print("httpx:", ", ".join(by_httpx(*server())))
PY
env/bin/python ask.py | tee seen
cat >expected <<'SEEN'
aiohttp: /1 200 /1, /2 408 -, /3 200 /2
urllib3: /1 200 /1, /2 200 /2, /3 200 /3
httpx: /1 200 /1, /2 200 /2, /3 200 /3
SEEN
cmp -s seen expected || { echo "it is no longer so"; exit 1; }
