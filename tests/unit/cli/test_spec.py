"""Spec files and lists: a table of what is read, and a table of what is refused and how it is said."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from blobflow.cli.inputs.copy_arguments import copy_pairs
from blobflow.cli.inputs.expansion import expand, make_pairs
from blobflow.cli.inputs.image_list import parse_image_list
from blobflow.cli.inputs.requests import RegistryPrefix, parse_registry_prefix
from blobflow.cli.inputs.spec import parse_spec
from blobflow.engine.pairs import Pair
from blobflow.errors import BlobflowError, InvalidConfig, InvalidReference, UsageError

D = "sha256:" + "ab" * 32
HUB = RegistryPrefix("docker.io")
MIRROR = RegistryPrefix("127.0.0.1:5000", "mirror")


def spec_pairs(text: str, name: str) -> Sequence[Pair]:
    return expand(parse_spec(text, name), {}).pairs


def shown(pairs: Sequence[Pair]) -> list[str]:
    return [f"{pair.source} {pair.target}" for pair in pairs]


def spec(images: str, defaults: str = "{targets: [127.0.0.1:5000/mirror]}") -> str:
    return f"version: 1\ndefaults: {defaults}\nimages:\n{images}\n"


def test_the_spec_of_the_documentation_is_read() -> None:
    text = """\
version: 1
defaults: {source: docker.io, targets: [127.0.0.1:5000/mirror]}
images:
  - rancher/pause:3.1
  - {image: rancher/coredns-coredns, tags: [1.8.3], target: dns/coredns}
