"""What a file was found to name, and the rules by which a text is an image, none, or can't be told. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from blobflow.deployment_files.contract import NamedImage, NamePart, PartKind, UntoldImage
from blobflow.deployment_files.source_text import Piece
from blobflow.errors import InvalidConfig, InvalidReference
from blobflow.oci import Reference, parse_reference
from blobflow.oci.reference import looks_like_host, refuse_login

# Places of one file; the longest lists that are known have some thousands.
MAX_PLACES = 100_000
# No name is longer: host, repository, tag and digest.
_LONGEST = 700
_CUT_OFF = re.compile(r"(?:@|@sha256:?|:)[\"']?\Z")
# How the field writes what is filled in later, and what that is. Tried in order.
_FILLED_IN = (
    ("ko://", "ko:// is a Go import path, which ko builds and replaces"),
    ("${{", "is an expression, known when the workflow runs"),
    ("{{", "is a template"),
    ("{%", "is a template"),
    ("$[[", "is an input of the pipeline without a default here"),
    ("$(", "is a parameter, known when it runs"),
    ("$", "has a variable without a default here"),
)
# A variable with a default, and nothing around it.
_DEFAULT = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*:?-([^\\]*)\}")
# The order within its line of what stands in the file in another way than it is read.
_NOWHERE = (0, 0)
_BRACES = re.compile(r"\{\{[^{}]*\}\}")
_DIGEST = re.compile(r"@sha(?:256|512):[0-9a-f]{64}")
_NAME_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")
# Names of settings about images that are not the image's name.
_OTHER_WORDS = frozenset(
    [
        "policy",
        "pull",
        "secret",
        "secrets",
        "tag",
        "tags",
        "registry",
        "registries",
        "repository",
        "repositories",
        "repo",
        "prefix",
        "suffix",
        "version",
        "path",
        "dir",
        "directory",
        "url",
        "uri",
        "digest",
        "size",
        "width",
        "height",
        "quality",
        "count",
        "limit",
        "timeout",
        "format",
        "mime",
    ]
)
# Pictures, disks and the like, of which people say image, too.
_FILE = re.compile(
    r"(?i)\.(?:png|jpe?g|gif|svg|webp|avif|bmp|ico|tiff?|qcow2|vmdk|vhdx?|iso|img|raw"
    r"|tar|tgz|gz|xz|zst|ya?ml|json|txt)\Z"
)
_NO_NAMES = frozenset(
    [
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "none",
        "null",
        "always",
        "never",
        "ifnotpresent",
        "default",
        "auto",
        "latest",
    ]
)


def reference_or_reason(text: str) -> Reference | str:
    """The image that a text names, or why it can't be told: the end of a sentence."""
    for mark, reason in _FILLED_IN:
        if mark in text:
            return reason
    if _CUT_OFF.search(text):
        return f"is cut off after {text.rstrip(chr(34) + chr(39))[-1:]}"
    if len(text) > _LONGEST:
        return "is too long for an image's name"
    try:
        reference = parse_reference(text)
    except InvalidReference as error:
        return f"is no image's name: {error.message}"
    return "is a layout or an archive, not an image in a registry" if reference.transport else reference


def likely_text(text: str) -> str:
    """The whole name of the image that a text would be; "" if it would be none."""
    found = reference_or_reason(text)
    return "" if isinstance(found, str) else str(found)


def is_filled_in(text: str) -> bool:
    """Whether a part of the text comes from somewhere else: a template, variable, parameter, or a build."""
    return any(mark in text for mark, _ in _FILLED_IN)


def is_surely_image(text: str) -> bool:
    """Whether a text that may be anything is an image's name by its looks: it has a digest, or a registry
    with a dot or port, a repository, and a tag that is no port, as in `a.example/b:8080`."""
    if len(text) > _LONGEST or "://" in text or isinstance(reference_or_reason(text), str):
        return False
    if _DIGEST.search(text):
        return True
    host, slash, rest = text.partition("/")
    tag = rest.partition(":")[2]
    is_port = tag.isdecimal() and len(tag) > 3 and "/" not in rest
    return bool(slash and tag) and looks_like_host(host) and host != "localhost" and not is_port


