"""Registries behind real reverse proxies and caches: everything arrives, for a bounded number of bytes.

The proxies are Debian's nginx, haproxy, apache2, squid, varnish and caddy (`tests/e2e/servers/proxies.py`),
the registry is docker-registry. The short forms run always; the long ones by name: `pytest -m 'soak and
proxies'`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartsRegistries
from tests.e2e.servers.proxies import (
    ALL,
    APACHE,
    CADDY,
    HAPROXY,
    NGINX,
    SQUID,
    VARNISH,
    Starts,
    apache,
    nginx,
)
from tools.certificates import Pair, self_signed
from tools.imageset import Layout, synthetic
from tools.ports import reserve_port
from tools.processes import Registry, blobflow, faulty_registry
from tools.registry.zeros import ZeroRegistry, zero_registry

pytestmark = pytest.mark.proxies
SOAK = pytest.mark.soak
MIB = 1024 * 1024


@pytest.fixture
def source() -> Iterator[ZeroRegistry]:
    with zero_registry() as server:
        yield server


@pytest.fixture
def target(start_registry: StartsRegistries) -> Registry:
    return start_registry("target")


def totals_of(report: Path) -> dict[str, Any]:
    totals: dict[str, Any] = json.loads(report.read_text())["totals"]
    return totals


def copied(source: ZeroRegistry, target: str, home: Path, *words: str | Path) -> tuple[dict[str, Any], str]:
    """Copy the giant; what that took, and what was told of it on the way."""
    report = home.parent / f"{len(list(home.parent.iterdir()))}.json"
    done = blobflow("copy", f"{source.host}/giant:1", target, "--report", report, *words, home=home)
    assert done.code == 0, done.err
    return totals_of(report), done.err


def synced(layout: Layout, target: str, home: Path) -> dict[str, Any]:
    """Bring a set to `target`/m; what that took."""
    report = home.parent / "synced.json"
    names = layout.path / "images.txt"
    words = ["--from", f"oci:{layout.path}", "--to", f"{target}/m", "--images", str(names)]
    done = blobflow("sync", *words, "--report", report, home=home)
    assert done.code == 0, done.err
    return totals_of(report)


# What is normal

WITHOUT_BODY_LIMIT = "client_max_body_size 0;"
# nginx and haproxy close kept connections sooner than anybody has one to use; varnish looks at every tag
# anew.
NORMAL = [
    pytest.param(NGINX, f"{WITHOUT_BODY_LIMIT} proxy_set_header Host $http_host;", id="nginx"),
    pytest.param(NGINX, f"{WITHOUT_BODY_LIMIT} keepalive_timeout 0;", id="nginx-without-keep-alive"),
    pytest.param(
        NGINX, f"{WITHOUT_BODY_LIMIT} proxy_request_buffering off;", id="nginx-unbuffered", marks=SOAK
    ),
    pytest.param(HAPROXY, "", id="haproxy"),
    pytest.param(HAPROXY, "timeout http-keep-alive 1ms", id="haproxy-closing-at-once"),
    pytest.param(APACHE, "", id="apache"),
    pytest.param(SQUID, "", id="squid"),
    pytest.param(VARNISH, "sub vcl_recv { return (pass); }", id="varnish-keeping-nothing"),
    pytest.param(CADDY, "", id="caddy"),
]


@pytest.mark.parametrize(("proxy", "words"), NORMAL)
def test_a_set_is_pushed_pulled_and_found_unchanged(
    proxy: Starts, words: str, target: Registry, tmp_path: Path, home: Path
) -> None:
    layout = synthetic(tmp_path / "set", seed=1, images=2)
    with proxy(tmp_path / "proxy", target.host, words) as front:
        assert synced(layout, front.host, home)["bytes_written"] > 0
        for image in layout.images.values():
            assert target.digest_of(f"m/{image.repository}", image.tag) == image.digest
        assert synced(layout, front.host, home)["bytes_written"] == 0
        name, image = next(iter(layout.images.items()))
        back = blobflow("copy", f"{front.host}/m/{name}", f"oci:{tmp_path / 'back'}:1", home=tmp_path / "new")
        assert back.code == 0, back.err
        [pulled] = json.loads((tmp_path / "back/index.json").read_text())["manifests"]
        assert pulled["digest"] == image.digest


def test_every_proxy_is_among_them() -> None:
    assert {str(each.values[0]) for each in NORMAL} == set(map(str, ALL))


# Limits on the bodies of requests

CADDY_LIMIT = "request_body {\n max_size %s\n }"
LIMITS = [
    pytest.param(NGINX, "", 1 << 20, 1 << 20, id="nginx-default"),
    pytest.param(NGINX, "client_max_body_size 10m;", 10 << 20, 8 << 20, id="nginx-10m", marks=SOAK),
    pytest.param(
        CADDY, "request_body {\n max_size 1MB\n }", 1_000_000, 512 << 10, id="caddy-1-MB", marks=SOAK
    ),
    pytest.param(CADDY, CADDY_LIMIT % "1MB", 1_000_000, 512 << 10, id="caddy-1-MB", marks=SOAK),
    pytest.param(CADDY, CADDY_LIMIT % "10MB", 10_000_000, 2 << 20, id="caddy-10-MB"),
]


@pytest.mark.parametrize(("proxy", "words", "limit", "chunk"), LIMITS)
def test_blobs_beyond_a_limit_on_bodies_arrive_and_the_next_run_knows(
    proxy: Starts,
    words: str,
    limit: int,
    chunk: int,
    source: ZeroRegistry,
    target: Registry,
    tmp_path: Path,
    home: Path,
) -> None:
    """`chunk`: the smallest that may be found to fit; half of it would be too careful."""
    size = 24 * MIB
    layer = source.hold_image(size)
    with proxy(tmp_path / "proxy", target.host, words) as front:
        totals, told = copied(source, f"{front.host}/one:1", home)
        assert target.ask("HEAD", f"/v2/one/blobs/{layer}")[0] == 200
        assert totals["bytes_written"] <= 3 * size
        assert f"`blobflow probe {front.host}/one-probe`" in told
        target.forget()
        size = 23 * MIB  # another blob: the one that is there would be mounted
        source.hold_image(size)
        again, told = copied(source, f"{front.host}/two:1", home)
        assert again["bytes_resent"] == 0 and "probe" not in told
        chunks = target.requests().counts()["PATCH blobs/uploads"]
        assert size / limit <= chunks <= size / chunk


@pytest.mark.parametrize(("proxy", "words", "limit", "chunk"), LIMITS)
def test_probe_survives_a_limit_and_what_it_prints_fits(
    proxy: Starts,
    words: str,
    limit: int,
    chunk: int,
    source: ZeroRegistry,
    target: Registry,
    tmp_path: Path,
    home: Path,
) -> None:
    size = 12 * MIB
    source.hold_image(size)
    with proxy(tmp_path / "proxy", target.host, words) as front:
        probed = blobflow("probe", f"{front.host}/scratch", "--up-to", "16MiB", home=home)
        assert probed.code == 0, probed.err
        config = tmp_path / "config.toml"
        config.write_text(probed.out)
        totals, _ = copied(source, f"{front.host}/one:1", tmp_path / "new", "--config", config)
        assert totals["bytes_resent"] == 0
    assert '"stream"' not in probed.out
    assert f"chunk_bytes = {max(2**power for power in range(32) if 2**power <= limit)}" in probed.out


def test_a_manifest_beyond_the_limit_is_told_to_need_one_request(
    target: Registry, small_set: Layout, tmp_path: Path, home: Path
) -> None:
    put = 'set $asked "$request_method $uri"; if ($asked ~ "^PUT .*/manifests/") { return 413; }'
    words = f"{WITHOUT_BODY_LIMIT} {put}"
    name = next(iter(small_set.images))
    with nginx(tmp_path / "proxy", target.host, words) as front:
        done = blobflow("copy", f"oci:{small_set.path}:{name}", f"{front.host}/{name}", home=home)
    assert done.code == 5
    assert "a manifest goes in one request" in done.err and "client_max_body_size" in done.err


# Breaks at random


@pytest.mark.parametrize("runs", [1, pytest.param(8, marks=SOAK)])
def test_squid_as_it_is_takes_70_mb_once(
    runs: int, source: ZeroRegistry, target: Registry, tmp_path: Path, home: Path
) -> None:
    size = 70_000_000
    source.hold_image(size)
    with SQUID(tmp_path / "proxy", target.host) as front:
        for number in range(runs):
            totals, _ = copied(source, f"{front.host}/run{number}:1", tmp_path / f"home{number}")
            print(f"{totals['bytes_written'] / size:.2f} of its bytes, {totals['seconds']} s")
            assert totals["bytes_written"] <= 1.5 * size


@SOAK
def test_squid_that_hides_costs_three_times_the_blob_at_most(
    source: ZeroRegistry, target: Registry, tmp_path: Path
) -> None:
    size = 70_000_000
    source.hold_image(size)
    with SQUID(tmp_path / "proxy", target.host, "via off") as front:
        for number in range(10):
            totals, _ = copied(source, f"{front.host}/run{number}:1", tmp_path / f"home{number}")
            print(f"{totals['bytes_written'] / size:.2f} of its bytes")
            assert totals["bytes_written"] <= 3.1 * size


# A registry that needs longer than the proxy waits


def test_a_proxy_that_gives_up_on_a_slow_registry_gets_smaller_requests(
    source: ZeroRegistry, tmp_path: Path, home: Path
) -> None:
    """nginx takes in the whole upload, and answers 504 where the registry needs a second more for it."""
    size = 12 * MIB
    layer = source.hold_image(size)
    slow = "PATCH . times=0 slow bytes_per_second=2000000"
    words = f"{WITHOUT_BODY_LIMIT} proxy_read_timeout 1s; proxy_send_timeout 1s;"
    with (
        faulty_registry(tmp_path / "target", tmp_path / "journal", slow) as target,
        NGINX(tmp_path / "proxy", target.host, words) as front,
    ):
        totals, _ = copied(source, f"{front.host}/one:1", home)
        assert target.ask("HEAD", f"/v2/one/blobs/{layer}")[0] == 200
        assert totals["bytes_written"] <= 3 * size


# Where a proxy lets the registry send us


@pytest.fixture
def certificate(tmp_path: Path) -> Pair:
    return self_signed(tmp_path / "tls")


SENT = {
    "the name that the proxy knows": "",
    "no port": "proxy_set_header Host localhost;",
    "another port": "proxy_set_header Host 127.0.0.1:1;",
    "a name inside": "proxy_set_header Host registry.internal:5000; proxy_redirect off;",
    "the backend itself": "proxy_redirect off;",
    "https, from http": "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https;",
}


@pytest.mark.parametrize("words", SENT.values(), ids=SENT)
def test_an_upload_goes_on_where_it_was_opened(
    words: str, source: ZeroRegistry, target: Registry, tmp_path: Path, home: Path
) -> None:
    layer = source.hold_image(3 * MIB)
    with NGINX(tmp_path / "proxy", target.host, WITHOUT_BODY_LIMIT + words) as front:
        copied(source, f"{front.host}/one:1", home)
    assert target.ask("HEAD", f"/v2/one/blobs/{layer}")[0] == 200


TLS = {
    "http, from https": "proxy_set_header Host $http_host;",
    "no port": "proxy_set_header Host $host; proxy_set_header X-Forwarded-Proto $scheme;",
    "http without a port": "proxy_set_header Host $host;",
    "a name inside": "proxy_set_header Host registry.internal:5000; proxy_redirect off;",
}


@pytest.mark.parametrize("words", TLS.values(), ids=TLS)
def test_an_upload_over_tls_goes_on_where_it_was_opened(
    words: str, certificate: Pair, source: ZeroRegistry, target: Registry, tmp_path: Path, home: Path
) -> None:
    layer = source.hold_image(3 * MIB)
    host = f"127.0.0.1:{reserve_port()}"
    tls = f"ssl_certificate {certificate.cert}; ssl_certificate_key {certificate.key};"
    there = f"proxy_pass http://@ORIGIN@; {WITHOUT_BODY_LIMIT} {words}"
    servers = f"server {{ listen {host} ssl; {tls} location / {{ {there} }} }}"
    with nginx(tmp_path / "proxy", target.host, servers=servers):
        copied(source, f"{host}/one:1", home, "--ca", certificate.cert)
    assert target.ask("HEAD", f"/v2/one/blobs/{layer}")[0] == 200


def test_an_upload_through_apache_over_tls_goes_on_where_it_was_opened(
    certificate: Pair, source: ZeroRegistry, target: Registry, tmp_path: Path, home: Path
) -> None:
    layer = source.hold_image(3 * MIB)
    host = f"127.0.0.1:{reserve_port()}"
    servers = f"""\
