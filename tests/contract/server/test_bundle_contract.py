"""Pulling from a bundle: what the contract asks of a registry over a store, asked of one over an archive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import ClientSession

from blobflow.server import Server, make_app
from blobflow.transports.store import Store
from tests.contract.server.bundles import Frozen

# These are the tests of the registry over a store, with the fixture below.
from tests.contract.server.test_pull import (  # noqa: F401
    test_a_blob_is_no_manifest,
    test_a_blob_is_visible_only_in_the_repository_it_was_pushed_to,
    test_a_blob_that_is_not_here_is_404,
    test_a_manifest_comes_back_byte_for_byte_by_tag_and_by_digest,
    test_a_manifest_that_is_not_here_is_404,
    test_a_pushed_blob_comes_back_byte_for_byte,
    test_a_range_is_answered_206_with_its_place,
    test_a_range_of_what_the_client_does_not_have_is_the_whole,
    test_a_range_past_the_end_is_416_with_the_size,
    test_a_range_that_is_not_understood_is_ignored,
    test_the_root_says_that_this_is_a_registry,
)
from tests.contract.server.test_referrers import (  # noqa: F401
    test_a_filter_is_applied_and_said_so,
    test_an_index_can_refer_too,
    test_lists_are_a_repositorys_own,
    test_lists_come_in_pages,
    test_nothing_refers_to_what_is_unknown_and_that_is_no_error,
    test_pages_have_no_more_bytes_than_clients_take,
    test_what_refers_to_a_manifest_is_listed_with_its_type_and_annotations,
    test_without_an_artifact_type_the_configs_media_type_is_told,
)


@pytest.fixture
async def registry(registry_store: Store, tmp_path: Path) -> AsyncIterator[Frozen]:
    async with (
        Server(make_app(registry_store)) as server,
        ClientSession(server.url) as client,
        AsyncExitStack() as stack,
    ):
        yield Frozen(registry_store, client, tmp_path, stack)
