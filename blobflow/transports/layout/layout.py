"""`oci:DIR`: an OCI image layout (image-spec image-layout.md) as Source and Sink.

A blob comes into `blobs/<algorithm>/<encoded>` by rename(2) after its bytes had been hashed to its name and
fsynced; a tag comes into index.json, which is replaced whole while the folder's flock(2) is held. So runs of
ours may work on one layout at the same time, and a crash leaves no half content. What is under `blobs/` in a
layout that others wrote is believed to be there, never to be right: it is hashed when it is moved.
"""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from blobflow.content import BlobReader, BlobStream, Counter, Referrer, Site, Verifier, tapped
from blobflow.errors import (
    BlobflowError,
    NoSuchFile,
    NotFound,
    SizeMismatch,
    StorageError,
    UnsupportedContent,
)
from blobflow.events import HostMeter, Meter
from blobflow.oci import UNKNOWN_SIZE, Descriptor, Digest, parse_manifest
from blobflow.oci.digest import algorithm_of, encoded_of
from blobflow.oci.local_reference import path_of
from blobflow.oci.referrers import fallback_tag
from blobflow.transports.files import (
    AtomicFile,
    in_thread,
    locked_folder,
    open_range,
    remove_stale_temporaries,
    translate_os_errors,
)
from blobflow.transports.layout.cosign_save import MAX_UNLISTED_BYTES
from blobflow.transports.layout.image_names import digest_or_none
from blobflow.transports.layout.index_json import (
    EMPTY_INDEX,
    OCI_LAYOUT_FILE,
    check_blobs,
    check_manifest,
    descriptor_of,
    digest_in_path,
    parse_index_json,
    read_small,
    unambiguous_names_of,
    with_tags,
)
from blobflow.transports.layout.referrers import IndexReferrers, updated_referrers_index

_OF_LAYOUTS = frozenset({"oci-layout", "index.json", "blobs"})


