"""Conditional requests (RFC 9110, section 13). Pure."""

from __future__ import annotations


def matches_etag(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match lists this entity tag; weak tags match as strong ones do."""
    if header is None:
        return False
    return header.strip() == "*" or etag in {tag.strip().removeprefix("W/") for tag in header.split(",")}
