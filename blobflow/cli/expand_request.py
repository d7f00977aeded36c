"""Expands a request into pairs, now: where rules choose tags, it asks their registries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.inputs.expansion import ExpandedRequest, expand
from blobflow.cli.inputs.platforms import choose_platforms
from blobflow.cli.inputs.requests import MirrorRequest
from blobflow.cli.options.connection import ConnectionOptions
from blobflow.cli.options.platforms import PlatformOptions
from blobflow.cli.options.run import RunOptions
from blobflow.cli.settings import Hosts, run_settings
from blobflow.errors import BlobflowError
from blobflow.events import Warned

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.operations.tags.search import ChosenTags, TagSearch
    from blobflow.settings import Settings


def request_hosts(request: MirrorRequest) -> Hosts:
    """The hosts of a request's sources and targets, as far as their names are known."""
    sources, targets = request.host_names
    return Hosts(sources, targets)


async def expand_request(
    client: Client, request: MirrorRequest, platforms: PlatformOptions
) -> ExpandedRequest:
    """The pairs of a request, with warnings shown. Asks registries for the tags that rules choose."""
    for warning in (*request.warnings, *([request.schedule_hint] if request.schedule_hint else [])):
        client.observer(Warned(warning))
    await _tell_moved_tags(client, request)
    if not request.searches:
        return _expand_chosen(request, {}, platforms)
    from blobflow.operations.tags.select import select_tags

    return _expand_chosen(request, await select_tags(client, request.searches), platforms)


async def _tell_moved_tags(client: Client, request: MirrorRequest) -> None:
    """Say which tags no longer name what they are locked to: that is what is brought all the same."""
    locked = {
        image.source.under(image.named, image.tag): image.digest
        for image in request.images
        if image.locked and image.tag
    }
    if not locked:
        return
    from blobflow.operations.pins import moved_tags

    for name, found in (await moved_tags(client, locked)).items():
        is_now = f"could not be asked for: {found}" if isinstance(found, BlobflowError) else f"is now {found}"
        client.observer(Warned(f"{name} {is_now}; it is locked to {locked[name]}, which is taken"))


def may_skip_all(request: MirrorRequest, platforms: PlatformOptions) -> bool:
    """Whether options or the request allow to skip images. If not, a set of which all are skipped is a
    mistake."""
    return platforms.missing_platform is not None or request.sets_missing_platform


def check_request(request: MirrorRequest, platforms: PlatformOptions) -> None:
    """Raise UsageError for what is wrong with a request before any registry is asked."""
    exact = tuple(image for image in request.images if image.search is None)
    _expand_chosen(msgspec.structs.replace(request, images=exact), {}, platforms)


def _expand_chosen(
    request: MirrorRequest, found: Mapping[TagSearch, Sequence[ChosenTags]], platforms: PlatformOptions
) -> ExpandedRequest:
    expanded = expand(request, found)
    return msgspec.structs.replace(expanded, pairs=tuple(choose_platforms(expanded.pairs, platforms)))


def request_settings(request: MirrorRequest, connection: ConnectionOptions, run: RunOptions) -> Settings:
    """The settings of a run over the request."""
    return run_settings(connection, run, request_hosts(request), host_defaults=request.hosts)
