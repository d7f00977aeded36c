"""What of a run's settings travels to workers: how hosts are spoken to, and nothing secret."""

from __future__ import annotations

from pathlib import Path

import msgspec

from blobflow.cluster.terms import FORMAT, RunTerms, Versions, terms_of, under_terms
from blobflow.settings import Settings
from blobflow.transports.registry import ClientCertificate, Credentials, HostSettings, TlsSettings
from blobflow.transports.registry.http.proxies import single_proxy

MARKED = "hunter2"
SECRETIVE = HostSettings(
    http=True,
    credentials=Credentials("me", MARKED),
    proxies=single_proxy(f"http://me:{MARKED}@proxy:3128", "proxy"),
    trust=TlsSettings(pairs=(ClientCertificate(Path(f"/{MARKED}.pem"), Path(f"/{MARKED}.key")),)),
    mirrors=("mirror.example.com",),
)


def test_no_secret_and_no_file_travels() -> None:
    settings = Settings(
        docker_config=Path(f"/home/{MARKED}"),
        auth_files=(Path(f"/{MARKED}.json"),),
        ca=(Path(f"/{MARKED}.pem"),),
        hosts={"here": SECRETIVE},
    )
    packed = msgspec.msgpack.encode(terms_of("run", settings, frozenset({"here"}), frozenset()))
    assert MARKED.encode() not in packed
    assert b"mirror.example.com" in packed
    assert msgspec.msgpack.decode(packed, type=RunTerms).sources == {"here"}


def test_files_and_archives_are_no_hosts_of_a_run() -> None:
    terms = terms_of("run", Settings(), frozenset({"oci:/images", "here"}), frozenset({"oci-archive:/a.tar"}))
    assert terms.sources == {"here"}
    assert not terms.targets


def test_a_worker_keeps_its_own_logins_and_takes_how_hosts_are_spoken_to() -> None:
    own = Settings(hosts={"here": HostSettings(credentials=Credentials("worker", "own"), connections=3)})
    theirs = Settings(hosts={"here": SECRETIVE}, retry_times=2, cache="off", plain_http=frozenset({"there"}))
    settings = under_terms(own, terms_of("run", theirs, frozenset(), frozenset()))
    here = settings.hosts["here"]
    assert here.credentials == Credentials("worker", "own")
    assert (here.connections, here.http, here.mirrors) == (3, True, ("mirror.example.com",))
    assert (settings.retry_times, settings.cache, settings.plain_http) == (2, "off", frozenset({"there"}))


def test_certificates_are_verified_unless_one_of_the_two_was_told_not_to() -> None:
    lax, strict = Settings(tls_verify=False), Settings()
    for own, theirs, verified in ((lax, strict, False), (strict, lax, False), (strict, strict, True)):
        assert under_terms(own, terms_of("run", theirs, frozenset(), frozenset())).tls_verify is verified


def test_versions_differ_by_one_sentence() -> None:
    here = Versions("1.0", "3.11")
    assert here.difference(here) == ""
    assert here.difference(Versions("1.1", "3.11")) == "has blobflow 1.1, and this is 1.0"
    assert here.difference(Versions("1.0", "3.12")) == "runs Python 3.12, and this is 3.11"
    other = Versions("1.0", "3.11", FORMAT + 1)
    assert here.difference(other) == f"speaks format {FORMAT + 1} of carriages, and this is {FORMAT}"
