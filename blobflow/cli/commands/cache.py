"""`blobflow cache`: look after the store on disk, also while others use it.

Where there is no store yet there is nothing to list and nothing to do, which is no error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec

from blobflow.cli.options.run import cache_dir_option, max_size_option
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.output.units import count_text, one_line, size_text, table
from blobflow.cli.runtime.event_loop import run_loop
from blobflow.cli.settings import cache_folder
from blobflow.cli.verb import VerbFamily
from blobflow.errors import IntegrityError, StorageError, UsageError

if TYPE_CHECKING:
    from blobflow.events import Event
    from blobflow.transports.store import Store
    from blobflow.transports.store.inventory import BlobInfo

_json_option = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")


@click.group("cache", cls=VerbFamily)
def verb() -> None:
    """Look after the store: what runs keep on disk, and what they remember. A `serve` root is one, too."""


@contextmanager
def _open_store(named: Path | None, *, read_only: bool | None = False) -> Iterator[Store | None]:
    """The store, open; None if there is none. `read_only` None opens it read-only if it can't be written."""
    from blobflow.transports.store import Store

    root = _store_root(named)
    if read_only is None:
        read_only = not os.access(root, os.W_OK)  # says no on a read-only file system to root, too
    try:
        absent = not root.exists() or (root.is_dir() and not any(root.iterdir()))
    except OSError as error:
        raise StorageError(f"can't read {root}: {error.strerror or error}") from None
    if absent:
        yield None
        return
    with closing(Store.open(root, read_only=read_only, observer=_print_warning)) as store:
        yield store


def _store_root(named: Path | None) -> Path:
    root = cache_folder(named)
    if root is None:
        raise UsageError("there is no HOME, so the store's place is unknown; name it with --cache-dir DIR")
    return root


def _print_warning(event: Event) -> None:
    from blobflow.cli.options.output import OutputOptions
    from blobflow.cli.output.event_text import event_line

    line = event_line(event, OutputOptions())
    if line:
        print_lines(line, err=True)


@verb.command("ls", short_help="List the blobs, the least recently used first.")
@cache_dir_option
@_json_option
def ls(cache_dir: Path | None, as_json: bool) -> None:
    """List the blobs: digest, size, last use, and whether they are in use or served under a tag (kept).

    The least recently used first: the order in which gc takes them.
    """
    from blobflow.transports.store import inventory

    with _open_store(cache_dir, read_only=True) as store:
        blobs = inventory.list_blobs(store) if store else []
    if as_json:
        write_stdout(json.dumps([_blob_document(blob) for blob in blobs], indent=2))
    elif blobs:
        print_lines(*table([_blob_row(blob) for blob in blobs]))


def _blob_row(blob: BlobInfo) -> tuple[str, ...]:
    used = datetime.fromtimestamp(blob.used).isoformat(" ", "minutes")
    return blob.digest, size_text(blob.size), used, "kept" if blob.kept else ""


def _blob_document(blob: BlobInfo) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(blob)
    return document


@verb.command("du", short_help="Sum up what the store takes.")
@cache_dir_option
@_json_option
def du(cache_dir: Path | None, as_json: bool) -> None:
    """Sum up: blobs, how much of them is kept, downloads that were begun, and what is free on the disk."""
    from blobflow.transports.store import inventory

    with _open_store(cache_dir, read_only=True) as store:
        usage = inventory.disk_usage(store) if store else inventory.DiskUsage(0, 0, 0, 0, 0, 0)
        place = str(store.root) if store else str(cache_folder(cache_dir))
    if as_json:
        write_stdout(json.dumps({"store": place, **msgspec.to_builtins(usage)}, indent=2))
        return
    rows = [
        ("store", one_line(place) if store else f"{one_line(place)} (there is none)"),
        ("blobs", f"{usage.blobs}, {size_text(usage.blob_bytes)}"),
        ("kept", size_text(usage.kept_bytes)),
        ("begun", f"{usage.partials}, {size_text(usage.partial_bytes)}"),
    ]
    if store:
        rows.append(("free", size_text(usage.free_bytes)))
    print_lines(*table(rows))


