"""The registry as an application: the table of its endpoints, and the dispatch of requests to them.

The registry speaks distribution-spec 1.1 and is strict: what the spec lets it refuse, it refuses, so that a
client that works here works elsewhere. It never holds a request's body in memory, except a manifest's.

To add an endpoint: give its path a name in `routes`, and that name a line in `ENDPOINTS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple

from aiohttp import ClientPayloadError, HttpVersion11, web

from blobflow.errors import StorageError, StorageFull
from blobflow.events import Warned
from blobflow.server.admin.access_log import AccessRecord
from blobflow.server.admin.endpoints import health, metrics, page
from blobflow.server.auth.access_rules import AccessRules, Action, Permissions
from blobflow.server.auth.htpasswd import is_nobody
from blobflow.server.auth.logins import Logins
from blobflow.server.blobs import delete_blob, read_blob
from blobflow.server.catalog import list_repositories
from blobflow.server.context import RequestContext
from blobflow.server.errors import ApiError
from blobflow.server.http.bodies import BodyTransport, SocketBodyTransport
from blobflow.server.http.public_url import Addressing
from blobflow.server.manifests import delete_manifest, put_manifest, read_manifest
from blobflow.server.pullthrough.cache import PullThroughCache
from blobflow.server.pullthrough.stored_names import public_name
from blobflow.server.referrers import list_referrers
from blobflow.server.registry import Aliases, Registry, RegistryOptions, SparsePolicy
from blobflow.server.routes import HEALTH_PATH, Route, match_route
from blobflow.server.tags import list_tags
from blobflow.server.upkeep import run_upkeep
from blobflow.server.upload_sessions import UPLOAD_TTL
from blobflow.server.uploads import append_chunk, cancel_upload, complete_upload, start_upload, upload_status
from blobflow.transports.store import Store
from blobflow.transports.store.served_content import ServedContent


class Endpoint(NamedTuple):
    """`answer` makes the response; `action` is what the sender has to be permitted to do in the repository
    (None: the endpoint belongs to no repository, see `_is_permitted`)."""

    answer: Callable[[RequestContext], Awaitable[web.StreamResponse]]
    action: Action | None = None


async def api_version(context: RequestContext) -> web.StreamResponse:
    """[end-1]: this is a registry."""
    return web.Response(body=b"{}", content_type="application/json")


# A route's name → method → endpoint.
ENDPOINTS: Mapping[str, Mapping[str, Endpoint]] = MappingProxyType(
    {
        "root": {"GET": Endpoint(api_version), "HEAD": Endpoint(api_version)},
        "catalog": {"GET": Endpoint(list_repositories)},
        "tags": {"GET": Endpoint(list_tags, "pull")},
        "blob": {
            "GET": Endpoint(read_blob, "pull"),
            "HEAD": Endpoint(read_blob, "pull"),
            "DELETE": Endpoint(delete_blob, "delete"),
        },
        "manifest": {
            "GET": Endpoint(read_manifest, "pull"),
            "HEAD": Endpoint(read_manifest, "pull"),
            "PUT": Endpoint(put_manifest, "push"),
            "DELETE": Endpoint(delete_manifest, "delete"),
        },
        "referrers": {"GET": Endpoint(list_referrers, "pull")},
        "uploads": {"POST": Endpoint(start_upload, "push")},
        "upload": {
            "GET": Endpoint(upload_status, "push"),
            "PATCH": Endpoint(append_chunk, "push"),
            "PUT": Endpoint(complete_upload, "push"),
            "DELETE": Endpoint(cancel_upload, "push"),
        },
        "page": {"GET": Endpoint(page), "HEAD": Endpoint(page)},
        "metrics": {"GET": Endpoint(metrics)},
        "health": {"GET": Endpoint(health), "HEAD": Endpoint(health)},
    }
)

# What changes nothing, and so is all that a read-only registry does.
READ_METHODS = ("GET", "HEAD")
# What nobody can do to a repository that is pulled through.
_PUSH_METHODS = ("PUT", "POST", "PATCH")

REGISTRY_KEY = web.AppKey("registry", Registry)
# The registry that the client named with `?ns=` and that this one answered for. aiohttp warns of plain texts
# as keys since it has RequestKey (3.14).
_request_key: Any = getattr(web, "RequestKey", lambda name, kind: name)
_NAMESPACE = _request_key("blobflow_namespace", str)


def make_app(
    content: ServedContent,
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
    aliases: Aliases | None = None,
    body_transport: BodyTransport | None = None,
    observe: Callable[[AccessRecord], None] | None = None,
) -> web.Application:
    """The registry over `content`, a store, as an application; it stays its caller's, to close after it, and
    its observer hears of requests that failed because it did. Over anything but a store it is read-only.

    `sparse`, `read_only`, `max_blob_size`, `upload_ttl`, `unreleased`: see `RegistryOptions`. `logins`: who
    may come in (None: anybody), and `pullthrough` what is pulled through; the application closes both.
    `access`: what each may do (None: everything). `addressing`: the URLs of answers (None: as `public_url`
    has it where nobody says). `aliases`: names of repositories beside their own. `body_transport` moves the
    bodies. `observe` is called once a request, on the loop's thread, and must return at once.
    """
    options = RegistryOptions(
        sparse=sparse,
        read_only=read_only or not isinstance(content, Store),
        max_blob_size=max_blob_size,
        upload_ttl=upload_ttl,
        unreleased=unreleased,
    )
    registry = Registry(
        content,
        options=options,
        body_transport=body_transport or SocketBodyTransport(),
        access=access,
        addressing=addressing,
        aliases=aliases,
        logins=logins,
        pullthrough=pullthrough,
    )

    async def answer(request: web.Request) -> web.StreamResponse:
        context = RequestContext(registry, request)
        response = await _answer(context)
        context.count(response)
        if observe is not None:
            observe(context.access_record(response))
        return response

    app = web.Application()
    app[REGISTRY_KEY] = registry
    app.router.add_route("*", r"/{path:[\s\S]*}", answer, expect_handler=_let_continue)
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(_stop_overview)
    app.cleanup_ctx.append(_serve_until_cleanup)
    return app


async def _let_continue(request: web.Request) -> None:
    """Answer an Expect header (RFC 9110, 10.1.1): 100, or 417 for what this registry can't do. That a client
    is gone is found where its body is read."""
    if request.version < HttpVersion11:
        return
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed
    with suppress(ConnectionError):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def _stop_overview(app: web.Application) -> None:
    """Refuse who waits for a page before the other requests get their time to end."""
    app[REGISTRY_KEY].overview.stop()


async def _serve_until_cleanup(app: web.Application) -> AsyncIterator[None]:
    registry = app[REGISTRY_KEY]
    upkeep = None
    if registry.takes_writes:
        registry.store.commit_in_threads()
        upkeep = asyncio.create_task(run_upkeep(registry))
    yield
    if upkeep is not None:
        upkeep.cancel()
        await asyncio.wait((upkeep,))
    await registry.close()


async def _answer(context: RequestContext) -> web.StreamResponse:
    """Find the endpoint and let it answer; turn whatever it raises into the spec's error body."""
    request = context.request
    try:
        try:
            return await _dispatch(context)
        except ApiError as error:
            if error.status == 404:  # no client hears that content is not here because the disk is not here
                context.registry.content.check_there()
            return _error_response(error)
    except StorageError as error:
        return _error_response(_storage_error(context, error))
    except (ConnectionError, TimeoutError, ClientPayloadError, web.RequestPayloadError):
        # The client is gone in the middle of a body, or takes no more of it (ETIMEDOUT), or its bytes make no
        # sense: no answer can reach it, least of all where a part of one is on its way already.
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=400)


