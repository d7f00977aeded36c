"""Plan files: writes a saved plan as JSON, and reads one that may come from anyone.

    {"version": 2, "sum": "sha256:…", "plan": {…}}

`sum` is the digest of the plan without the white space between its tokens, so that a file that was cut,
damaged or edited is found out, whichever part that is. It proves nothing about who made the file: what it
may ask for is `saved.plan.check_saved_plan`'s to say. Version 1 (blobflow before the plan was what runs) held
no steps that could be carried out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

import msgspec

from blobflow.engine.plan.planned import Planned
from blobflow.engine.saved.plan import SavedPlan, check_saved_plan, to_saved_plan
from blobflow.errors import DamagedFile, ForeignFile, InvalidConfig, UsageError
from blobflow.oci import digest_of
from blobflow.printable import printable

PLAN_VERSION = 2
# Bytes. A step with its needs is about 370, and an image of four platforms some 30 steps at the most, so that
# this is a plan for tens of thousands of images.
MAX_PLAN_BYTES = 256 * 1024 * 1024
# How a plan file begins, whatever its white space: what does so and is no JSON was cut or spoilt.
_BEGINNING = re.compile(rb'\s*\{\s*"version"\s*:\s*\d{1,7}\s*,\s*"sum"\s*:')

_ANEW = "make the plan anew with `blobflow plan --out`"


class _Head(msgspec.Struct, frozen=True):
    version: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    price: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    plan: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    sum: str
    plan: msgspec.Raw


def save_plan(
    planned: Planned, *, compress: str = "gzip", policy_files: Mapping[str, tuple[str, str]] = {}
) -> bytes:
    """The plan as a file's content, for `load_plan`. Pairs that failed to plan are not in it.

    `compress`: the run's, where sources are docker archives. `policy_files`: see `to_saved_plan`. Raises
    UsageError for one that is too large, or names a file whose name can't be kept.
    """
    saved = to_saved_plan(planned, compress=compress, policy_files=policy_files)
    try:
        plan = msgspec.json.encode(saved)
    except UnicodeEncodeError as error:
        raise UsageError(
            f"a plan file can't keep the name {printable(error.object)}, which is not UTF-8; rename that"
        ) from None
    content = b'{"version":%d,"sum":"%s",\n"plan":{\n%s}}\n' % (
        PLAN_VERSION,
        digest_of(plan).encode(),
        b",\n".join(
            _field(encoded, getattr(saved, name))
            for name, encoded in zip(saved.__struct_fields__, saved.__struct_encode_fields__, strict=True)
            if getattr(saved, name) is not msgspec.UNSET
        ),
    )
    if len(content) > MAX_PLAN_BYTES:
        raise UsageError(
            f"the plan has {len(content)} bytes, more than the {MAX_PLAN_BYTES} that a plan file may;"
            " plan fewer images at once"
        )
    return content


def _field(name: str, value: object) -> bytes:
    """A member of the plan, with a line for each image or step, for diff and grep."""
    if isinstance(value, tuple):
        lines = b"[\n" + b",\n".join(map(msgspec.json.encode, value)) + b"]"
    else:
        lines = msgspec.json.encode(value)
    return b'"%s":%s' % (name.encode(), lines)


def load_plan(content: bytes, name: str) -> SavedPlan:
    """The plan of a file. `name` is the file's, for messages.

    Raises with one sentence: ForeignFile for what is no plan, DamagedFile for one that is not as it was
    saved, InvalidConfig for one of another version, or that can't be carried out.
    """
    if len(content) > MAX_PLAN_BYTES:
        raise InvalidConfig(f"{name} has more than the {MAX_PLAN_BYTES} bytes that a plan file may")
    try:
        head = msgspec.json.decode(content, type=_Head)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        if _BEGINNING.match(content):
            raise DamagedFile(f"{name} is not as it was saved: {error}; {_ANEW}") from None
        raise ForeignFile(f"{name} is not a plan saved by blobflow: {error}") from None
    version = head.version
    if head.price is not msgspec.UNSET and head.plan is msgspec.UNSET:
        raise ForeignFile(
            f"{name} is not a plan saved by blobflow: it is what `plan --json` prints; save one with"
            " `blobflow plan --out`"
        )
    if version != PLAN_VERSION:
        age = "an older" if version < PLAN_VERSION else "a newer"
        raise InvalidConfig(
            f"{name} is a plan of version {version}, saved by {age} blobflow; this one carries out version"
            f" {PLAN_VERSION}: {_ANEW}"
        )
    try:
        document = msgspec.json.decode(content, type=_File)
        plan = msgspec.json.format(bytes(document.plan), indent=-1)
        if digest_of(plan) != document.sum:
            raise DamagedFile(f"{name} is not as it was saved: it was edited, or damaged; {_ANEW}")
        saved = msgspec.json.decode(plan, type=SavedPlan)
        check_saved_plan(saved)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidConfig(f"{name} is no plan that can be carried out: {error}") from None
    return saved