def has_digest(text: str) -> bool:
    """Whether a text is an image's name with a digest."""
    text = text.strip()
    return bool(_DIGEST.search(text)) and is_surely_image(text)


def is_likely_image(text: str) -> bool:
    """Whether a text whose name says that it is an image looks like one: it has more than a word, and is not
    the path of a picture."""
    named = not isinstance(reference_or_reason(text), str)
    return named and any(mark in text for mark in "/:@") and not text.startswith("/") and not _is_file(text)


def _is_file(text: str) -> bool:
    """Whether a text without a tag is rather a file's name."""
    return ":" not in text.rpartition("/")[2] and _FILE.search(text) is not None


def is_bare(text: str) -> bool:
    """Whether a name is one word: no registry, no tag, no digest."""
    return not any(mark in text for mark in "/:@")


def words_of(name: str) -> list[str]:
    """The words of a name in any of the usual ways of writing it, in lower case."""
    return [word.lower() for word in _NAME_WORDS.findall(name)]


def names_an_image(name: str) -> bool:
    """Whether a variable, flag or key of this name says of its value that it is an image: its last word is
    `image`, or it begins so, as RELATED_IMAGE_PROXY."""
    words = words_of(name)
    if not words:
        return False
    if words[-1] in ("image", "images"):
        return "enable" not in words and "disable" not in words
    return "image" in words[:-1] and _OTHER_WORDS.isdisjoint(words[words.index("image") + 1 :])


class Findings:
    """What a file names, each place once. Every method takes the piece of the text as it stands there."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.images: list[tuple[int, tuple[int, int], NamedImage]] = []
        self.untold: list[tuple[int, tuple[int, int], UntoldImage]] = []
        self.open_names: list[NamedImage] = []
        self._places: set[tuple[int, int, str]] = set()

    def is_new(self, piece: Piece) -> bool:
        """Whether nothing has been said of the place yet; from now on it has."""
        start, end = piece.source.place(piece.start, piece.end) or (piece.line, -1)
        place = (start, end, "" if end >= 0 else piece.text)
        if place in self._places:
            return False
        if len(self._places) >= MAX_PLACES:
            raise InvalidConfig(f"{self.path} names over {MAX_PLACES} images")
        self._places.add(place)
        return True

    def pass_over(self, piece: Piece) -> None:
        """A piece that is no image that is pulled, whatever it looks like to others."""
        self.is_new(piece.strip())

    def name(self, piece: Piece, field: str, *, likely: str = "", reason: str = "") -> None:
        """A piece that is an image's name: what it names, or that it can't be told, with a `reason` if there
        is a better one than its looks, and what it is `likely`."""
        piece = piece.strip().without("docker://")
        written = piece.text
        if not written:
            return
        found = reference_or_reason(written)
        if isinstance(found, str):
            self.leave(piece, field, reason or found, likely)
        else:
            self.add(piece, written, found, field, piece.part())

    def guess(self, piece: Piece, field: str, name: str = "") -> bool:
        """A piece that may be anything, under this name: an image if both say so. Whether it was one."""
        piece = piece.strip().without("docker://")
        text = piece.text
        if is_surely_image(text) or _is_meant(text, name):
            self.name(piece, field)
            return True
        return False

    def expand(
        self,
        piece: Piece,
        text: str | None,
        field: str,
        reason: str = "",
        likely: str = "",
        *,
        default: Piece | None = None,
    ) -> None:
        """A piece with variables, and what their defaults make of it; None if they have none. `default`: of a
        piece that is one variable, where its default stands."""
        piece = piece.strip()
        if text is None:
            self.leave(piece, field, reason or "has a variable without a default here", likely)
            return
        text = text.strip().removeprefix("docker://")
        found = reference_or_reason(text) if text else "is empty by its defaults"
        if isinstance(found, str):
            self.leave(piece, field, reason or found, likely)
        else:
            self.add(piece, piece.text, found, field, _literal_name(default or piece))

    def join(
        self,
        pieces: Sequence[tuple[PartKind, Piece]],
        text: str,
        field: str,
        *,
        at: Piece | None = None,
        replaceable: bool = True,
    ) -> None:
        """Parts that stand apart, and the name that they make. `at`: the piece that has the line.
        `replaceable`: whether another image is named by replacing them."""
        pieces = [(kind, piece.strip()) for kind, piece in pieces]
        at = at or pieces[0][1]
        written = " + ".join(piece.text for _, piece in pieces)
        found = reference_or_reason(text)
        parts = [part for kind, piece in pieces for part in piece.part(kind)]
        if isinstance(found, str):
            self.leave(at, field, found, written=written, parts=parts)
            return
        whole = replaceable and len(parts) == len(pieces)
        self.add(at, written, found, field, tuple(parts) if whole else ())

    def add(
        self, at: Piece, written: str, reference: Reference, field: str, parts: tuple[NamePart, ...]
    ) -> None:
        """An image, with the piece that has its line."""
        if self.is_new(at):
            image = NamedImage(self.path, at.line, written, reference, field, parts)
            self.images.append((at.line, at.source.place(at.start, at.end) or _NOWHERE, image))

    def leave(
        self,
        at: Piece,
        field: str,
        reason: str,
        likely: str = "",
        *,
        written: str = "",
        parts: Sequence[NamePart] = (),
    ) -> None:
        """A place that can't be told. A login in front of a host is not shown."""
        if self.is_new(at):
            shown = _without_login(written or at.text)[:_LONGEST]
            place = UntoldImage(self.path, at.line, shown, field, reason, likely, tuple(parts))
            self.untold.append((at.line, at.source.place(at.start, at.end) or _NOWHERE, place))

    def keep_open(self, piece: Piece, field: str) -> None:
        """A piece that is an image's name without its tag, which stands elsewhere."""
        piece = piece.strip()
        found = reference_or_reason(piece.text)
        if not isinstance(found, str):
            name = NamedImage(self.path, piece.line, piece.text, found, field, piece.part("name"))
            self.open_names.append(name)

    def in_order(self) -> tuple[list[NamedImage], list[UntoldImage]]:
        """All of them, by line."""
        images = sorted(self.images, key=lambda each: each[:2])
        untold = sorted(self.untold, key=lambda each: each[:2])
        return [each[2] for each in images], [each[2] for each in untold]