class OciLayout:
    """One layout. Implements Source, Sink, Lists, Attaches and RefersAtHand; made without looking at the
    disk."""

    def __init__(self, site: Site, folder: Path, meter: HostMeter) -> None:
        self.site = site
        self._folder = folder
        self._meter = meter
        self._swept = False
        self._index: tuple[object, IndexReferrers] | None = None

    def _path(self, digest: Digest) -> Path:
        return self._folder / "blobs" / algorithm_of(digest) / encoded_of(digest)

    # Source

    async def tags(self) -> list[str]:
        """The names of all images here, in the order of index.json."""
        return unambiguous_names_of(self._attached().images())

    async def resolve(self, name: str) -> Descriptor:
        """What a name, `@n`, a digest or "" (the only image) means here."""
        if digest := digest_or_none(name):
            return descriptor_of(self._read(Descriptor("", digest, UNKNOWN_SIZE)), digest)
        return self._attached().find(name, str(self.site))

    async def referrers(self, subject: Digest) -> list[Referrer]:
        """See `Refers.referrers`."""
        try:
            return self._attached().of(subject)
        except NotFound:
            return []

    async def has_referrers(self) -> bool:
        """See `RefersAtHand.has_referrers`."""
        return self._attached().any()

    def _images(self) -> list[tuple[tuple[str, ...], Descriptor]]:
        """The entries of index.json with their names. Raises NoSuchFile where nothing is, UnsupportedContent
        where something else is."""
        path = self._folder / "index.json"
        try:
            return parse_index_json(read_small(path), str(path))
        except FileNotFoundError:
            pass
        with translate_os_errors("look at", self._folder):
            is_file = self._folder.exists() and not self._folder.is_dir()
        said = f"there is no OCI layout at {self._folder}: it has no index.json{self._other_form()}"
        if is_file:
            said = f"{self._folder} is a file, not an OCI layout; an archive is oci-archive:{self._folder}"
        kind = UnsupportedContent if is_file or not _is_free(self._visible()) else NoSuchFile
        error = kind(said)
        error.about_file = True
        raise error

    def _other_form(self) -> str:
        """What a folder is by its manifest.json, and how a layout comes of it; "" if that tells nothing."""
        with suppress(FileNotFoundError, UnsupportedContent, StorageError):
            match read_small(self._folder / "manifest.json").lstrip()[:1]:
                case b"{":
                    made = f"`skopeo copy dir:{self._folder} oci:LAYOUT` makes a layout of it"
                    return f"; it is a folder of skopeo's dir: (docker-dir for podman); {made}"
                case b"[":
                    made = f"`tar -C {self._folder} -cf FILE .` makes a docker-archive: of it"
                    return f"; it is an unpacked archive of docker; {made}"
        return ""

    def _visible(self) -> list[str]:
        """What is in the folder; nothing if it isn't there. Raises StorageError."""
        with translate_os_errors("look at", self._folder):
            try:
                return sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))
            except FileNotFoundError:
                return []

    def _attached(self) -> IndexReferrers:
        """What the entries of index.json are, as it is now; read again where the file is another one."""
        with translate_os_errors("look at", self._folder):
            try:
                about = (self._folder / "index.json").stat()
            except (FileNotFoundError, NotADirectoryError):
                about = None
        version = about and (about.st_ino, about.st_mtime_ns, about.st_size)
        if self._index is None or self._index[0] != version:
            self._index = version, IndexReferrers(self._images(), self._read, self._small_blobs)
        return self._index[1]

    def _small_blobs(self) -> Iterator[Digest]:
        """See `layout.referrers`. Raises StorageError."""
        with translate_os_errors("look at", self._folder):
            for path in sorted((self._folder / "blobs").glob("*/*")):
                digest = digest_in_path(path.relative_to(self._folder).as_posix())
                if digest is not None and path.is_file() and path.stat().st_size <= MAX_UNLISTED_BYTES:
                    yield digest

    async def read(self, manifest: Descriptor) -> bytes:
        raw = self._read(manifest)
        self._meter.bytes_read += len(raw)
        return raw

    def _read(self, manifest: Descriptor) -> bytes:
        path = self._path(manifest.digest)
        try:
            raw = read_small(path)
        except FileNotFoundError:
            raise NotFound(f"{self.site} has no manifest {manifest.digest}") from None
        check_manifest(raw, manifest, str(path))
        return raw

    @asynccontextmanager
    async def open(
        self, blob: Descriptor, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[BlobStream]:
        path = self._path(blob.digest)
        try:
            size = _size_of(path)
            if size != blob.size:
                raise SizeMismatch(str(path), expected=blob.size, actual=size)
            async with open_range(path, offset, blob.size if end is None else end) as stream:
                yield tapped(stream, Counter(self._count))
        except FileNotFoundError:
            raise NotFound(f"{self.site} has no blob {blob.digest}") from None

    def _count(self, size: int) -> None:
        self._meter.bytes_read += size

    # Sink

    async def is_empty(self) -> bool:
        """Raises StorageError for a folder of something else: a layout is not strewn into that."""
        found = self._visible()
        if not _is_free(found):
            raise StorageError(
                f"{self._folder} is no OCI layout, and not empty (it holds {found[0]!r}); name another folder"
            )
        return not found

    async def has(self, content: Descriptor) -> bool:
        """Whether the file is there, and as long as it should be."""
        path = self._path(content.digest)
        try:
            return _size_of(path) == content.size
        except FileNotFoundError:
            return False

    async def mount(self, blob: Descriptor, origin: Site) -> bool:
        """A layout is one repository: what is here is here, and nothing comes from elsewhere unread."""
        return origin.registry == self.site.registry and await self.has(blob)

    async def push(self, blob: Descriptor, reader: BlobReader) -> None:
        verifier = Verifier(blob, f"blob {blob.digest} for {self.site}")
        self._prepare()
        with AtomicFile(self._folder) as file:
            async with reader.open() as stream:
                async for chunk in stream:
                    verifier.feed(chunk)
                    file.write(chunk)
                    self._meter.bytes_written += len(chunk)
            verifier.finish()
            await in_thread(file.land, self._path(blob.digest))

    async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str] = ()) -> None:
        """Write the manifest, then its tags. A sparse index is fine here; an image without a blob is not."""
        check_manifest(raw, manifest, f"manifest {manifest.digest}")
        parsed = parse_manifest(raw, manifest.media_type, digest=manifest.digest)
        await check_blobs(self, parsed)
        self._prepare()
        with AtomicFile(self._folder) as file:
            file.write(raw)
            await in_thread(file.land, self._path(manifest.digest))
        self._meter.bytes_written += len(raw)
        if tags:
            await in_thread(self._tag, parsed.descriptor, tags)

    def _prepare(self) -> None:
        with translate_os_errors("create", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            remove_stale_temporaries(self._folder)
            self._swept = True

    def _tag(self, manifest: Descriptor, tags: Sequence[str]) -> None:
        """Let the tags name the manifest; in a thread."""
        self._change(lambda raw: with_tags(raw, manifest, tags))

    async def attach(self, subject: Digest, referrers: Sequence[Descriptor]) -> None:
        """See `Attaches.attach`, and `layout.referrers`."""
        self._prepare()
        await in_thread(self._change, lambda raw: self._with_list(raw, subject, referrers))

    def _with_list(self, raw: bytes, subject: Digest, referrers: Sequence[Descriptor]) -> bytes:
        """The index.json after what is listed for `subject` was written."""
        there = IndexReferrers(parse_index_json(raw, str(self.site)), self._read)
        made = updated_referrers_index(subject, there.list_of(subject), referrers)
        if made is None:
            return raw
        self._write(self._path(made.descriptor.digest), made.raw)
        return with_tags(raw, made.descriptor, [fallback_tag(subject)])

    def _change(self, change: Callable[[bytes], bytes]) -> None:
        """Put what `change` makes of index.json in its place; in a thread."""
        path = self._folder / "index.json"
        with locked_folder(self._folder, self._meter.waits):
            if not (self._folder / "oci-layout").exists():
                self._write(self._folder / "oci-layout", OCI_LAYOUT_FILE)
            try:
                raw = read_small(path)
                parse_index_json(raw, str(path))
            except FileNotFoundError:
                raw = EMPTY_INDEX
            self._write(path, change(raw))

    def _write(self, path: Path, content: bytes) -> None:
        with AtomicFile(self._folder) as file:
            file.write(content)
            file.land(path)


def _size_of(path: Path) -> int:
    """Bytes of a regular file. Raises FileNotFoundError, StorageError."""
    with translate_os_errors("look at", path):
        try:
            about = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            about = None
    if about is None or not stat.S_ISREG(about.st_mode):
        raise FileNotFoundError(path)
    return about.st_size


class OciLayouts:
    """The layouts of one run, each one object: see `blobflow.transports.local.LocalTransport`.

    What is written is there at once, so there is nothing to complete.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._layouts: dict[Site, OciLayout] = {}

    def source(self, site: Site) -> OciLayout:
        if site not in self._layouts:
            meter = self._meter.hosts[site.registry]
            self._layouts[site] = OciLayout(site, Path(path_of(site.registry)), meter)
        return self._layouts[site]

    sink = source

    async def complete(self) -> dict[Site, BlobflowError]:
        return {}

    def close(self) -> None: ...


def _is_free(found: Sequence[str]) -> bool:
    """Whether a layout can be written to a folder that has these: nothing, or some of a layout's."""
    return not found or not _OF_LAYOUTS.isdisjoint(found)
