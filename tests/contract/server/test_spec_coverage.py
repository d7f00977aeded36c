"""The table of distribution-spec 1.1's endpoints, and of its main branch's (end-4c, end-7b): which tests hold
each, so that a gap shows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from aiohttp import ClientSession

from blobflow.oci import digest_of, media
from tests.contract.server.client import (
    ABSENT,
    BLOB,
    DIGEST,
    REPO,
    SMALL,
    pushed_image,
    refusal,
    start,
    status_of,
)

HERE = Path(__file__).parent

# Each endpoint of the spec's table with its success and failure codes, and for each code a test that meets
# it. The names are looked up below: a test that goes away, or is renamed, is missed.
ENDPOINTS: dict[str, dict[int, str]] = {
    "end-1": {
        200: "test_the_root_says_that_this_is_a_registry",
        401: "test_nobody_comes_in_without_a_right_login",
        404: "test_what_is_no_endpoint_is_said_so",
    },
    "end-2": {
        200: "test_a_pushed_blob_comes_back_byte_for_byte",
        206: "test_a_range_is_answered_206_with_its_place",
        404: "test_a_blob_that_is_not_here_is_404",
        416: "test_a_range_past_the_end_is_416_with_the_size",
    },
    "end-3": {
        200: "test_a_manifest_comes_back_byte_for_byte_by_tag_and_by_digest",
        404: "test_a_manifest_that_is_not_here_is_404",
    },
    "end-4a": {
        202: "test_post_then_put_takes_the_whole_blob",
        400: "test_a_name_that_breaks_the_grammar_is_refused",
    },
    "end-4b": {
        201: "test_post_with_a_digest_takes_the_whole_blob",
        400: "test_bytes_that_are_not_the_digest_are_refused_and_not_kept",
    },
    "end-4c": {
        202: "test_an_upload_may_say_what_its_digest_will_be_of",
        400: "test_an_algorithm_that_nobody_can_verify_is_refused_at_once",
    },
    "end-5": {
        202: "test_post_patch_put_takes_a_stream_of_unknown_length",
        404: "test_a_session_belongs_to_one_repository",
        416: "test_a_chunk_out_of_order_is_416_with_what_has_arrived",
    },
    "end-6": {
        201: "test_chunks_in_order_make_the_blob",
        400: "test_an_upload_needs_a_digest_that_can_be_checked",
        404: "test_a_cancelled_upload_is_gone",
        416: "test_a_chunk_out_of_order_is_416_with_what_has_arrived",
    },
    "end-7": {
        201: "test_a_manifest_can_be_pushed_by_digest",
        400: "test_what_is_no_manifest_is_refused",
        413: "test_a_manifest_is_bounded",
    },
    "end-7b": {
        201: "test_a_manifest_pushed_by_digest_gets_the_tags_that_come_with_it",
        400: "test_a_tag_that_is_none_keeps_the_whole_manifest_out",
    },
    "end-8a": {
        200: "test_tags_are_listed_in_order_and_in_pages",
        404: "test_tags_of_no_repository_are_404",
    },
    "end-8b": {
        200: "test_a_full_last_page_has_no_link",
        400: "test_a_page_length_that_is_no_number_is_refused",
    },
    "end-9": {
        202: "test_deleting_a_manifest_takes_its_tags_along",
        404: "test_what_is_deleted_twice_is_404",
        405: "test_a_read_only_registry_changes_nothing",
    },
    "end-10": {
        202: "test_deleting_a_blob_takes_it_out_of_one_repository",
        404: "test_what_is_deleted_twice_is_404",
        405: "test_a_read_only_registry_changes_nothing",
    },
    "end-11": {
        201: "test_a_mount_makes_the_blob_visible_without_an_upload",
        202: "test_a_mount_that_can_not_be_opens_a_session",
    },
    "end-12a": {
        200: "test_what_refers_to_a_manifest_is_listed_with_its_type_and_annotations",
        400: "test_referrers_are_asked_for_by_digest",
    },
    "end-12b": {200: "test_a_filter_is_applied_and_said_so"},
    "end-13": {
        204: "test_an_upload_tells_how_far_it_is",
        404: "test_what_is_asked_of_no_session_is_404",
    },
    "end-14": {
        204: "test_a_cancelled_upload_is_gone",
        404: "test_what_is_asked_of_no_session_is_404",
    },
}


def cases_here() -> dict[str, str]:
    """The names of all tests of the embedded registry, with their docstrings."""
    return {
        node.name: ast.get_docstring(node) or ""
        for file in sorted(HERE.glob("test_*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_endpoint_of_the_spec_has_its_tests(endpoint: str) -> None:
    known = cases_here()
    assert [test for test in ENDPOINTS[endpoint].values() if test not in known] == []


def test_every_endpoint_that_a_test_cites_is_in_the_table() -> None:
    cited = {end for text in cases_here().values() for end in re.findall(r"\[(end-\w+)\]", text)}
    assert cited - set(ENDPOINTS) == set()
    assert len(ENDPOINTS) == 19


# What no other file holds: one MUST each.


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
async def test_what_is_asked_of_no_session_is_404(registry: ClientSession, method: str) -> None:
    """[end-5], [end-6], [end-13], [end-14]: BLOB_UPLOAD_UNKNOWN"""
    path = f"{REPO}/blobs/uploads/nobody-began-this?digest={DIGEST}"
    async with registry.request(method, path) as answer:
        assert await refusal(answer) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_what_is_deleted_twice_is_404(registry: ClientSession) -> None:
    """[end-9], [end-10]: "if the repository does not exist, the response MUST return 404"."""
    raw = await pushed_image(registry)
    for path, code in (
        (f"{REPO}/manifests/1.0", "MANIFEST_UNKNOWN"),
        (f"{REPO}/manifests/{digest_of(raw)}", "MANIFEST_UNKNOWN"),
        (f"{REPO}/blobs/{DIGEST}", "BLOB_UNKNOWN"),
    ):
        assert await status_of(registry, path, "DELETE") == 202
        async with registry.delete(path) as answer:
            assert await refusal(answer) == (404, code)
        async with registry.delete(path.replace("team/app", "nobody/here")) as answer:
            assert await refusal(answer) == (404, code)


async def test_referrers_are_asked_for_by_digest(registry: ClientSession) -> None:
    """[end-12a]: 400 for what is none."""
    async with registry.get(f"{REPO}/referrers/latest") as answer:
        assert await refusal(answer) == (400, "DIGEST_INVALID")


async def test_an_upload_may_be_told_a_chunks_least_length(registry: ClientSession) -> None:
    """[end-4a], "Pushing a blob in chunks": a registry MAY send OCI-Chunk-Min-Length, and this one has no
    least length: whatever a client says of it, chunks of one byte are taken."""
    headers = {"OCI-Chunk-Min-Length": "1000", "Content-Length": "0"}
    async with registry.post(f"{REPO}/blobs/uploads/", headers=headers) as answer:
        assert answer.status == 202
        location = answer.headers["Location"]
        assert int(answer.headers.get("OCI-Chunk-Min-Length", "1")) <= 1
    for at in range(3):
        ranged = {"Content-Range": f"{at}-{at}"}
        async with registry.patch(location, headers=ranged, data=BLOB[at : at + 1]) as answer:
            assert (answer.status, answer.headers["Range"]) == (202, f"0-{at}")


async def test_a_manifest_is_stored_with_the_media_type_that_it_was_pushed_with(
    registry: ClientSession,
) -> None:
    """[end-3], [end-7]: "the registry MUST store the manifest in the exact byte representation"."""
    raw = await pushed_image(registry)
    async with registry.get(f"{REPO}/manifests/1.0") as answer:
        assert answer.content_type == media.OCI_MANIFEST
        assert await answer.read() == raw


async def test_a_location_can_be_followed_as_it_is(registry: ClientSession) -> None:
    """[end-4a], [end-5], [end-6]: "the <location> MUST contain a unique ID"; it may be relative (RFC 9110,
    10.2.2), and two uploads have two."""
    first, second = await start(registry), await start(registry)
    assert first != second
    async with registry.put(first, params={"digest": digest_of(SMALL)}, data=SMALL) as answer:
        assert answer.status == 201
    assert await status_of(registry, second, "GET") == 204
    assert await status_of(registry, f"{REPO}/blobs/{ABSENT}", "GET") == 404
