"""Mirror places: where images have their place in a mirror, derived from what a run maps to what.

What nodes are told, and what files are rewritten to, are rules: all of a registry, or all below a prefix, is
below another name. `places_of_pairs` finds the fewest that map every pair as it was mapped. Two pairs of a
repository that no rule can both say, and tags that have another name in the mirror, are kept as they are.

The theory is that of compressing routing tables (Draves, King, Venkatachary, Zill: "Constructing Optimal IP
Routing Tables", 1999): repositories are a tree by their components; from the leaves up, each node has the
targets that most of its children could inherit from it; from the root down, a node that can't inherit gets a
rule. A rule that is no whole registry's then goes down to the last node that all of its repositories share,
since what was said of `base/nginx` is no promise for the rest of `library`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import msgspec

from blobflow.engine.pairs import Pair
from blobflow.errors import InvalidReference, UsageError
from blobflow.oci import Reference, parse_reference
from blobflow.oci.local_reference import transport_of
from blobflow.oci.reference import check_host, check_repository, looks_like_host


class PlaceRule(msgspec.Struct, frozen=True, order=True):
    """Everything below `source` is below `target`, with the rest of its repository's name and its tag
    unchanged; a repository that is `source` itself is `target`.

    `source` is a host, or a host and the first components of a repository; or "" for every registry, whose
    host is left out. `exact`: the one repository `source` alone.
    """

    source: str
    target: str
    exact: bool = False

    def target_of(self, name: str) -> str | None:
        """The place of `HOST/REPOSITORY`, or of a prefix of one; None where the rule is not for it."""
        if name == self.source:
            return self.target
        if self.exact:
            return None
        if not self.source:
            path = name.partition("/")[2]
            return f"{self.target}/{path}" if path else self.target
        if name.startswith(f"{self.source}/"):
            return self.target + name[len(self.source) :]
        return None

    def __str__(self) -> str:
        return f"{self.source or 'every registry'} is at {self.target}"


class RenamedImage(msgspec.Struct, frozen=True, order=True):
    """One image whose place no rule says, as its tag has another name in the mirror. Both have a tag, or the
    source a digest alone."""

    source: Reference
    target: Reference

    def __str__(self) -> str:
        return f"{self.source} is at {self.target}"


class MirrorPlaces(msgspec.Struct, frozen=True, dict=True):
    """The rules of a mirror, most specific first. Several mirrors in order are several `MirrorPlaces`.

    `renamed`: images that are elsewhere than the rules say; these go before the rules.
    """

    rules: tuple[PlaceRule, ...]
    renamed: tuple[RenamedImage, ...] = ()

    def place_of(self, image: Reference) -> Reference | None:
        """The image's place in the mirror, its tag and digest kept; None where no rule is for it. What is
        below the mirror already is in its place."""
        key = image.host, image.repository
        target = self._renamed.get((*key, image.tag or image.digest))
        if target is not None:
            return msgspec.structs.replace(target, digest=image.digest or target.digest)
        place = self.target_of("/".join(key))
        if place is None:
            return None
        host, _, repository = place.partition("/")
        return Reference(host, repository, image.tag, image.digest)

    def target_of(self, name: str) -> str | None:
        """The place of `HOST/REPOSITORY`, or of a prefix of one, by the rules alone."""
        for source in _prefixes_of(name):
            rule = self._rules.get(source)
            found = None if rule is None else rule.target_of(name)
            if rule is not None and found is not None:
                is_there = not rule.source and f"{name}/".startswith(f"{rule.target}/")
                return name if is_there else found
        return None

    @cached_property
    def _rules(self) -> dict[str, PlaceRule]:
        return {rule.source: rule for rule in self.rules}

    @cached_property
    def _renamed(self) -> dict[tuple[str, str, str], Reference]:
        """The places of renamed images, by host, repository, and the tag or else the digest."""
        return {
            (each.source.host, each.source.repository, each.source.tag or each.source.digest): each.target
            for each in self.renamed
        }


def _prefixes_of(name: str) -> Iterator[str]:
    """The name itself, what it is below, and last what stands for every registry."""
    while name:
        yield name
        name = name.rpartition("/")[0]
    yield ""


def places_below(mirror: str) -> MirrorPlaces:
    """What `sync … --to MIRROR` does with a list of images, and nothing else said: every image, without its
    host, is below `mirror` (`HOST[/prefix]`). Raises InvalidReference."""
    return MirrorPlaces((PlaceRule("", _checked_prefix(mirror)),))


def places_under(source: str, mirror: str) -> MirrorPlaces:
    """What `sync --from SOURCE --to MIRROR` does with a list of images: what is below `source` is below
    `mirror` (each `HOST[/prefix]`). Raises InvalidReference."""
    return MirrorPlaces((PlaceRule(_checked_prefix(source), _checked_prefix(mirror)),))


def _checked_prefix(text: str) -> str:
    if transport_of(text):
        raise InvalidReference(f"{text[:300]!r} is no registry, and only a registry is a mirror")
    host, slash, prefix = text.strip().rstrip("/").partition("/")
    return f"{check_host(host)}/{check_repository(prefix, text)}" if slash else check_host(host)


def places_of_pairs(pairs: Sequence[Pair]) -> MirrorPlaces:
    """The fewest rules by which each pair's source has the place of its target.

    A pair without tags or digests stands for a whole repository, and one with a source that is a registry
    alone for all of it. Of a source with several targets the first counts: several mirrors are several calls.
    An image from a layout or archive is known by the name that it has there, which begins with a host.

    Raises UsageError for a target that is no registry, and for a name in a layout that has no host.
    """
    first: dict[Reference, Reference] = {}
    for pair in pairs:
        if pair.target.transport:
            raise UsageError(f"{pair.target} is no registry, and only a registry is a mirror")
        source = _pulled_name(pair.source)
        # Whoever names the tag means the same image, with its digest or without.
        first.setdefault(msgspec.structs.replace(source, digest="") if source.tag else source, pair.target)
    repositories: dict[str, Counter[str]] = {}
    for source, target in first.items():
        repositories.setdefault(_name(source), Counter())[_name(target)] += 1
    # Of one repository's targets the one that most images have, the first of several such.
    whole = {name: targets.most_common(1)[0][0] for name, targets in repositories.items()}
    renamed = [
        RenamedImage(source, target)
        for source, target in first.items()
        if whole[_name(source)] != _name(target) or (source.tag and source.tag != target.tag)
    ]
    return MirrorPlaces(tuple(_most_specific_first(_fewest_rules(whole))), tuple(sorted(renamed)))


def _pulled_name(source: Reference) -> Reference:
    """The name by which nodes pull an image: its own, or the one that it has in a layout or archive."""
    if not source.transport:
        return source
    name = source.tag
    if not looks_like_host(name.partition("/")[0]) or "/" not in name:
        raise UsageError(
            f"{source} has no registry in its name, so it is not known what nodes would pull it as"
        )
    named = parse_reference(name)
    return msgspec.structs.replace(named, digest=source.digest or named.digest)


def _name(reference: Reference) -> str:
    return f"{reference.host}/{reference.repository}" if reference.repository else reference.host


def _most_specific_first(rules: Iterable[PlaceRule]) -> list[PlaceRule]:
    return sorted(rules, key=lambda rule: (-rule.source.count("/"), rule.source))


class _Node:
    """A component of repositories' names. `own`: the target of the repository that ends here; `could`: the
    targets that a rule here may have, so that most children need none of their own."""

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.own = ""
        self.could: list[str] = []

    def repositories(self, name: str) -> Iterator[tuple[str, str]]:
        """All that end here or below, with their targets."""
        stack = [(name, self)]
        while stack:
            at, node = stack.pop()
            if node.own:
                yield at, node.own
            stack += [(f"{at}/{component}", child) for component, child in node.children.items()]


def _fewest_rules(whole: dict[str, str]) -> Iterator[PlaceRule]:
    """The rules for repositories, given by their full names with their targets'."""
    registries: dict[str, _Node] = {}
    for name, target in whole.items():
        host, *components = name.split("/")
        node = registries.setdefault(host, _Node())
        for component in components:
            node = node.children.setdefault(component, _Node())
        node.own = target
    for host, node in registries.items():
        _find_candidates(node)
        yield from _rules_at(host, node)


