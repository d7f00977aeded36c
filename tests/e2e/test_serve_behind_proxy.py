"""`blobflow serve` behind nginx that ends TLS: at the root and below a path prefix, with headers that tell it
how clients come and without. A raw client follows what it is given."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from blobflow.oci import digest_of, media
from tests.deadlines import HANGS_AFTER
from tests.e2e.servers.locked_registry import KeyFiles, nginx_program, nginx_with
from tools.certificates import self_signed
from tools.processes import blobflow_serve

PUBLIC = "https://registry.example"
BLOB = b"some bytes of a blob" * 5000
# What stands before each path, and what the registry behind it is told at its start.
WAYS = {
    "": (),
    "/told": ("--trust-proxy", "127.0.0.1"),
    "/rfc7239": ("--trust-proxy",),
    "/fixed": ("--public-url", f"{PUBLIC}/fixed"),
    "/kept": ("--public-url", f"{PUBLIC}/kept/"),
}
LOCATIONS = """\
location / {{ proxy_pass http://{root}; }}
location /told/ {{
    proxy_pass http://{told}/;
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Prefix /told;
    proxy_redirect off;
}}
location /rfc7239/ {{
    proxy_pass http://{rfc7239}/;
    proxy_set_header Forwarded 'for=$remote_addr;host="$http_host";proto=$scheme';
    proxy_set_header X-Forwarded-Prefix /rfc7239;
    proxy_redirect off;
}}
location /fixed/ {{ proxy_pass http://{fixed}/; proxy_redirect off; }}
location /kept/ {{ proxy_pass http://{kept}; proxy_redirect off; }}
"""


class Answer:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()


class Front:
    """nginx, asked with whole URLs; those of `PUBLIC` mean it, too."""

    def __init__(self, host: str, ca: Path) -> None:
        self.url = f"https://{host}"
        context = ssl.create_default_context(cafile=str(ca))
        self._connection = http.client.HTTPSConnection(host, timeout=HANGS_AFTER, context=context)

    def ask(
        self, method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        parts = urlsplit(url)
        assert url.startswith((f"{self.url}/", f"{PUBLIC}/"))
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        self._connection.request(method, target, body, headers or {})
        return Answer(self._connection.getresponse())

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    if nginx_program() is None:
        pytest.skip("needs nginx (Debian: apt-get install nginx-light)")
    folder = tmp_path_factory.mktemp("proxied")
    tls = self_signed(folder / "tls")
    with ExitStack() as stack:
        behind = {
            way.strip("/") or "root": stack.enter_context(
                blobflow_serve(folder / (way.strip("/") or "root"), *arguments)
            ).host
            for way, arguments in WAYS.items()
        }
        host = stack.enter_context(nginx_with(folder / "nginx", KeyFiles(*tls), LOCATIONS.format(**behind)))
        made = Front(host, tls.cert)
        stack.callback(made.close)
        yield made


@pytest.mark.parametrize("way", WAYS)
def test_what_answers_name_is_there(front: Front, way: str) -> None:
    """Uploads go on, blobs and manifests are found, and pages follow, all by the URLs of answers."""
    here = f"{front.url}{way}"
    base = f"{here}/v2/team/app"
    whole = f"{PUBLIC}{way}/" if way in ("/fixed", "/kept") else f"{here}/"

    def led(answer: Answer, asked: str, status: int) -> str:
        """Where an answer leads, checked: below the prefix, and a whole URL where the registry knows one."""
        assert answer.status == status, answer.body
        location = str(answer.headers["Location"])
        assert location.startswith(whole if way else ("/v2/", whole))
        return urljoin(asked, location)

    uploads = f"{base}/blobs/uploads/"
    location = led(front.ask("POST", uploads, b""), uploads, 202)
    location = led(front.ask("PATCH", location, BLOB[:50_000]), location, 202)
    status = front.ask("GET", location)
    assert (status.status, status.headers["Range"]) == (204, "0-49999")
    digest = digest_of(BLOB)
    blob = led(front.ask("PUT", f"{location}&digest={digest}", BLOB[50_000:]), location, 201)
    assert front.ask("GET", blob).body == BLOB

    config = {"mediaType": media.OCI_CONFIG, "digest": digest, "size": len(BLOB)}
    image = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config, "layers": []}
    raw, kind = json.dumps(image).encode(), {"Content-Type": media.OCI_MANIFEST}
    for tag in ("a", "b"):
        url = f"{base}/manifests/{tag}"
        manifest = led(front.ask("PUT", url, raw, kind), url, 201)
        assert front.ask("GET", manifest).body == raw
    page = front.ask("GET", f"{base}/tags/list?n=1")
    following = urljoin(base, page.headers["Link"].partition(">")[0].strip("<"))
    assert json.loads(front.ask("GET", following).body)["tags"] == ["b"]
    cancelled = led(front.ask("POST", uploads, b""), uploads, 202)
    assert front.ask("DELETE", cancelled).status == 204