Listen {host}
<VirtualHost {host}>
SSLEngine on
SSLCertificateFile {certificate.cert}
SSLCertificateKeyFile {certificate.key}
ProxyPreserveHost On
ProxyPass / http://{target.host}/
ProxyPassReverse / http://{target.host}/
</VirtualHost>
"""
    with apache(tmp_path / "proxy", target.host, servers=servers):
        copied(source, f"{host}/one:1", home, "--ca", certificate.cert)
    assert target.ask("HEAD", f"/v2/one/blobs/{layer}")[0] == 200


@pytest.mark.parametrize("host", ["$http_host", "$proxy_host", "registry.internal"])
def test_an_upload_below_a_path_of_the_proxy_goes_on_below_it(
    host: str, source: ZeroRegistry, target: Registry, tmp_path: Path, home: Path
) -> None:
    """The proxy maps `hub/NAME` to the registry's NAME, and nothing else of it can be reached."""
    layer = source.hold_image(3 * MIB)
    front = f"127.0.0.1:{reserve_port()}"
    words = f"{WITHOUT_BODY_LIMIT} proxy_set_header Host {host}; proxy_redirect off;"
    servers = f"""\
server {{ listen {front};
  location = /v2/ {{ proxy_pass http://@ORIGIN@; }}
  location /v2/hub/ {{ proxy_pass http://@ORIGIN@/v2/; {words} }}
}}
"""
    with nginx(tmp_path / "proxy", target.host, servers=servers):
        copied(source, f"{front}/hub/one:1", home)
    assert target.ask("HEAD", f"/v2/one/blobs/{layer}")[0] == 200