async def _dispatch(context: RequestContext) -> web.StreamResponse:
    """Ask who sends the request, what it is for, and whether that is permitted; only then what there is."""
    registry, request = context.registry, context.request
    await _authenticate(context)
    if registry.options.read_only and request.method not in READ_METHODS:
        raise ApiError(
            "UNSUPPORTED", "this registry is read-only", headers={"Allow": ", ".join(READ_METHODS)}
        )
    route = match_route(registry.addressing.path(request.path))
    if route is None:
        raise ApiError("UNSUPPORTED", "this registry has no such endpoint", status=404)
    context.route = route = _resolve_names(registry, request, route)
    methods = ENDPOINTS[route.endpoint]
    endpoint = methods.get(request.method)
    if endpoint is None:
        raise ApiError(
            "UNSUPPORTED", f"{request.method} can't be done here", headers={"Allow": ", ".join(methods)}
        )
    if not _is_permitted(registry.access, context.permissions, endpoint, route):
        raise context.permissions.denial()
    if route.upstream is not None and request.method in _PUSH_METHODS:
        raise ApiError(
            "UNSUPPORTED", f"{route.repository} is pulled through from {route.upstream}; push it there"
        )
    if registry.pullthrough is not None and route.upstream is not None:
        context.route = route._replace(repository=registry.pullthrough.names.of(route.repository))
    return await endpoint.answer(context)


