"""Builds the tree of an image from its layers' entries, the lowest layer first. Pure.

The rules are those of image-spec layer.md as the tools of the containers world read them:

- paths are meant from the root, whatever they look like: `/etc`, `../etc` and `./etc` are one;
- a symbolic link above an entry is followed, within the root: where `lib` points to `usr/lib`, `lib/x` is
  `usr/lib/x`;
- a folder over a folder changes it, anything else takes the place of what was there;
- `.wh.NAME` hides what lower layers have as NAME, `.wh..wh..opq` all that they have in its folder; neither
  hides what its own layer brings, in whatever order they come;
- names that are hard links have one content, also when the first of them is hidden.

What a layer can cost is linear in its entries: a folder is looked through once a layer however often it is
hidden, and symbolic links are followed for so many steps an entry. What is held of a file is where its entry
is; what the entry says is read again with its content.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from blobflow.errors import UnsupportedContent
from blobflow.transports.archive.tar_reader import MAX_PATH

Kind = Literal["folder", "file", "symlink", "hardlink", "char", "block", "fifo"]

# Symbolic links followed in one path, as in Linux; folders inside folders, and names in one image. Real
# images are some 20 folders deep at most, with up to some 500,000 names.
_MAX_LINKS = 40
_MAX_DEPTH = 256
_MAX_NAMES = 1_000_000
_MAX_NAME_BYTES = 255  # what file systems take
# Names passed in following links, in all: `lib` to `usr/lib` is two, for each entry below it.
_LINK_STEPS = 1_000_000
_LINK_STEPS_EACH = 16
# Bytes of names, of what links point to, and of what folders and links have as attributes: half a million
# names come to 15 MB. A folder and a link are charged as much as they take besides, about; real images have
# ten files a folder and more.
_MAX_HELD = 128 * 1024 * 1024
_FOLDER_BYTES = 500
_LINK_BYTES = 500
# Bytes of all paths: a link can make them longer than those of any entry. Half a million come to 50 MB.
_MAX_PATHS = 512 * 1024 * 1024
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."  # what else begins so is aufs's own bookkeeping


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What a layer says of one path. `mtime` in nanoseconds since 1970, `size` in bytes, `device` as major
    and minor number. `target`: of a symbolic link as it is, of a hard link a path from the root."""

    path: str
    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()


class Folder:
    """A folder of the tree. `entry`: what the last layer says of it that has an entry for it, if any does."""

    __slots__ = ("above", "depth", "entry", "name", "names", "stripped")

    def __init__(self, name: str = "", above: Folder | None = None, entry: Entry | None = None) -> None:
        self.name = name
        self.above = above
        self.depth: int = 0 if above is None else above.depth + 1
        self.entry = entry
        self.names: dict[str, _Name] = {}
        self.stripped = -1  # the last layer from which on nothing is left below of those before it

    @property
    def path(self) -> str:
        """From the root, "" for the root itself."""
        names: list[str] = []
        folder = self
        while folder.above is not None:
            names.append(folder.name)
            folder = folder.above
        return "/".join(reversed(names))

    def path_of(self, name: str) -> str:
        """The path of what is in here."""
        return f"{self.path}/{name}" if self.above is not None else name


class Item:
    """What is no folder, with all its names. Its content is that of the entry `number` of layer `layer`.

    `entry` is None for a file: of half a million that would be much, and it is read again with the content.
    """

    __slots__ = ("_first", "_more", "entry", "layer", "number")

    def __init__(self, entry: Entry | None, layer: int, number: int) -> None:
        self.entry = entry
        self.layer = layer
        self.number = number
        self._first: tuple[Folder, str] | None = None
        self._more: list[tuple[Folder, str]] | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """All its paths from the root: one, and those that are hard links to it."""
        assert self._first is not None, "what is in a tree has a name"
        return tuple(folder.path_of(name) for folder, name in (self._first, *(self._more or ())))

    def named(self, folder: Folder, name: str) -> bool:
        """Note a name that it has; whether it is the first."""
        if self._first is None:
            self._first = (folder, name)
            return True
        if self._more is None:
            self._more = []
        self._more.append((folder, name))
        return False


