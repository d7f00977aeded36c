"""Rejects JSON documents that decoders read differently. Pure.

JSON leaves open what a repeated key means, and Go's decoder, which most registries and clients use, takes
`LAYERS` for `layers`. So a document can be one image for one client and another image, or an index, for the
next, under the same digest (CVE-2021-41190). distribution, containers/image and containerd refuse documents
with the fields of two kinds; here every spelling by which two readers could differ is refused as well.

What is not ambiguous stays allowed: unknown keys, fields that are null (Go and we take them as absent), and
any key inside of annotations, where the words below mean nothing.
"""

from __future__ import annotations

import json
import re

# The words of each object in which a reader looks for some: image-spec manifest.md, image-index.md and
# descriptor.md, with those of Docker's schema 1.
_WORDS = {
    "document": (
        "schemaVersion mediaType config layers manifests subject artifactType annotations",
        "fsLayers history",
    ),
    "descriptor": ("mediaType digest size urls annotations data platform artifactType",),
    "platform": ("architecture os os.version os.features variant",),
}
# Which object is found under which key of which other.
_UNDER = {
    ("document", "config"): "descriptor",
    ("document", "subject"): "descriptor",
    ("document", "layers"): "descriptors",
    ("document", "manifests"): "descriptors",
    ("descriptor", "platform"): "platform",
}
# Folded as Go does it, and a little more: the Kelvin sign (U+212A) is a k, and the long s (U+017F) an s.
_SPELLED = {
    kind: {word.casefold(): word for line in lines for word in line.split()} for kind, lines in _WORDS.items()
}

_BEFORE_COLONS = (b" :", b"\t:", b"\n:", b"\r:")
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],]', re.DOTALL)


def is_plain(raw: bytes, members: int) -> bool:
    """Whether no key can be repeated or spelled oddly, because all there are were decoded: `members` of them,
    which is how often the bytes have the end of a key, where no blank is before a colon. A cheap proof, which
    most documents pass; False proves nothing.
    """
    return (
        raw.count(b'":') == members and b"\\" not in raw and not any(blank in raw for blank in _BEFORE_COLONS)
    )


def ambiguous_key(raw: bytes) -> str:
    """What is ambiguous about a key of a JSON document, as the end of a sentence; "" if nothing is.

    `raw` is valid JSON in UTF-8, and its root an object. Linear in the bytes; holds nothing but the words
    that were met in the objects around the place that is looked at.
    """
    open_: list[_Open] = []
    key, expects_key = "", False
    for token in map(re.Match.group, _TOKEN.finditer(raw)):
        match token:
            case b"{" | b"[":
                within = open_[-1] if open_ else None
                open_.append(_Open(_kind_of(within, key), is_array=token == b"["))
                expects_key = token == b"{"
            case b"}" | b"]":
                open_.pop()
                expects_key = False
            case b",":
                expects_key = not open_[-1].is_array
            case _ if expects_key:
                expects_key = False
                within = open_[-1]
                if within.kind in _SPELLED:
                    key = _name_of(token)
                    if said := within.meet(key):
                        return said
    return ""


class _Open:
    """An object or array around the place that is looked at."""

    __slots__ = ("is_array", "kind", "met")

    def __init__(self, kind: str, *, is_array: bool) -> None:
        self.kind = kind
        self.is_array = is_array
        self.met: set[str] = set()

    def meet(self, key: str) -> str:
        """See `ambiguous_key`; of one key."""
        word = _SPELLED[self.kind].get(key.casefold())
        if word is None:
            return ""
        if word != key:
            return f"has the key {key!r}, which some clients take for {word!r}"
        if word in self.met:
            return f"has the key {word!r} twice, and clients differ in which of them counts"
        self.met.add(word)
        return ""


def _kind_of(within: _Open | None, key: str) -> str:
    """What an object or array is that begins here; "" for what nobody reads words of."""
    if within is None:
        return "document"
    if within.is_array:
        return "descriptor" if within.kind == "descriptors" else ""
    return _UNDER.get((within.kind, key), "")


def _name_of(quoted: bytes) -> str:
    return str(json.loads(quoted)) if b"\\" in quoted else quoted[1:-1].decode()