def test_an_upload_that_can_t_be_found_again_is_told_with_the_header_that_is_missing(
    source: ZeroRegistry, target: Registry, tmp_path: Path, home: Path
) -> None:
    source.hold_image(3 * MIB)
    words = WITHOUT_BODY_LIMIT + "proxy_set_header Host registry.internal:5000; proxy_redirect off;"
    lost = f'if ($uri ~ "/blobs/uploads/.") {{ return 404; }} {words}'
    with NGINX(tmp_path / "proxy", target.host, lost) as front:
        done = blobflow("copy", f"{source.host}/giant:1", f"{front.host}/one:1", home=home)
    assert done.code != 0
    assert "http://registry.internal:5000/v2/one/blobs/uploads/" in done.err
    assert "$http_host" in done.err


# Fewer requests


def test_a_proxy_that_answers_503_to_too_many_requests_is_given_time(
    target: Registry, tmp_path: Path, home: Path
) -> None:
    layout = synthetic(tmp_path / "set", seed=1, images=3)
    words = f"{WITHOUT_BODY_LIMIT} limit_req zone=all burst=20 nodelay;"
    with NGINX(tmp_path / "proxy", target.host, words) as front:
        synced(layout, front.host, home)
    for image in layout.images.values():
        assert target.digest_of(f"m/{image.repository}", image.tag) == image.digest