class FileTree(msgspec.Struct, frozen=True):
    """A whole tree: folders, each before what is in it, and the rest, in the order of the layers."""

    folders: Sequence[Folder]
    items: Sequence[Item]


class _Name:
    """What a name in a folder is for, and the layer that brought it last."""

    __slots__ = ("item", "layer")

    def __init__(self, item: Folder | Item, layer: int) -> None:
        self.item = item
        self.layer = layer


def apply_layers(layers: Iterable[Iterable[Entry]]) -> FileTree:
    """What the layers come to. Raises UnsupportedContent for what no file system can be made of."""
    tree = _Tree()
    for layer, entries in enumerate(layers):
        for number, entry in enumerate(entries):
            tree.add(entry, layer, number)
    return tree.flat()


class _Tree:
    def __init__(self) -> None:
        self._root = Folder()
        self._count = 0
        self._held = 0
        self._attributes: dict[tuple[tuple[str, bytes], ...], tuple[tuple[str, bytes], ...]] = {}
        self._steps = _LINK_STEPS

    def add(self, entry: Entry, layer: int, number: int) -> None:
        self._steps += _LINK_STEPS_EACH
        path = parts_of(entry.path)
        if "\0" in entry.target:
            raise UnsupportedContent(f"the link {entry.path[:200]!r} points to no path")
        if not path:
            if entry.kind == "folder":
                self._root.entry = self._kept(entry)
            return
        if any(part.startswith(_AUFS) and part != _OPAQUE for part in path):
            return
        *above, name = path
        if any(part.startswith(_WHITEOUT) for part in above):
            raise UnsupportedContent(f"{entry.path[:200]!r} is below a whiteout, which has nothing below it")
        if name.startswith(_WHITEOUT):
            self._hide(above, name, layer)
            return
        folder = self._folder(above, layer)
        if entry.kind == "hardlink":
            self._bind(folder, name, self._linked(entry), layer)
        elif entry.kind == "file":
            self._bind(folder, name, Item(None, layer, number), layer)
        elif entry.kind != "folder":
            self._bind(folder, name, Item(self._kept(entry), layer, number), layer)
        elif (held := folder.names.get(name)) and isinstance(held.item, Folder):
            held.item.entry, held.layer = self._kept(entry), layer
        else:
            self._bind(folder, name, self._made(folder, name, self._kept(entry)), layer)

    def _kept(self, entry: Entry) -> Entry:
        """The entry as it is held: without its path, and with the attributes of others that have the same."""
        same = self._attributes.get(entry.xattrs)
        if same is None:
            self._attributes[entry.xattrs] = same = entry.xattrs
            self._hold(sum(len(key) + len(value) for key, value in same))
        self._hold(len(entry.target) + (0 if entry.kind == "folder" else _LINK_BYTES))
        return msgspec.structs.replace(entry, path="", xattrs=same)

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > _MAX_HELD:
            raise UnsupportedContent(
                f"the image has more than {_MAX_HELD} bytes of names, links and attributes; it is not "
                "unpacked"
            )

    def _made(self, above: Folder, name: str, entry: Entry | None = None) -> Folder:
        made = Folder(name, above, entry)
        self._hold(_FOLDER_BYTES)
        if made.depth > _MAX_DEPTH:
            raise UnsupportedContent(f"the image has folders {_MAX_DEPTH} deep; it is not unpacked")
        return made

    def _bind(self, folder: Folder, name: str, item: Folder | Item, layer: int) -> None:
        self._count += 1
        if self._count > _MAX_NAMES:
            raise UnsupportedContent(f"the image has more than {_MAX_NAMES} files; it is not unpacked")
        self._hold(len(name))
        folder.names[name] = _Name(item, layer)

    def _linked(self, entry: Entry) -> Item:
        *above, name = parts_of(entry.target) or ("",)
        folder = self._find(above)
        held = folder.names.get(name) if folder else None
        if held is None or isinstance(held.item, Folder):
            what = "is a folder" if held else "is not in the image"
            raise UnsupportedContent(
                f"{entry.path[:200]!r} is a hard link to {entry.target[:200]!r}, which {what}"
            )
        return held.item

    def _hide(self, above: list[str], name: str, layer: int) -> None:
        folder = self._find(above)
        if folder is None:
            return
        if name == _OPAQUE:
            _strip(folder, layer)
            return
        hidden = name.removeprefix(_WHITEOUT)
        held = folder.names.get(hidden)
        if held is not None and _stripped(held, layer):
            del folder.names[hidden]

    def _find(self, path: list[str]) -> Folder | None:
        """The folder at a path, through symbolic links; None if there is none."""
        return self._walk(path, None)

    def _folder(self, path: list[str], layer: int) -> Folder:
        """As `_find`; folders that are not there are made."""
        found = self._walk(path, layer)
        assert found is not None, "what is missing is made"
        return found

    def _walk(self, path: list[str], layer: int | None) -> Folder | None:
        todo = path[::-1]
        folder = self._root
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                folder = folder.above or folder
                continue
            held = folder.names.get(part)
            if held is None and layer is None:
                return None
            if held is None:
                self._bind(folder, part, self._made(folder, part), layer or 0)
                held = folder.names[part]
            if isinstance(held.item, Folder):
                folder = held.item
            elif held.item.entry and held.item.entry.kind == "symlink" and links < _MAX_LINKS:
                links += 1
                target = held.item.entry.target
                folder = self._root if target.startswith("/") else folder
                todo += self._followed(target)
            elif layer is None:
                return None
            else:
                what = "a symbolic link in a circle" if links == _MAX_LINKS else "no folder"
                raise UnsupportedContent(f"{'/'.join(path)[:200]!r} leads through {part!r}, which is {what}")
        return folder

    def _followed(self, target: str) -> list[str]:
        """The names in what a symbolic link points to, the last one first."""
        parts = target.split("/")
        self._steps -= len(parts)
        if self._steps < 0:
            raise UnsupportedContent(
                f"the image's symbolic links lead on for more than {_LINK_STEPS_EACH} steps a file; it is "
                "not unpacked"
            )
        return [part for part in reversed(parts) if part not in ("", ".")]

    def flat(self) -> FileTree:
        folders: list[Folder] = []
        items: list[Item] = []
        size = 0
        todo = [(self._root, 0)]
        while todo:
            folder, above = todo.pop()
            folders.append(folder)
            below: list[tuple[Folder, int]] = []
            for name, held in sorted(folder.names.items()):
                long = above + len(name.encode(errors="surrogateescape"))
                size += long
                if long > MAX_PATH or size > _MAX_PATHS:
                    what = f"a path of {long}" if long > MAX_PATH else f"paths of more than {_MAX_PATHS}"
                    raise UnsupportedContent(f"the image has {what} bytes; it is not unpacked")
                if isinstance(held.item, Folder):
                    below.append((held.item, long + 1))
                elif held.item.named(folder, name):
                    items.append(held.item)
            todo += reversed(below)
        items.sort(key=lambda item: (item.layer, item.number))
        return FileTree(folders, items)


def _strip(folder: Folder, layer: int) -> None:
    """Remove from a folder what lower layers brought: once a layer, which itself brings nothing of theirs."""
    if folder.stripped != layer:
        folder.stripped = layer
        for name, held in list(folder.names.items()):
            if _stripped(held, layer):
                del folder.names[name]


def _stripped(held: _Name, layer: int) -> bool:
    """Whether nothing is left of a name once what lower layers brought is removed."""
    if isinstance(held.item, Folder):
        _strip(held.item, layer)
        return held.layer < layer and not held.item.names
    return held.layer < layer


def parts_of(path: str) -> tuple[str, ...]:
    """The names in a path, from the root and never above it. Raises UnsupportedContent for one that no file
    system takes."""
    whole = posixpath.normpath(f"/{path}").lstrip("/")
    parts = tuple(whole.split("/")) if whole else ()
    if "\0" in whole or any(len(part.encode(errors="surrogateescape")) > _MAX_NAME_BYTES for part in parts):
        raise UnsupportedContent(f"the image has a file named {path[:300]!r}; no file system takes that")
    if len(parts) > _MAX_DEPTH:
        raise UnsupportedContent(f"the image has folders {_MAX_DEPTH} deep; it is not unpacked")
    return parts
