"""The tree that layers come to, entry by entry, the lowest layer first. Pure.

The rules are those of image-spec layer.md as the tools of the containers world read them:

- paths are meant from the root, whatever they look like: `/etc`, `../etc` and `./etc` are one;
- a symbolic link above an entry is followed, within the root: where `lib` points to `usr/lib`, `lib/x` is
  `usr/lib/x`;
- a folder over a folder changes it, anything else takes the place of what was there;
- `.wh.NAME` hides what lower layers have as NAME, `.wh..wh..opq` all that they have in its folder; neither
  hides what its own layer brings, in whatever order they come;
- names that are hard links have one content, also when the first of them is hidden.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from blobflow.errors import UnsupportedContent

Kind = Literal["folder", "file", "symlink", "hardlink", "char", "block", "fifo"]
Path = tuple[str, ...]

# Symbolic links followed in one path, as in Linux; folders inside folders, and names in one image. Real
# images are some 20 folders deep at most, with up to some 300,000 names.
_MAX_LINKS = 40
_MAX_DEPTH = 256
_MAX_NAMES = 2_000_000
_MAX_NAME_BYTES = 255  # what file systems take
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."  # what else begins so is aufs's own bookkeeping


class Entry(msgspec.Struct, frozen=True):
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


class Item(msgspec.Struct, frozen=True):
    """What is no folder, with all its names. Its content is that of the entry `number` of layer `layer`."""

    entry: Entry
    layer: int
    number: int
    paths: tuple[Path, ...]


class Flat(msgspec.Struct, frozen=True):
    """A whole tree: folders, each before what is in it (None: no layer has an entry for it), and the rest."""

    folders: dict[Path, Entry | None]
    items: tuple[Item, ...]


class _Inode:
    """One content, under any number of names."""

    def __init__(self, entry: Entry, layer: int, number: int) -> None:
        self.entry = entry
        self.layer = layer
        self.number = number


class _Folder:
    def __init__(self, entry: Entry | None = None) -> None:
        self.entry = entry
        self.names: dict[str, _Name] = {}


class _Name:
    """What a name in a folder is for, and the layer that brought it last."""

    def __init__(self, item: _Folder | _Inode, layer: int) -> None:
        self.item = item
        self.layer = layer


def flat(layers: Iterable[Iterable[Entry]]) -> Flat:
    """What the layers come to. Raises UnsupportedContent for what no file system can be made of."""
    tree = _Tree()
    for layer, entries in enumerate(layers):
        for number, entry in enumerate(entries):
            tree.add(entry, layer, number)
    return tree.flat()


class _Tree:
    def __init__(self) -> None:
        self._root = _Folder()
        self._count = 0

    def add(self, entry: Entry, layer: int, number: int) -> None:
        path = parts_of(entry.path)
        if "\0" in entry.target:
            raise UnsupportedContent(f"the link {entry.path[:200]!r} points to no path")
        if not path:
            if entry.kind == "folder":
                self._root.entry = entry
            return
        if any(part.startswith(_AUFS) and part != _OPAQUE for part in path):
            return
        *above, name = path
        if any(part.startswith(_WHITEOUT) for part in above):
            raise UnsupportedContent(f"{entry.path!r} is below a whiteout, which has nothing below it")
        if name.startswith(_WHITEOUT):
            self._hide(above, name, layer)
            return
        folder = self._folder(above, layer)
        if entry.kind == "hardlink":
            self._bind(folder, name, self._linked(entry), layer)
        elif entry.kind != "folder":
            self._bind(folder, name, _Inode(entry, layer, number), layer)
        elif (held := folder.names.get(name)) and isinstance(held.item, _Folder):
            held.item.entry, held.layer = entry, layer
        else:
            self._bind(folder, name, _Folder(entry), layer)

    def _bind(self, folder: _Folder, name: str, item: _Folder | _Inode, layer: int) -> None:
        self._count += 1
        if self._count > _MAX_NAMES:
            raise UnsupportedContent(f"the image has more than {_MAX_NAMES} files; it is not unpacked")
        folder.names[name] = _Name(item, layer)

    def _linked(self, entry: Entry) -> _Inode:
        *above, name = parts_of(entry.target) or ("",)
        folder = self._find(above)
        held = folder.names.get(name) if folder else None
        if held is None or isinstance(held.item, _Folder):
            what = "is a folder" if held else "is not in the image"
            raise UnsupportedContent(f"{entry.path!r} is a hard link to {entry.target!r}, which {what}")
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

    def _find(self, path: list[str]) -> _Folder | None:
        """The folder at a path, through symbolic links; None if there is none."""
        return self._walk(path, None)

    def _folder(self, path: list[str], layer: int) -> _Folder:
        """As `_find`; folders that are not there are made."""
        found = self._walk(path, layer)
        assert found is not None, "what is missing is made"
        return found

    def _walk(self, path: list[str], layer: int | None) -> _Folder | None:
        above: list[tuple[str, _Folder]] = []
        todo = path[::-1]
        links = 0
        while todo:
            part = todo.pop()
            folder = above[-1][1] if above else self._root
            if part == "..":
                above = above[:-1]
                continue
            held = folder.names.get(part)
            if held is None and layer is None:
                return None
            if held is None:
                self._bind(folder, part, _Folder(), layer or 0)
                held = folder.names[part]
            if isinstance(held.item, _Folder):
                above.append((part, held.item))
                if len(above) > _MAX_DEPTH:
                    raise UnsupportedContent(f"the image has folders {_MAX_DEPTH} deep; it is not unpacked")
            elif held.item.entry.kind == "symlink" and links < _MAX_LINKS:
                links += 1
                target = held.item.entry.target
                above = [] if target.startswith("/") else above
                todo += [part for part in target.split("/") if part not in ("", ".")][::-1]
            elif layer is None:
                return None
            else:
                what = "a symbolic link in a circle" if links == _MAX_LINKS else "no folder"
                raise UnsupportedContent(f"{'/'.join(path)!r} leads through {part!r}, which is {what}")
        return above[-1][1] if above else self._root

    def flat(self) -> Flat:
        folders: dict[Path, Entry | None] = {}
        names: dict[_Inode, list[Path]] = {}
        for path, item in _visit((), self._root):
            if isinstance(item, _Folder):
                folders[path] = item.entry
            else:
                names.setdefault(item, []).append(path)
        ordered = sorted(names.items(), key=lambda pair: (pair[0].layer, pair[0].number))
        items = (Item(inode.entry, inode.layer, inode.number, tuple(paths)) for inode, paths in ordered)
        return Flat(folders, tuple(items))


def _visit(path: Path, folder: _Folder) -> Iterator[tuple[Path, _Folder | _Inode]]:
    yield path, folder
    for name, held in sorted(folder.names.items()):
        if isinstance(held.item, _Folder):
            yield from _visit((*path, name), held.item)
        else:
            yield (*path, name), held.item


def _strip(folder: _Folder, layer: int) -> None:
    """Remove from a folder what lower layers brought."""
    folder.names = {name: held for name, held in folder.names.items() if not _stripped(held, layer)}


def _stripped(held: _Name, layer: int) -> bool:
    """Whether nothing is left of a name once what lower layers brought is removed."""
    if isinstance(held.item, _Folder):
        _strip(held.item, layer)
        return held.layer < layer and not held.item.names
    return held.layer < layer


def parts_of(path: str) -> Path:
    """The names in a path, from the root and never above it. Raises UnsupportedContent for one that no file
    system takes."""
    whole = posixpath.normpath(f"/{path}").lstrip("/")
    parts = tuple(whole.split("/")) if whole else ()
    if "\0" in whole or any(len(part.encode(errors="surrogateescape")) > _MAX_NAME_BYTES for part in parts):
        raise UnsupportedContent(f"the image has a file named {path[:300]!r}; no file system takes that")
    if len(parts) > _MAX_DEPTH:
        raise UnsupportedContent(f"the image has folders {_MAX_DEPTH} deep; it is not unpacked")
    return parts
