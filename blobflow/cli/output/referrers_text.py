"""The tree of what hangs on an image, as people read it. Pure: values → lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from blobflow.cli.output.units import count_text, one_line, size_text

if TYPE_CHECKING:
    from blobflow.operations.artifacts.tree import ReferrerTree, TreeNode

_FOUND = {"api": "referrers API", "tag": "fallback tag", "index": "index.json"}
_NO_TYPE = "no artifact type"
_ATTESTS = "vnd.docker.reference.digest"

# A line and the lines below it, each of which may have some in turn.
_Branch = tuple[str, Sequence["_Branch"]]


def referrers_lines(tree: ReferrerTree) -> list[str]:
    """The image, below it what refers to it by artifact type, then what is in it and what refers to that."""
    root = tree.root
    lines = [
        one_line(str(tree.reference)),
        f"{root.mention.digest}  {_kind(root)}, {size_text(root.mention.size)}",
    ]
    lines += _drawn(_below(root))
    found = tree.referrers
    if not found:
        return [*lines, _nothing(tree)]
    size = size_text(sum(node.size for node in found.values()))
    return [*lines, f"{count_text(len(found), 'referrer')}, {size}"]


def _nothing(tree: ReferrerTree) -> str:
    if any(node.referrer is not None for node in tree.root.walk()):
        return "nothing that is listed counts"
    if tree.artifact_types:
        return f"nothing of {'this type' if len(tree.artifact_types) == 1 else 'these types'} refers to it"
    return "nothing refers to it"


def _kind(root: TreeNode) -> str:
    assert root.manifest is not None, "it was read"
    if root.manifest.is_index:
        return "index"
    return one_line(root.manifest.artifact_type) or "image"


def _below(node: TreeNode) -> list[_Branch]:
    groups = groupby(node.referrers, key=lambda each: each.artifact_type)
    by_type: list[_Branch] = [
        (one_line(kind or _NO_TYPE), [(_referrer(each), _below(each)) for each in group])
        for kind, group in groups
    ]
    return by_type + [(_part(each), _below(each)) for each in node.manifests]


def _referrer(node: TreeNode) -> str:
    assert node.referrer is not None, "it was found in a list"
    words: list[str] = [node.mention.digest]
    if node.because:
        words.append(one_line(node.because))
    else:
        words += [size_text(node.size), *([one_line(node.created)] if node.created else [])]
    words.append(one_line(_FOUND.get(node.referrer.how, f"cosign's tag {node.referrer.tag}")))
    return "  ".join([*words, *(["shown elsewhere"] if node.shown else [])])


def _part(node: TreeNode) -> str:
    """What an index lists: an image of a platform, an attestation of BuildKit's, another index."""
    mention = node.mention
    attested = (mention.annotations or {}).get(_ATTESTS)
    if attested:
        words = [f"attestation of {attested}"]
    else:
        words = [str(mention.platform) if mention.platform else "no platform"]
    words += [
        mention.digest,
        *([node.because] if node.because else []),
        *(["shown elsewhere"] if node.shown else []),
    ]
    return "  ".join(map(one_line, words))


def _drawn(branches: Sequence[_Branch], before: str = "") -> Iterator[str]:
    for number, (line, below) in enumerate(branches, 1):
        last = number == len(branches)
        yield f"{before}{'└── ' if last else '├── '}{line}"
        yield from _drawn(below, before + ("    " if last else "│   "))