def _resolve_names(registry: Registry, request: web.Request, route: Route) -> Route:
    """The route with the name that its repository has here. Raises ApiError (NAME_UNKNOWN) for a namespace
    that this registry pulls nothing through from."""
    namespace = request.query.get("ns", "")
    if registry.aliases is not None and route.repository:
        if registry.aliases.stands_for(namespace):
            request[_NAMESPACE] = namespace
        return route._replace(repository=registry.aliases.resolve(route.repository, namespace))
    if registry.pullthrough is not None:
        route = registry.pullthrough.upstreams.resolve(route, namespace)
        if namespace and route.upstream is not None:
            request[_NAMESPACE] = namespace
    return route


async def _authenticate(context: RequestContext) -> None:
    """Find out who sends the request, and what that one may do.

    Raises ApiError, for a login that is wrong, and for none where those without one may do nothing.
    """
    request, logins = context.request, context.registry.logins
    authorization = request.headers.get("Authorization")
    if logins is not None and not is_nobody(authorization) and request.path != HEALTH_PATH:
        context.user = await logins.check(authorization, context.client, _connection(context))
    permissions = context.registry.access.permissions(context.user, with_logins=logins is not None)
    if not context.user and not permissions.may_somewhere() and request.path != HEALTH_PATH:
        raise permissions.denial()
    context.permissions = permissions


def _connection(context: RequestContext) -> object:
    """What lives as long as the request's connection and can be referred to weakly: its transport; under TLS
    the state of that, since uvloop's transports can't be. None for a proxy's, which it uses for many."""
    transport = context.request.transport
    if context.client != (context.request.remote or ""):
        return None
    return transport and (transport.get_extra_info("ssl_object") or transport)


def _is_permitted(access: AccessRules, permissions: Permissions, endpoint: Endpoint, route: Route) -> bool:
    """Whether an endpoint may be asked at all; it never depends on what is in the registry."""
    if endpoint.action is not None:
        return permissions.may(endpoint.action, public_name(route.repository))
    if not permissions.asks or route.endpoint == "health":
        return True
    match route.endpoint:  # those without a login, where there are some
        case "catalog" | "page":
            return permissions.may_somewhere("pull")
        case "root":
            return not access.asks_for_login
        case _:  # metrics
            return False


async def _add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Older docker clients take a host without the first header for no v2 registry; the second says that
    this registry heeded `?ns=` ("Registry Proxying")."""
    response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
    if _NAMESPACE in request:
        response.headers["OCI-Namespace"] = request[_NAMESPACE]


def _storage_error(context: RequestContext, error: StorageError) -> ApiError:
    """What a client hears when the store fails: 507 (RFC 4918, section 11.5) where it is full, else 500.

    Where the store lies is the operator's affair alone, who hears the whole; that the disk is full, once a
    minute at most, since it is the same for every push.
    """
    registry, request = context.registry, context.request
    if not isinstance(error, StorageFull) or registry.may_report_full():
        registry.content.observer(Warned(f"{request.method} {request.path} failed: {error}"))
    if isinstance(error, StorageFull):
        return ApiError("UNKNOWN", "the registry's storage is full", status=507)
    return ApiError("UNKNOWN", "the registry's storage failed")


def _error_response(error: ApiError) -> web.Response:
    return web.Response(
        status=error.status, headers=error.headers, body=error.body, content_type="application/json"
    )
