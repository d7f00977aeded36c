"""Pairs as specs map them, for properties of what is derived from them."""

from __future__ import annotations

from hypothesis import strategies as st

from blobflow.engine.pairs import Pair
from blobflow.oci import Reference

DIGEST = f"sha256:{'a' * 64}"

_components = st.sampled_from(["a", "b", "c", "library", "x_y"])
paths = st.lists(_components, min_size=1, max_size=4).map("/".join)
# On docker.io nothing has one component alone.
_hub_paths = paths.map(lambda path: path if "/" in path else f"library/{path}")
tags = st.sampled_from(["1", "2", "latest"])
_digests = st.sampled_from(["", DIGEST])
_sources = st.builds(Reference, st.just("docker.io"), _hub_paths, tags, _digests) | st.builds(
    Reference, st.sampled_from(["quay.io", "127.0.0.1:5000"]), paths, tags, _digests
)


def named(reference: Reference) -> tuple[str, str, str]:
    """A reference without its digest."""
    return reference.host, reference.repository, reference.tag


@st.composite
def mappings(draw: st.DrawFn, *, renames: bool = True) -> list[Pair]:
    """Pairs of a spec: most below a prefix, some repositories elsewhere, and with `renames` some images of a
    repository elsewhere, and some tags with other names."""
    prefix = draw(st.sampled_from(["", "mirror", "a/b"]))
    made: dict[tuple[str, str, str], Pair] = {}
    places: dict[tuple[str, str], str] = {}
    for source in draw(st.lists(_sources, max_size=12)):
        path = draw(st.just(source.repository) | paths)
        repository = f"{prefix}/{path}" if prefix else path
        if not renames:
            repository = places.setdefault((source.host, source.repository), repository)
        tag = draw(st.just(source.tag) | tags) if renames else source.tag
        made[named(source)] = Pair(source, Reference("m.example.com", repository, tag))
    return list(made.values())
