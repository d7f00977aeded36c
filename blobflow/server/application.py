"""The table of the registry's endpoints, and the one place where an answer is made of what a room did.

The registry speaks distribution-spec 1.1 and is strict: what the spec lets it refuse, it refuses, so that a
client that works here works elsewhere. No request's body is ever held in memory, except a manifest's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType

from aiohttp import ClientPayloadError, web

from blobflow.errors import StorageError, StorageFull
from blobflow.events import Warned
from blobflow.server.admin.endpoints import health, metrics, page
from blobflow.server.auth.access_rules import AccessRules, Action, Permissions, grant, request_key
from blobflow.server.auth.logins import Logins, is_nobody
from blobflow.server.blobs import api_version, read_blob, read_manifest
from blobflow.server.context import AccessRecord, RequestContext, body_bytes_sent
from blobflow.server.errors import ApiError
from blobflow.server.http.bodies import BodyTransport, SocketBodyTransport
from blobflow.server.http.public_url import Addressing
from blobflow.server.listing import list_repositories, list_tags
from blobflow.server.manifests import delete_blob, delete_manifest, put_manifest
from blobflow.server.pullthrough.cache import PullThroughCache
from blobflow.server.referrers import list_referrers
from blobflow.server.registry import Registry, RegistryOptions, SparsePolicy
from blobflow.server.routes import HEALTH_PATH, Route, match_route
from blobflow.server.upload_sessions import UPLOAD_TTL
from blobflow.server.uploads import append_chunk, cancel_upload, complete_upload, start_upload, upload_status
from blobflow.transports.store import Store

Endpoint = Callable[[Registry, web.BaseRequest, Route], Awaitable[web.StreamResponse]]


async def fetch_and_list_referrers(
    registry: Registry, request: web.BaseRequest, route: Route
) -> web.StreamResponse:
    """[end-12a], [end-12b]: what refers to a digest here, and at the upstream of what is pulled through."""
    if registry.pullthrough is not None and route.upstream is not None:
        await registry.pullthrough.fetch_referrers(route)
    return await list_referrers(registry, request, route)


ENDPOINTS: Mapping[str, Mapping[str, Endpoint]] = MappingProxyType(
    {
        "root": {"GET": api_version, "HEAD": api_version},
        "catalog": {"GET": list_repositories},
        "tags": {"GET": list_tags},
        "blob": {"GET": read_blob, "HEAD": read_blob, "DELETE": delete_blob},
        "manifest": {
            "GET": read_manifest,
            "HEAD": read_manifest,
            "PUT": put_manifest,
            "DELETE": delete_manifest,
        },
        "referrers": {"GET": fetch_and_list_referrers},
        "uploads": {"POST": start_upload},
        "page": {"GET": page, "HEAD": page},
        "metrics": {"GET": metrics},
        "health": {"GET": health, "HEAD": health},
        "upload": {
            "GET": upload_status,
            "PATCH": append_chunk,
            "PUT": complete_upload,
            "DELETE": cancel_upload,
        },
    }
)

# What changes nothing, and so is all that a read-only registry does.
READ_METHODS = ("GET", "HEAD")
# What can be done to a repository that is pulled through: all but to push.
_PUSHES = ("PUT", "POST", "PATCH")

# What has to be allowed, in the repository, for each endpoint of one.
REQUIRED_ACTIONS: Mapping[str, Mapping[str, Action]] = MappingProxyType(
    {
        "tags": {"GET": "pull"},
        "blob": {"GET": "pull", "HEAD": "pull", "DELETE": "delete"},
        "manifest": {"GET": "pull", "HEAD": "pull", "PUT": "push", "DELETE": "delete"},
        "referrers": {"GET": "pull"},
        "uploads": {"POST": "push"},
        "upload": {"GET": "push", "PATCH": "push", "PUT": "push", "DELETE": "push"},
    }
)

REGISTRY_KEY = web.AppKey("registry", Registry)
# The registry in whose place a request was answered, as the client named it.
_NAMESPACE = request_key("blobflow_namespace", str)


def make_app(
    store: Store,
    *,
    sparse: SparsePolicy = "indexes",
    read_only: bool = False,
    max_blob_size: int | None = None,
    upload_ttl: float = UPLOAD_TTL,
    unreleased: bool = True,
    logins: Logins | None = None,
    access: AccessRules | None = None,
    pullthrough: PullThroughCache | None = None,
    addressing: Addressing | None = None,
    body_transport: BodyTransport | None = None,
    observe: Callable[[AccessRecord], None] | None = None,
) -> web.Application:
    """The registry over `store` as an application; the store stays its caller's, to close after it, and the
    store's observer is told of requests that failed because the store did.

    `sparse`: see `RegistryOptions`. `read_only`: what
    would change something is answered with 405. `max_blob_size` in bytes: longer uploads are answered with
    413. `upload_ttl`: seconds that an unfinished upload is kept without a byte. `unreleased`: see
    `RegistryOptions`. `logins`: who may come in
    (None: anybody), and `pullthrough` what is pulled through; both are closed with the application. `access`:
    what each may do (None: everything). `observe` is called once a request, on the loop's thread, and must
    return at once. `addressing`: the URLs of answers (None: as `publicurl` has it where nobody says).
    `body_transport` moves the bodies.
    """
    rules = RegistryOptions(
        sparse=sparse,
        read_only=read_only,
        max_blob_size=max_blob_size,
        upload_ttl=upload_ttl,
        unreleased=unreleased,
    )
    registry = Registry(
        store,
        rules=rules,
        body_transport=body_transport or SocketBodyTransport(),
        addressing=addressing,
        logins=logins,
        pullthrough=pullthrough,
    )
    granted = access or AccessRules()

    async def answer(request: web.Request) -> web.StreamResponse:
        context = RequestContext(request, registry.addressing.client(request))
        response = await _answer(registry, granted, context)
        counters = registry.counters
        counters.answered(request.method, context.endpoint, response.status)
        counters.received += request.content_length or 0
        counters.sent += body_bytes_sent(request, response)
        if observe is not None:
            observe(context.access(response))
        return response

    app = web.Application()
    app[REGISTRY_KEY] = registry
    app.router.add_route("*", r"/{path:[\s\S]*}", answer)
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(_gathering_ends)
    app.cleanup_ctx.append(_sessions_end)
    return app


async def _gathering_ends(app: web.Application) -> None:
    """Before requests under way get their time to end: who waits for a page need not."""
    app[REGISTRY_KEY].overview.stop()


async def _sessions_end(app: web.Application) -> AsyncIterator[None]:
    registry = app[REGISTRY_KEY]
    registry.store.commit_in_threads()
    tending = asyncio.create_task(registry.sessions.tend()) if not registry.store.read_only else None
    yield
    if tending is not None:
        tending.cancel()
        await asyncio.wait((tending,))
    await registry.overview.close()
    registry.sessions.close()
    await registry.referrer_index.close()
    if registry.pullthrough is not None:
        await registry.pullthrough.close()
    if registry.logins is not None:
        registry.logins.close()


async def _answer(registry: Registry, access: AccessRules, context: RequestContext) -> web.StreamResponse:
    """Find the endpoint and let it answer; turn whatever it raises into the spec's error body."""
    request = context.request
    try:
        try:
            return await _dispatch(registry, access, context)
        except ApiError as error:
            if error.status == 404:  # nobody is told that it is not here because the disk is not here
                registry.store.check_there()
            return _error_response(error)
    except StorageError as error:
        return _error_response(_store_failed(registry, request, error))
    except (ConnectionError, TimeoutError, ClientPayloadError, web.RequestPayloadError):
        # The client is gone in the middle of a body, or takes no more of it (ETIMEDOUT), or its bytes make no
        # sense: nothing can be said to it, least of all where a part of an answer is on its way already.
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=400)