def _find_candidates(root: _Node) -> None:
    """Fill in `could` from the leaves up. Names have at most 128 components, but no recursion needs that."""
    order = [root]
    for node in order:  # grows while it is walked: parents before children
        order += node.children.values()
    for node in reversed(order):
        if node.own:
            node.could = [node.own]
            continue
        counts: Counter[str] = Counter()
        for component, child in node.children.items():
            counts.update(lifted for each in child.could if (lifted := _lifted(each, component)))
        most = max(counts.values(), default=0)
        node.could = sorted((each for each in counts if counts[each] == most), key=lambda t: (len(t), t))


def _lifted(target: str, component: str) -> str:
    """The target of the parent from which a child inherits `target`; "" if there is none."""
    above, slash, last = target.rpartition("/")
    return above if slash and last == component else ""


def _rules_at(host: str, root: _Node) -> Iterator[PlaceRule]:
    stack: list[tuple[str, _Node, str]] = [(host, root, "")]
    while stack:
        name, node, inherited = stack.pop()
        if node.could and inherited not in node.could:
            inherited = node.could[0]
            yield _narrowed(name, node, inherited) if node is not root else PlaceRule(name, inherited)
        stack += [
            (f"{name}/{component}", child, f"{inherited}/{component}" if inherited else "")
            for component, child in node.children.items()
        ]


def _narrowed(name: str, node: _Node, target: str) -> PlaceRule:
    """The rule as close above the repositories that need it as it can be."""
    rule = PlaceRule(name, target)
    covered = [each for each, place in node.repositories(name) if rule.target_of(each) == place]
    shared = covered[0].split("/")
    for each in covered[1:]:
        components = each.split("/")
        while components[: len(shared)] != shared:
            shared.pop()
    source = "/".join(shared)
    below = sum(1 for _ in _descend(node, source[len(name) + 1 :]).repositories(source))
    return PlaceRule(source, target + source[len(name) :], exact=below == 1 and source == covered[0])


def _descend(node: _Node, path: str) -> _Node:
    for component in path.split("/") if path else ():
        node = node.children[component]
    return node