def _is_meant(text: str, name: str) -> bool:
    """Whether a text under this name is meant as an image, though it may be cut off or filled in."""
    words = words_of(name)
    cut_off = "/" in text and " " not in text and bool(_CUT_OFF.search(text))
    if cut_off and looks_like_host(text.partition("/")[0]) and "image" in words:
        return True
    if not text or not names_an_image(name):
        return False
    around = _BRACES.sub("", text)
    if is_filled_in(text) and " " not in around and (words[-1] == "image" or "/" in around):
        return True
    if cut_off or is_likely_image(text):
        return True
    bare = words[-1] == "image" and text.lower() not in _NO_NAMES and not text.isdigit()
    return bare and not _is_file(text) and not isinstance(reference_or_reason(text), str)


def _without_login(text: str) -> str:
    try:
        refuse_login(text)
    except InvalidReference:
        return f"***@{text.rpartition('@')[2]}"
    return text


def _literal_name(piece: Piece) -> tuple[NamePart, ...]:
    """The registry and repository of a name whose variables are all in its tag; of one that is the default of
    a variable, the same of that, or all of it."""
    while (default := _DEFAULT.fullmatch(piece.text)) and _is_balanced(default[1]):
        piece = piece.cut(*default.span(1))
    if "$" not in piece.text:
        return piece.part()
    text = piece.text
    dollar = text.find("$")
    colon = text.rfind(":", 0, dollar)
    if dollar < 0 or colon <= text.rfind("/", 0, dollar) or colon < 1:
        return ()
    return piece.cut(0, colon).part("name") if not is_filled_in(text[:colon]) else ()


def _is_balanced(text: str) -> bool:
    """Whether each brace that closes was opened in the text: else it is no default, but several variables."""
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0