def _store_failed(registry: Registry, request: web.Request, error: StorageError) -> ApiError:
    """What a client is told when the store fails: 507 (RFC 4918, section 11.5) where it is full, else 500.

    Where the store lies is nobody's business but the operator's, who is told the whole; that the disk is
    full, once a minute at most, since it is the same for every push.
    """
    if not isinstance(error, StorageFull) or registry.may_report_full():
        registry.store.observer(Warned(f"{request.method} {request.path} failed: {error}"))
    if isinstance(error, StorageFull):
        return ApiError("UNKNOWN", "the registry's storage is full", status=507)
    return ApiError("UNKNOWN", "the registry's storage failed")


async def _add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Older docker clients take a host without the first header for no v2 registry; the second says that
    `?ns=` was heeded ("Registry Proxying")."""
    response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
    if _NAMESPACE in request:
        response.headers["OCI-Namespace"] = request[_NAMESPACE]


async def _dispatch(registry: Registry, access: AccessRules, context: RequestContext) -> web.StreamResponse:
    """Who asks, for what, whether that is allowed; only then what there is."""
    request = context.request
    permissions = await _authenticate(registry, access, context)
    if registry.rules.read_only and request.method not in READ_METHODS:
        raise ApiError(
            "UNSUPPORTED", "this registry is read-only", headers={"Allow": ", ".join(READ_METHODS)}
        )
    route = match_route(registry.addressing.path(request.path))
    if route is None:
        raise ApiError("UNSUPPORTED", "this registry has no such endpoint", status=404)
    context.endpoint = route.endpoint
    if registry.pullthrough is not None:
        named = request.query.get("ns", "")
        route = registry.pullthrough.upstreams.route(route, named)
        if named and route.upstream is not None:
            request[_NAMESPACE] = named
    methods = ENDPOINTS[route.endpoint]
    endpoint = methods.get(request.method)
    if endpoint is None:
        raise ApiError(
            "UNSUPPORTED", f"{request.method} can't be done here", headers={"Allow": ", ".join(methods)}
        )
    if not _is_allowed(access, permissions, request.method, route):
        raise permissions.denial()
    if route.upstream is not None and request.method in _PUSHES:
        raise ApiError(
            "UNSUPPORTED", f"{route.repository} is pulled through from {route.upstream}; push it there"
        )
    return await endpoint(registry, request, route)


async def _authenticate(registry: Registry, access: AccessRules, context: RequestContext) -> Permissions:
    """What the sender of the request may do. Raises Refusal, for a login that is wrong, and for none where
    those without one may do nothing."""
    request, logins = context.request, registry.logins
    authorization = request.headers.get("Authorization")
    if logins is not None and not is_nobody(authorization) and request.path != HEALTH_PATH:
        context.user = await logins.check(authorization, context.client, _connection(context))
    permissions = access.permissions(context.user, with_logins=logins is not None)
    if not context.user and not permissions.may_somewhere() and request.path != HEALTH_PATH:
        raise permissions.denial()
    grant(request, context.user, permissions)
    return permissions


def _connection(context: RequestContext) -> object:
    """What lives as long as the request's connection and can be referred to weakly: its transport; under TLS
    the state of that, since transports of uvloop's can't be. None for a proxy's, which it uses for many."""
    transport = context.request.transport
    if context.client != (context.request.remote or ""):
        return None
    return transport and (transport.get_extra_info("ssl_object") or transport)


def _is_allowed(access: AccessRules, permissions: Permissions, method: str, route: Route) -> bool:
    """Whether an endpoint may be asked at all; it never depends on what is in the registry."""
    if route.endpoint in REQUIRED_ACTIONS:
        return permissions.may(REQUIRED_ACTIONS[route.endpoint][method], route.repository)
    if not permissions.asks or route.endpoint == "health":
        return True
    match route.endpoint:  # those without a login, where there are some
        case "catalog" | "page":
            return permissions.may_somewhere("pull")
        case "root":
            return not access.asks_for_login
        case _:  # metrics
            return False


def _error_response(error: ApiError) -> web.Response:
    return web.Response(
        status=error.status,
        headers=error.headers,
        body=error.body,
        content_type="application/json",
    )
