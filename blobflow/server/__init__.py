"""The embedded registry: OCI distribution-spec 1.1 over a store.

`make_app(store)` is the registry, `Server(app)` puts it on a socket:

    store = Store.open(path)
    async with Server(make_app(store)) as server:
        print(server.url)

A request goes through `application` (who sends it, the table of endpoints, errors), `routes` (what its path
names) and one endpoint: `blobs`, `manifests`, `uploads`, `tags`, `catalog`, `referrers`, or one of `admin`.
Each is given a `context.RequestContext`, says no with an `errors.ApiError`, and finds in `registry.Registry`
what the registry holds between requests.

Folders: `http` (the socket, TLS, connections, bodies, ranges, URLs), `auth` (logins and access rules),
`pullthrough` (what is fetched from upstream registries), `admin` (page, metrics, health, access log, files
that are read again while it serves).

What a crash leaves: every blob and manifest whose push was answered with 201, and of an unfinished upload
nothing but a partial, which the store sweeps.
"""

from blobflow.server.admin.access_log import AccessRecord, CommonLogFormat, json_line
from blobflow.server.application import REGISTRY_KEY, make_app
from blobflow.server.auth.access_rules import AccessRules, parse_access
from blobflow.server.auth.htpasswd import parse_htpasswd
from blobflow.server.auth.logins import Logins
from blobflow.server.http.bodies import BodyTransport, SocketBodyTransport
from blobflow.server.http.listener import Server
from blobflow.server.http.tls import Certificate, tls_context
from blobflow.server.pullthrough.cache import PullThroughCache
from blobflow.server.pullthrough.upstreams import Upstream, Upstreams, parse_upstream

__all__ = [
    "make_app",
    "Server",
    "Certificate",
    "tls_context",
    "Logins",
    "parse_htpasswd",
    "AccessRules",
    "parse_access",
    "PullThroughCache",
    "Upstream",
    "Upstreams",
    "parse_upstream",
    "AccessRecord",
    "CommonLogFormat",
    "json_line",
    "BodyTransport",
    "SocketBodyTransport",
    "REGISTRY_KEY",
]