@verb.command("verify", short_help="Hash every blob; drop what is damaged.")
@cache_dir_option
@_json_option
def verify(cache_dir: Path | None, as_json: bool) -> None:
    """Hash every blob against its name. A damaged one is dropped, and fetched again when it is needed.

    A store that can't be written, as on a read-only file system, is checked all the same, and left as it is.
    """
    checked: list[BlobInfo] = []
    damaged: list[BlobInfo] = []
    left = False
    with _open_store(cache_dir, read_only=None) as store:
        if store:
            left = store.read_only
            run_loop(_verify(store, checked, damaged, told=not as_json))
    if as_json:
        document = {"blobs": len(checked), "damaged": [blob.digest for blob in damaged]}
        write_stdout(json.dumps(document, indent=2))
    elif not damaged:
        amount = size_text(sum(blob.size for blob in checked))
        print_lines(f"{count_text(len(checked), 'blob')}, {amount}: nothing is damaged")
    if damaged:
        fate = (
            f"are left, since {_store_root(cache_dir)} can't be written; verify it where it can"
            if left
            else "are dropped; runs fetch them again, what was pushed to a registry has to be pushed again"
        )
        raise IntegrityError(f"{len(damaged)} of {count_text(len(checked), 'blob')} were damaged and {fate}")


async def _verify(store: Store, checked: list[BlobInfo], damaged: list[BlobInfo], *, told: bool) -> None:
    from blobflow.transports.store import inventory

    async for blob, error in inventory.verify_blobs(store):
        checked.append(blob)
        if error is not None:
            damaged.append(blob)
            if told:
                fate = "damaged" if store.read_only else "dropped"
                print_lines(f"{fate}: {blob.digest}, {size_text(blob.size)}: {error}")


@verb.command("gc", short_help="Remove what nobody needs.")
@cache_dir_option
@max_size_option(
    "Remove blobs, the least recently used first, until they take at most so much (20GB, 512MiB)."
)
def gc(cache_dir: Path | None, max_size: int | None) -> None:
    """Remove what nobody needs: downloads that were given up and, with --max-size, blobs.

    What a running blobflow uses, and what a tag served from here needs, stays in any case.
    """
    from blobflow.transports.store import gc

    with _open_store(cache_dir) as store:
        swept = run_loop(gc.collect_garbage(store, max_size)) if store else gc.GcResult(0, 0, 0, 0, 0)
    print_lines(
        f"{count_text(swept.blobs, 'blob')} removed, {size_text(swept.blob_bytes)}; "
        f"{count_text(swept.partials, 'download')} given up, {size_text(swept.partial_bytes)}; "
        f"{size_text(swept.left_bytes)} of blobs left"
    )


@verb.command("rm", short_help="Remove some blobs.")
@cache_dir_option
@click.argument("digests", metavar="DIGEST...", nargs=-1, required=True)
def rm(cache_dir: Path | None, digests: tuple[str, ...]) -> None:
    """Remove these blobs: all of them, or none if one is in use, needed by a served tag, or not there."""
    from blobflow.oci import parse_digest
    from blobflow.transports.store import gc

    wanted = [parse_digest(digest) for digest in digests]
    with _open_store(cache_dir) as store:
        if store is None:
            raise StorageError(f"there is no store at {cache_folder(cache_dir)}, so no blob {wanted[0]}")
        gone = gc.remove_blobs(store, wanted)
    print_lines(f"{count_text(len(gone), 'blob')} removed, {size_text(sum(blob.size for blob in gone))}")


@verb.command("share", short_help="Let a group of users share the store, or nobody else.")
@cache_dir_option
@click.option(
    "--group",
    metavar="GROUP",
    help="The group, by name or number. [default: the group of the store's folder]",
)
@click.argument("state", type=click.Choice(("on", "off")))
def share(cache_dir: Path | None, group: str | None, state: Literal["on", "off"]) -> None:
    """Let the users of a group share the store (on), or its owner alone use it (off), as from the start.

    A shared store has folders of mode 2770 and files of mode 0660. It is made if there is none yet. For its
    owner, or root. Processes that use the store now have to be started again to see it.
    """
    from blobflow.transports.store import Store

    if group is not None and state == "off":
        raise UsageError("--group goes with on; a store that is not shared has no group")
    number = None if group is None else _group(group)
    root = _store_root(cache_dir)
    with closing(Store.open(root, observer=_print_warning)):
        left = Store.share(root, shared=state == "on", group=number)
    whose = f"shared by the group {_group_of(root)}" if state == "on" else "its owner's alone"
    print_lines(f"the store {root} is {whose}")
    if left:
        print_lines(
            f"{count_text(left, 'file')} of others could not be changed; as root, they can be", err=True
        )


def _group_of(path: Path) -> str:
    """The name of its group; the number of one that has no name here."""
    try:
        return path.group()
    except KeyError:
        return str(path.stat().st_gid)


def _group(text: str) -> int:
    """The number of a group. Raises UsageError."""
    import grp

    try:
        return int(text) if text.isdecimal() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise UsageError(f"there is no group {text!r} on this machine") from None
