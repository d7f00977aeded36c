"""All that a client does, with how often it comes, and one client's life of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import accumulate
from types import MappingProxyType

from tools.loads.conversation import Script
from tools.loads.mix import bad_requests, pulling, pushing
from tools.loads.mix.client import Doing, MixedClient, Repository, WrongAnswer

Way = Callable[[MixedClient, Repository], Doing]

# How often each comes, in no unit. Pulls are most of what a registry sees; what is dear (the page) comes as
# seldom as people look at it, and what breaks more often than it does anywhere: there things are forgotten.
WAYS: Mapping[Way, float] = MappingProxyType(
    {
        pulling.pull: 14,
        pulling.get_tag: 8,
        pulling.head_manifest: 4,
        pulling.unchanged: 3,
        pulling.head_blob: 6,
        pulling.get_blob: 10,
        pulling.ranges: 2,
        pulling.referrers: 2,
        pulling.tags: 2,
        pulling.catalog: 0.5,
        pulling.page: 0.2,
        pulling.metrics: 0.4,
        pulling.ping: 2,
        pushing.post_and_put: 5,
        pushing.one_post: 2,
        pushing.chunks: 1,
        pushing.stream: 2,
        pushing.push_again: 1,
        pushing.mount: 3,
        pushing.mount_of_nothing: 0.5,
        pushing.image: 4,
        pushing.image_without_tag: 1,
        pushing.index: 1,
        pushing.artifact: 1,
        pushing.delete_blob: 1,
        pushing.delete_manifest: 1,
        pushing.delete_tag: 0.5,
        pushing.cancelled: 0.5,
        pushing.broken: 0.5,
        pushing.left: 0.5,
        bad_requests.misses: 1.5,
        bad_requests.nowhere: 1,
        bad_requests.paths: 0.5,
        bad_requests.names: 0.5,
        bad_requests.methods: 0.5,
        bad_requests.no_request: 0.3,
        bad_requests.mismatch: 0.5,
        bad_requests.gap: 0.3,
        bad_requests.manifests: 0.5,
        bad_requests.too_large: 0.2,
        bad_requests.cut_request: 0.3,
        bad_requests.cut_answer: 0.5,
    }
)
_NAMES = tuple(WAYS)
_SUMS = tuple(accumulate(WAYS.values()))


def living(client: MixedClient, going: Callable[[], bool]) -> Script:
    """Put an image into each repository, and then do one thing after another, as long as `going` says so.

    What met a wrong answer is left where it is.
    """
    for repository in client.repositories:
        with suppress(WrongAnswer):
            yield from pushing.image(client, repository)
    while going():
        (way,) = client.random.choices(_NAMES, cum_weights=_SUMS)
        with suppress(WrongAnswer):
            yield from way(client, client.random.choice(client.repositories))
