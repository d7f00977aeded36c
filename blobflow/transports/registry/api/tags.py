"""A repository's tags, page by page: distribution-spec, "Content Discovery" ([end-8a], [end-8b]); and in the
same pages a registry's repositories, where it has a catalog: docker's HTTP API V2, not in the OCI spec.

    GET /v2/<name>/tags/list?n=1000 → {"name": …, "tags": […]} and, if there is more, Link: <…>; rel="next"
    GET /v2/_catalog?n=1000         → {"repositories": […]}, the same

A registry may refuse so large a page (distribution, with a smaller `maxentries`: 400
PAGINATION_NUMBER_INVALID). Then a smaller one is asked for, and then one of whatever size the registry likes;
what it took is remembered for the host.

The registry says where the next page is, and so could lead us round and round: pages, bytes and names are
bounded, and no page is asked for twice.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import msgspec
from yarl import URL

from blobflow.content import Site
from blobflow.errors import InvalidReference, ProtocolViolation, Rejected
from blobflow.oci.json_decoding import decode
from blobflow.oci.reference import check_repository, check_tag
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.link_header import next_link, next_page
from blobflow.transports.registry.http.messages import Request, Response

# Names asked for in a page, and what is tried next where that is refused; 0: none are. ECR refuses more than
# 1000, and so does distribution 3 as it comes; a hundred is its default.
PAGES = (1000, 100, 0)
_TOO_LARGE = "PAGINATION_NUMBER_INVALID"
# Bytes of one page: distribution 2.8 knows no pages and answers with all of them at once.
MAX_PAGE_BYTES = 32 * 1024 * 1024
# Registries with small pages (Quay: 50) need many of them; this many make up the most names that are taken.
MAX_PAGES = 5000
MAX_NAMES = 250_000
# Bytes of all pages: the longest tags, as many as are taken, have half of that.
MAX_BYTES = 64 * 1024 * 1024
# What a token for the catalog is asked for (distribution's token scopes: resource type `registry`).
_CATALOG = ("registry:catalog:*",)


class _Page(msgspec.Struct):
    tags: list[str] | None = None
    repositories: list[str] | None = None


_decoder = msgspec.json.Decoder(_Page)


async def list_tags(
    client: HostClient, site: Site, scopes: tuple[str, ...], *, pages: int | None = None
) -> list[str]:
    """See `Lists.tags`. `pages`: more than so many are a ProtocolViolation, too."""
    path, description = f"/v2/{site.repository}/tags/list", f"tags of {site.repository}"
    return await _names(client, path, description, scopes, pages or MAX_PAGES, check_tag)


async def list_repositories(client: HostClient) -> list[str]:
    """The repositories of a registry, each once, in its order; those that can't be asked for are left out.

    Raises NotFound or Rejected where there is no catalog, Denied or Unauthorized where it is not for us, and
    ProtocolViolation for lists without end or sense.
    """
    path, description = "/v2/_catalog", "catalog of repositories"
    return await _names(client, path, description, _CATALOG, MAX_PAGES, check_repository)


async def _names(
    client: HostClient,
    where: str,
    description: str,
    scopes: tuple[str, ...],
    most: int,
    check: Callable[[str], str],
) -> list[str]:
    """All names of a list that `check` lets pass, each once, in order. Others are never held."""
    found: dict[str, None] = {}
    response, url, length = await _first(client, where, description, scopes)
    path = str(url)
    seen, size, last = set[str](), 0, ""
    for number in range(most):
        if number:
            request = Request("GET", url, description, scopes=scopes, limit=MAX_PAGE_BYTES)
            response = await client.send(request)
        seen |= {str(url), str(response.url)}
        page = read_page(response.body, client.host, description)
        before, size = len(found), size + len(response.body)
        found.update((name, None) for name in page if _is_in_order(check, name))
        if len(found) > MAX_NAMES:
            raise ProtocolViolation(
                f"{client.host} lists more than {MAX_NAMES} {description}; name those wanted"
            )
        if size > MAX_BYTES:
            raise ProtocolViolation(f"{client.host} lists {description} in more than {MAX_BYTES} bytes")
        following = _following(client, response, description)
        is_news = len(found) > before or (page and page[-1] != last)
        last = page[-1] if page else ""
        if following is None and 0 < length <= len(page) and is_news:
            # A full page and no word of another: some registries want to be asked without saying so.
            following = URL(f"{path}&last={quote(page[-1], safe='')}", encoded=True)
        if following is None:
            return list(found)
        if str(following) in seen:
            raise ProtocolViolation(
                f"{client.host} lists {description} in a circle: a page leads back to itself"
            )
        url = following
    raise ProtocolViolation(f"{client.host} lists {description} in more than {most} pages")


async def _first(
    client: HostClient, where: str, description: str, scopes: tuple[str, ...]
) -> tuple[Response, URL, int]:
    """The first page, its address, and how many names were asked for in it (0: it was not said)."""
    kind = where.rpartition("/")[2]
    sizes = PAGES[PAGES.index(client.capabilities.page_sizes.get(kind, PAGES[0])) :]
    for length in sizes:
        url = URL(f"{where}?n={length}" if length else where, encoded=True)
        try:
            response = await client.send(
                Request("GET", url, description, scopes=scopes, limit=MAX_PAGE_BYTES)
            )
        except Rejected as error:
            if not length or not (error.code == _TOO_LARGE or error.status in (400, 416, 422)):
                raise
        else:
            client.capabilities.page_sizes[kind] = length
            return response, url, length
    raise AssertionError("the last size is none, and what is refused then is raised")


def read_page(body: bytes, host: str, description: str) -> list[str]:
    """The names of one page; `null` is none. Raises ProtocolViolation."""
    if len(body) > MAX_PAGE_BYTES:
        raise ProtocolViolation(
            f"{host} answered {description} with a page of more than {MAX_PAGE_BYTES} bytes"
        )
    if body.count(b'"') > 2 * MAX_NAMES + 100:  # so many objects would take many times the page's bytes
        raise ProtocolViolation(f"{host} lists more than {MAX_NAMES} {description}; name those wanted")
    try:
        page = decode(body, _decoder)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise ProtocolViolation(
            f"{host} answered {description} with something that is no list of names"
        ) from None
    return page.tags or page.repositories or []


def _following(client: HostClient, response: Response, description: str) -> URL | None:
    link = next_link(response.headers.getall("Link", []))
    return None if link is None else next_page(client.home, response.url, link, description)


def _is_in_order(check: Callable[[str], str], name: str) -> bool:
    try:
        check(name)
    except InvalidReference:
        return False
    return True
