"""What a registry was asked, read from the access log of docker-registry 2.8.2 (the combined log format)."""

from __future__ import annotations

import re
from collections import Counter
from urllib.parse import parse_qs, urlsplit

import msgspec

# 127.0.0.1 - - [21/Nov/2026:12:05:50 +0000] "GET /v2/ HTTP/1.1" 200 2 "" "curl/7.88.1"
ACCESS = re.compile(r'\S+ \S+ \S+ \[[^]]*\] "(\S+) (\S+) HTTP/[\d.]+" (\d{3}) (\d+|-) ')


class Request(msgspec.Struct, frozen=True):
    """A line of an access log. `size`: bytes of the answer's body (for a HEAD, what a GET's would be)."""

    method: str
    path: str
    query: dict[str, str]
    status: int
    size: int

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status}"


class Requests(tuple[Request, ...]):
    """What a registry was asked, in the order of its log, and what that means."""

    def reads_of_blobs(self) -> Counter[str]:
        """How often each blob's content was sent, by digest; ranges count too."""
        sent = (r for r in self if r.method == "GET" and r.status < 300 and _kind(r) == "blobs")
        return Counter(r.path.rpartition("/")[2] for r in sent)

    def bytes_of_blobs_read(self) -> int:
        """How many bytes of blobs were sent, ranges and what broke off by what went out of them."""
        return sum(r.size for r in self if r.method == "GET" and r.status < 300 and _kind(r) == "blobs")

    def uploads(self) -> Counter[str]:
        """How often each blob's content was taken, by digest, in whatever repository."""
        taken = (r for r in self if r.status == 201 and _kind(r) == "blobs/uploads")
        return Counter(r.query["digest"] for r in taken if "digest" in r.query)

    def mounts_201(self) -> list[tuple[str, str]]:
        """Each mount that was done, as (repository, digest)."""
        return [(_repository(r), r.query["mount"]) for r in self if "mount" in r.query and r.status == 201]

    def opened_uploads(self) -> int:
        """How many upload sessions were opened, refused mounts among them."""
        return sum(r.method == "POST" and r.status == 202 for r in self)

    def counts(self) -> Counter[str]:
        """How often each method was used on each thing, like `HEAD manifests`."""
        return Counter(f"{r.method} {_kind(r)}" for r in self)


def _repository(request: Request) -> str:
    return re.split(r"/(?:blobs|manifests|tags|referrers)/", request.path.removeprefix("/v2/"))[0]


def _kind(request: Request) -> str:
    found = re.search(r"/(blobs/uploads|blobs|manifests|tags|referrers)/", request.path)
    return found[1] if found else request.path


def parse_access_log(text: str) -> Requests:
    """Read docker-registry's log. What has `probe` in its query is the tests' own asking, and left out."""
    requests = []
    for line in text.splitlines():
        found = ACCESS.match(line)
        if found is None:
            raise ValueError(f"not a line of an access log: {line!r}")
        method, target, status, size = found.groups()
        url = urlsplit(target.replace('\\"', '"'))
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if "probe" not in query:
            requests.append(Request(method, url.path, query, int(status), int(size.replace("-", "0"))))
    return Requests(requests)