"""
    assert shown(spec_pairs(text, "s.yaml")) == [
        "docker.io/rancher/pause:3.1 127.0.0.1:5000/mirror/rancher/pause:3.1",
        "docker.io/rancher/coredns-coredns:1.8.3 127.0.0.1:5000/mirror/dns/coredns:1.8.3",
    ]


ENTRIES = {
    "no tag is latest": ("- a/b", ["docker.io/a/b:latest M/a/b:latest"]),
    "official images are in library on both sides": (
        "- alpine:3",
        ["docker.io/library/alpine:3 M/library/alpine:3"],
    ),
    "a host of its own goes before the default source": ("- quay.io/a/b:1", ["quay.io/a/b:1 M/a/b:1"]),
    "a digest is put under itself": (f"- a/b@{D}", [f"docker.io/a/b@{D} M/a/b@{D}"]),
    "a digest with a tag is put under the tag": (f"- a/b:1@{D}", [f"docker.io/a/b:1@{D} M/a/b:1"]),
    "several tags": (
        "- {image: a/b, tags: ['1.10', v2]}",
        ["docker.io/a/b:1.10 M/a/b:1.10", "docker.io/a/b:v2 M/a/b:v2"],
    ),
    "a digest among the tags": (
        f"- {{image: a/b, tags: ['{D}', x]}}",
        [f"docker.io/a/b@{D} M/a/b@{D}", "docker.io/a/b:x M/a/b:x"],
    ),
    "a source of its own": (
        "- {image: a/b:1, source: quay.io/org}\n- {image: c:1, source: 'r:1'}\n- d:1",
        [
            "quay.io/org/a/b:1 M/a/b:1",
            "r:1/c:1 M/c:1",
            "docker.io/library/d:1 M/library/d:1",
        ],
    ),
    "a host goes before a source of its own": (
        "- {image: ghcr.io/a/b:1, source: quay.io/org}",
        ["ghcr.io/a/b:1 M/a/b:1"],
    ),
    "a target path": ("- {image: a/b:1, target: c/d}", ["docker.io/a/b:1 M/c/d:1"]),
    "a docker:// in front": ("- docker://ghcr.io/a/b:1", ["ghcr.io/a/b:1 M/a/b:1"]),
}


@pytest.mark.parametrize(("images", "expected"), ENTRIES.values(), ids=ENTRIES)
def test_an_entry_becomes_these_pairs(images: str, expected: list[str]) -> None:
    pairs = spec_pairs(spec(images), "s.yaml")
    assert shown(pairs) == [line.replace(" M/", " 127.0.0.1:5000/mirror/") for line in expected]


@pytest.mark.parametrize(
    ("default", "image", "wanted"),
    [
        ("", "", "auto"),
        (", referrers: always", "", "always"),
        (", referrers: always", ", referrers: auto", "auto"),
        (", referrers: always", ", referrers: off", "off"),
        (", referrers: off", "", "off"),
        (", referrers: 'off'", "", "off"),
    ],
)
def test_referrers_are_looked_for_as_the_image_or_else_the_defaults_say(
    default: str, image: str, wanted: str
) -> None:
    """YAML reads a bare `off` as a no."""
    pairs = spec_pairs(spec(f"- {{image: 'a/b:1'{image}}}", f"{{targets: [t:1/m]{default}}}"), "s.yaml")
    assert [pair.referrers for pair in pairs] == [wanted]


@pytest.mark.parametrize("said", ["on", "sometimes"])
def test_other_words_for_referrers_are_refused(said: str) -> None:
    with pytest.raises(BlobflowError, match="referrers"):
        spec_pairs(spec(f"- {{image: 'a/b:1', referrers: {said}}}"), "s.yaml")


def test_every_image_goes_to_every_target() -> None:
    pairs = spec_pairs(spec("- a/b:1\n- c:2", "{source: 'r:1/x', targets: [t1:1, 't2:2/p/']}"), "s.yaml")
    assert shown(pairs) == [
        "r:1/x/a/b:1 t1:1/a/b:1",
        "r:1/x/a/b:1 t2:2/p/a/b:1",
        "r:1/x/c:2 t1:1/c:2",
        "r:1/x/c:2 t2:2/p/c:2",
    ]


REFUSED = {
    "a float tag": (
        spec("- {image: a/b, tags: [1.10]}"),
        "s.yaml line 4: images[0].tags[0] is 1.10, which YAML reads as a number; quote it: '1.10'",
    ),
    "an int tag": (
        spec("- x\n- {image: a/b, tags: [3]}"),
        "line 5: images[1].tags[0] is 3, which YAML reads",
    ),
    "a date tag": (spec("- {image: a/b, tags: [2024-01-02]}"), "a date; quote it: '2024-01-02'"),
    "a word that YAML takes for a bool": (spec("- {image: a/b, tags: [on]}"), "yes or no; quote it: 'on'"),
    "a number for an image": (spec("- 1.10"), "images[0] is 1.10, which YAML reads as a number"),
    "an impossible date": (
        spec("- {image: a/b, tags: [2024-99-02]}"),
        "s.yaml line 4: 2024-99-02 can't be read: month must be",
    ),
    "a mistyped key in an entry": (
        spec("- {image: a/b,\n   tag: [x]}"),
        "s.yaml line 5: unknown key `tag`; did you mean `tags`?",
    ),
    "a mistyped key at the top": (
        "version: 1\nimage: [a]\nimages: [a]",
        "s.yaml line 2: unknown key `image`; did you mean `images`?",
    ),
    "a mistyped key in the defaults": (
        spec("- a", "{sources: docker.io, targets: [r:1]}"),
        "line 2: unknown key `sources`; did you mean `source`?",
    ),
    "a key like no other": (
        spec("- a").replace("defaults", "zzz"),
        "unknown key `zzz`; known are version, images, defaults",
    ),
    "a key twice": (
        spec("- {image: a, image: b}"),
        "s.yaml line 4: `image` is there already, at line 4",
    ),
    "a word that is none of those": (
        spec("- a", "{source: docker.io, targets: [r:1],\n  missing-platform: ignore}"),
        "s.yaml line 3: defaults.missing-platform is 'ignore'; it can be fail or skip",
    ),
    "another version": (
        spec("- a").replace("1\n", "2\n", 1),
        "s.yaml has version 2; this blobflow reads version 1",
    ),
    "no version": ("images: [a]", "s.yaml line 1: it misses the field `version`"),
    "no images": (spec("").replace("images:\n", "images: []"), "s.yaml names no image"),
    "no targets": (spec("- a", "{source: docker.io}"), "s.yaml has no targets"),
    "no mapping": ("- a\n- b", "s.yaml is not a spec"),
    "a list of images": ("a/b:1\nc:2", "a list of images goes with --from, --to and --images"),
    "an empty file": ("", "s.yaml is not a spec"),
    "broken YAML": ("version: 1\nimages: [a", "s.yaml line 2 is not YAML"),
    "a mapping in place of a list": (
        spec("- {image: a, tags: {x: y}}"),
        "unknown key `x`; known are include, exclude, semver, newest, by, prereleases",
    ),
    "a bad reference": (
        spec("- x\n- A/b:1"),
        "s.yaml line 5: 'A/b:1' is not a reference: repository names are",
    ),
    "a bad tag": (spec("- {image: a/b, tags: [a/b]}"), "s.yaml line 4: 'a/b' is not a reference: bad tag"),
    "a bad digest": (spec("- {image: a/b, tags: ['md5:1']}"), "s.yaml line 4: 'md5:1' has an algorithm"),
    "a registry alone": (
        spec("- quay.io"),
        "s.yaml line 4: 'quay.io' names a registry and no repository; add",
    ),
    "a bad target path": (spec("- {image: a/b, target: X}"), "s.yaml line 4: 'X' is not a reference"),
    "a bad target": (
        spec("- a", "{targets: ['bad host']}"),
        "s.yaml line 2: defaults.targets: 'bad host' is not a",
    ),
    "a tag and tags": (spec("- {image: 'a/b:1', tags: [x]}"), "line 4: a/b:1 has `tags` as well as a tag"),
    "no tags in tags": (spec("- {image: a/b, tags: []}"), "line 4: a/b has no tags in its list"),
    "an image twice": (
        spec("- a/b:1\n- c\n- {image: a/b, tags: ['1']}"),
        "s.yaml line 6: docker.io/a/b:1 is listed already, at s.yaml line 4",
    ),
    "a target twice": (spec("- a", "{targets: ['r:1', 'r:1/']}"), "the target r:1 is given twice"),
    "a mirror onto itself": (
        spec("- a/b", "{source: 'r:1', targets: ['r:1']}"),
        "r:1/a/b:latest is both source",
    ),
    "nested too deeply": ("[" * 5000, "nested too deeply"),
}


@pytest.mark.parametrize(("text", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_bad_spec_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        spec_pairs(text, "s.yaml")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def listed(text: str, source: RegistryPrefix = HUB, *, any_host: bool = False) -> list[str]:
    return shown(make_pairs(parse_image_list(text, "L", source, any_host=any_host), [MIRROR]))


LISTS = {
    "comments and blank lines": (
        "# set\n\n a/b:1  # why\r\nc/d\n",
        HUB,
        ["docker.io/a/b:1 M/a/b:1", "docker.io/c/d:latest M/c/d:latest"],
    ),
    "the source's own host": (
        "r:1/a/b:1\nR:1/c:2",
        RegistryPrefix("r:1"),
        ["r:1/a/b:1 M/a/b:1", "r:1/c:2 M/c:2"],
    ),
    "docker.io's other names": (
        "index.docker.io/a/b:1\nregistry-1.docker.io/c/d:1\ndocker.io/e:1\nDocker.IO/library/f:1",
        HUB,
        [
            "docker.io/a/b:1 M/a/b:1",
            "docker.io/c/d:1 M/c/d:1",
            "docker.io/library/e:1 M/library/e:1",
            "docker.io/library/f:1 M/library/f:1",
        ],
    ),
    "a whole name below the prefix": (
        "r:1/p/a/b:1\na/b:2",
        RegistryPrefix("r:1", "p"),
        ["r:1/p/a/b:1 M/a/b:1", "r:1/p/a/b:2 M/a/b:2"],
    ),
    "docker.io's library as prefix": (
        "docker.io/alpine:3\nalpine:4",
        RegistryPrefix("docker.io", "library"),
        ["docker.io/library/alpine:3 M/alpine:3", "docker.io/library/alpine:4 M/alpine:4"],
    ),
    "a dot at a registry": (
        "my.app:1\nnode.js:18",
        RegistryPrefix("r:1"),
        ["r:1/my.app:1 M/my.app:1", "r:1/node.js:18 M/node.js:18"],
    ),
    "a dot under a prefix of docker.io": (
        "my.app:1",
        RegistryPrefix("docker.io", "me"),
        ["docker.io/me/my.app:1 M/my.app:1"],
    ),
    "one component as written": ("pause:3", RegistryPrefix("r:1"), ["r:1/pause:3 M/pause:3"]),
    "one component at docker.io": ("pause:3", HUB, ["docker.io/library/pause:3 M/library/pause:3"]),
    "one component under a prefix of docker.io": (
        "pause:3",
        RegistryPrefix("docker.io", "me"),
        ["docker.io/me/pause:3 M/pause:3"],
    ),
    "a digest": (f"a/b@{D}", HUB, [f"docker.io/a/b@{D} M/a/b@{D}"]),
    "an IPv6 host": ("[::1]:5000/a/b:1", RegistryPrefix("[::1]:5000"), ["[::1]:5000/a/b:1 M/a/b:1"]),
}
ANY_HOST = {
    "a host is dropped": (
        "quay.io/a/b:1\nlocalhost:1/c/d:2",
        RegistryPrefix("r:1", "p"),
        ["r:1/p/a/b:1 M/a/b:1", "r:1/p/c/d:2 M/c/d:2"],
    ),
    "docker.io's from a mirror of it": (
        "docker.io/a/b:1\ndocker.io/library/c:1",
        RegistryPrefix("r:1"),
        ["r:1/a/b:1 M/a/b:1", "r:1/library/c:1 M/library/c:1"],
    ),
    "an IPv6 host": ("[::1]:5000/a/b:1", HUB, ["docker.io/a/b:1 M/a/b:1"]),
    "the source's own": ("r:1/p/a:1", RegistryPrefix("r:1", "p"), ["r:1/p/p/a:1 M/p/a:1"]),
}


@pytest.mark.parametrize(("text", "source", "expected"), LISTS.values(), ids=LISTS)
def test_a_list_becomes_these_pairs(text: str, source: RegistryPrefix, expected: list[str]) -> None:
    assert listed(text, source) == [line.replace(" M/", " 127.0.0.1:5000/mirror/") for line in expected]


@pytest.mark.parametrize(("text", "source", "expected"), ANY_HOST.values(), ids=ANY_HOST)
def test_hosts_are_dropped_for_who_wants_that(text: str, source: RegistryPrefix, expected: list[str]) -> None:
    found = listed(text, source, any_host=True)
    assert found == [line.replace(" M/", " 127.0.0.1:5000/mirror/") for line in expected]


WHOLE_NAMES = {
    "each line's own host": (
        "quay.io/a/b:1\nr:1/c@" + D + "\nalpine:3",
        [
            "quay.io/a/b:1 M/a/b:1",
            f"r:1/c@{D} M/c@{D}",
            "docker.io/library/alpine:3 M/library/alpine:3",
        ],
    ),
    "docker.io's other names": ("index.docker.io/e:1", ["docker.io/library/e:1 M/library/e:1"]),
}


@pytest.mark.parametrize(("text", "expected"), WHOLE_NAMES.values(), ids=WHOLE_NAMES)
def test_without_a_source_a_name_s_own_host_is_it(text: str, expected: list[str]) -> None:
    found = shown(make_pairs(parse_image_list(text, "L", None), [MIRROR]))
    assert found == [line.replace(" M/", " 127.0.0.1:5000/mirror/") for line in expected]


STRAYS = {
    "another registry": (
        "a/b:1\n\nquay.io/x/y:1",
        HUB,
        "L line 3: quay.io/x/y:1 is of quay.io, and --from is docker.io; leave --from out to take each "
        "image from the host in its name, or take what docker.io has of that name with --any-host",
    ),
    "docker.io by another of its names": (
        "registry-1.docker.io/x/y:1",
        RegistryPrefix("r:1"),
        "L line 1: registry-1.docker.io/x/y:1 is of docker.io, and --from is r:1; leave --from out ",
    ),
    "several, told of once": ("q.io/a\nb\nr.io/c\ns.io/d", HUB, "L line 1: q.io/a is of q.io, "),
    "another port": (
        "r:2/x/y:1",
        RegistryPrefix("r:1"),
        "L line 1: r:2/x/y:1 is of r:2, and --from is r:1; ",
    ),
    "no port": (
        "r.io/x/y:1",
        RegistryPrefix("r.io:443"),
        "L line 1: r.io/x/y:1 is of r.io, and --from is r.io:443; ",
    ),
    "by digest": (f"q.io/x@{D}", HUB, f"L line 1: q.io/x@{D} is of q.io, and --from is docker.io; "),
    "with skopeo's word": ("docker://q.io/x:1", HUB, "L line 1: docker://q.io/x:1 is of q.io, "),
    "beside the prefix": (
        "r:1/p/a:1\nr:1/q/a:1",
        RegistryPrefix("r:1", "p"),
        "L line 2: r:1/q/a:1 is not in r:1/p, as --from says; leave its host out for a name below that, ",
    ),
    "the prefix is whole components": (
        "r:1/pp/a:1",
        RegistryPrefix("r:1", "p"),
        "L line 1: r:1/pp/a:1 is not in r:1/p,",
    ),
    "of one component beside it": (
        "docker.io/a:1",
        RegistryPrefix("docker.io", "me"),
        "L line 1: docker.io/a:1 is not in",
    ),
}


@pytest.mark.parametrize(("text", "source", "sentence"), STRAYS.values(), ids=STRAYS)
def test_a_name_of_another_host_is_refused_by_line(text: str, source: RegistryPrefix, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        listed(text, source)
    said = str(caught.value)
    assert said.startswith(sentence)
    assert "--any-host" in said
    assert said.endswith("(and 2 more lines)") is ("s.io" in text)


BAD_LISTS = {
    "empty": ("", "L names no image"),
    "only comments": ("# a\n\n  #b", "L names no image"),
    "a lock file": ("# a\nlock: 1\nimages: []", "L is a lock file, not a list; --images-from L takes"),
    "a duplicate": ("a/b:1\n\nc\na/b:1", "L line 4: docker.io/a/b:1 is listed already, at L line 1"),
    "a duplicate under its whole name": (
        "docker.io/a/b\na/b:latest",
        "L line 2: docker.io/a/b:latest is listed already, at L line 1",
    ),
    "two words": ("a b", "L line 1: 'a b' is not a reference"),
    "a registry alone": ("a\nquay.io", "L line 2: 'quay.io' names a registry and no repository; add a"),
    "a registry and a tag": ("127.0.0.1:5000:1", "L line 1: '127.0.0.1:5000:1' names a registry and no"),
    "upper case": ("\nA:1", "L line 2: 'A:1' is not a reference: repository names are lower case"),
    "too long under the prefix": ("a" * 252, "L line 1: "),
}


@pytest.mark.parametrize(("text", "sentence"), BAD_LISTS.values(), ids=BAD_LISTS)
def test_a_bad_list_is_refused_by_line(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        listed(text)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("docker.io", HUB),
        ("index.docker.io", HUB),
        ("docker://r:1/a/b/", RegistryPrefix("r:1", "a/b")),
        ("[::1]:5000", RegistryPrefix("[::1]:5000")),
        ("registry/x", RegistryPrefix("registry", "x")),
    ],
)
def test_a_place_is_a_host_and_perhaps_a_prefix(text: str, place: RegistryPrefix) -> None:
    assert parse_registry_prefix(text) == place


@pytest.mark.parametrize("text", ["", "r:1/A", "r:99999", "https://r", "r/a:1", "r/a@" + D])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_registry_prefix(text)


COPIES = {
    "tag of the source": ("r:1/a:1", ["t:1/b"], ["r:1/a:1 t:1/b:1"]),
    "latest is written as asked": ("r:1/a:1", ["t:1/b:latest"], ["r:1/a:1 t:1/b:latest"]),
    "no tag anywhere": ("r:1/a", ["t:1/b"], ["r:1/a:latest t:1/b:latest"]),
    "from a digest": (f"r:1/a@{D}", ["t:1/b"], [f"r:1/a@{D} t:1/b:latest"]),
    "a digest under itself": (f"r:1/a@{D}", [f"t:1/b@{D}"], [f"r:1/a@{D} t:1/b@{D}"]),
    "docker.io's defaults": (
        "alpine",
        ["docker://me/x"],
        ["docker.io/library/alpine:latest docker.io/me/x:latest"],
    ),
    "several targets": ("r:1/a:1", ["t:1/b", "u:1/c:2"], ["r:1/a:1 t:1/b:1", "r:1/a:1 u:1/c:2"]),
}


@pytest.mark.parametrize(("source", "targets", "expected"), COPIES.values(), ids=COPIES)
def test_copy_aims_so(source: str, targets: list[str], expected: list[str]) -> None:
    assert shown(copy_pairs(source, targets)) == expected


@pytest.mark.parametrize(
    ("source", "targets", "kind", "sentence"),
    [
        ("r:1/a:1", ["t:1/b", "t:1/b:1"], UsageError, "the target t:1/b:1 is given twice"),
        ("r:1/a:1", ["r:1/a"], UsageError, "r:1/a:1 is both source and target"),
        ("r:1/a:1", [f"t:1/b@{D}"], UsageError, "content decides the digest"),
        ("dir:/tmp/x", ["t:1/b"], InvalidReference, "dir: is not a transport"),
        ("r:1/A", ["t:1/b"], InvalidReference, "lower case"),
    ],
)
def test_copy_refuses(source: str, targets: list[str], kind: type[BlobflowError], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        copy_pairs(source, targets)


def test_no_target_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no target"):
        make_pairs(parse_image_list("a", "L", HUB), [])


def test_a_spec_is_refused_as_configuration() -> None:
    with pytest.raises(InvalidConfig):
        spec_pairs("version: 3\nimages: [a]", "s.yaml")


def test_places_may_be_urls_which_say_whether_their_hosts_speak_tls() -> None:
    request = parse_spec(
        "version: 1\n"
        "defaults: {source: 'https://127.0.0.1:5001', targets: ['http://t.example/m', 'u.example/m/']}\n"
        "images: [{image: a:1}, {image: b:1, source: 'http://s.example/x'}]\n",
        "f.yml",
    )
    assert [str(image.source) for image in request.images] == ["127.0.0.1:5001", "s.example/x"]
    assert [str(target) for target in request.targets] == ["t.example/m", "u.example/m"]
    assert {host: own.http for host, own in request.hosts.items()} == {
        "127.0.0.1:5001": False,
        "t.example": True,
        "s.example": True,
    }
    with pytest.raises(UsageError, match=r"f\.yml.*: r\.example is given as https:// and as http://"):
        parse_spec(
            "{version: 1, images: [a],"
            " defaults: {source: 'https://r.example', targets: ['http://r.example/m']}}",
            "f.yml",
        )
