"""skopeo's sync YAML and regsync.yml: what is read of them, what can't be honoured, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from blobflow.cli.inputs.expansion import expand
from blobflow.cli.inputs.requests import MirrorRequest, RegistryPrefix
from blobflow.cli.inputs.spec_formats import detect_format, read_spec
from blobflow.cli.options.images import SpecFormat
from blobflow.errors import InvalidConfig, UsageError
from blobflow.oci import parse_platform
from blobflow.oci.tag_selection.rules import TagRules
from blobflow.operations.tags.search import ChosenTags, TagSearch
from blobflow.transports.registry import Credentials, HostSettings, TlsSettings

D = "sha256:" + "ab" * 32

# The example of skopeo-sync(1), with hosts of nobody.
SKOPEO = """\
registry.example.com:
    images:
        busybox: []
        redis:
            - "1.0"
            - 2.10
            - "sha256:abababababababababababababababababababababababababababababababab"
    images-by-semver:
        alpine: ">= 3.12.0"
    images-by-tag-regex:
        nginx: ^1\\.13\\.[12]-alpine-perl$
    credentials:
        username: john
        password: this is a secret
    tls-verify: true
    cert-dir: /home/john/certs
quay.example.com:
    tls-verify: false
    images:
        coreos/etcd:
            - latest
"""

# After regsync's own example, with hosts of nobody.
REGSYNC = """\
x-sched-a: &sched-a "15 01 * * *"
version: 1
creds:
  - registry: localhost:5000
    tls: disabled
    scheme: http
  - registry: docker.io
    user: "{{env \\"HUB_USER\\"}}"
    pass: '{{ env "HUB_TOKEN" }}'
    reqPerSec: 2.5
    mirrors: [cache.example.com]
defaults:
  ratelimit:
    min: 100
    retry: 15m
  parallel: 2
  platforms: [linux/amd64, local]
sync:
  - source: busybox:1.10
    target: localhost:5000/library/busybox:stable
    type: image
    schedule: *sched-a
  - source: alpine
    target: localhost:5000/library/alpine
    type: repository
    platform: linux/arm64
    tags:
      allow: [3, 3\\.\\d+]
      deny: [3.0]
  - source: registry.example.com
    target: localhost:5000/all
    type: registry
    repos: {deny: [old/.*]}
"""


def read(text: str, targets: str = "", form: SpecFormat = "auto", **more: bool) -> MirrorRequest:
    places = (RegistryPrefix(*targets.split("/", 1)),) if targets else ()
    environ: Mapping[str, str] = {"HUB_USER": "me", "HUB_TOKEN": "secret"}
    return read_spec(text, "f.yml", places, form, environ=environ, **more)


def exact(asked: MirrorRequest) -> list[str]:
    """The pairs of what needs no search."""
    found: dict[TagSearch, tuple[ChosenTags, ...]] = dict.fromkeys(asked.searches, ())
    return [f"{pair.source} {pair.target}" for pair in expand(asked, found).pairs]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (SKOPEO, "skopeo"),
        (REGSYNC, "regsync"),
        ("version: 1\nimages: [a]", "blobflow"),
        ("{}", "blobflow"),
        ("version: 1\nimage: [a]", "blobflow"),
        ("sync: x", "blobflow"),
        ("{r: {images: {a: []}}, version: 1}", "blobflow"),
    ],
)
def test_a_format_is_recognised_by_its_top_level(text: str, form: str) -> None:
    assert detect_format(text, "f.yml") == form


def test_skopeos_example_is_read() -> None:
    asked = read(SKOPEO, "t:1/mirror")
    assert exact(asked) == [
        "registry.example.com/redis:1.0 t:1/mirror/redis:1.0",
        "registry.example.com/redis:2.10 t:1/mirror/redis:2.10",
        f"registry.example.com/redis@{D} t:1/mirror/redis@{D}",
        "quay.example.com/coreos/etcd:latest t:1/mirror/etcd:latest",
    ]
    assert asked.searches == [
        TagSearch("registry.example.com", "busybox"),
        TagSearch("registry.example.com", "nginx", TagRules((r"^1\.13\.[12]-alpine-perl$",), anywhere=True)),
        TagSearch("registry.example.com", "alpine", TagRules(semver=(">= 3.12.0",), ranges="masterminds")),
    ]
    assert asked.warnings == ()
    assert asked.hosts == {
        "registry.example.com": HostSettings(
            verify=True, credentials=Credentials("john", "this is a secret")
        ),
        "quay.example.com": HostSettings(verify=False),
    }


def test_scoped_keeps_host_and_path() -> None:
    text = "{quay.example.com/org: {images: {etcd: [v1]}}, docker.io: {images: {redis: [7.2]}}}"
    assert exact(read(text, "t:1/m", scoped=True)) == [
        "quay.example.com/org/etcd:v1 t:1/m/quay.example.com/org/etcd:v1",
        "docker.io/library/redis:7.2 t:1/m/docker.io/library/redis:7.2",
    ]


def test_the_certificates_that_skopeo_names_are_used(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("")
    asked = read(f"{{r.example.com: {{images: {{a: ['1']}}, cert-dir: {tmp_path}}}}}", "t:1")
    assert asked.hosts["r.example.com"].trust == TlsSettings(ca=(tmp_path / "ca.crt",))


def test_regsyncs_example_is_read_and_what_it_asks_of_the_clock_is_told() -> None:
    asked = read(REGSYNC)
    assert exact(asked) == ["docker.io/library/busybox:1.10 localhost:5000/library/busybox:stable"]
    assert asked.searches == [
        TagSearch("docker.io", "library/alpine", TagRules(("^3$", r"^3\.\d+$"), ("^3.0$",), anywhere=True)),
        TagSearch("registry.example.com", "", repositories=TagRules(exclude=("^old/.*$",), anywhere=True)),
    ]
    assert asked.hosts == {
        "localhost:5000": HostSettings(http=True),
        "docker.io": HostSettings(
            credentials=Credentials("me", "secret"), requests_per_second=2.5, mirrors=("cache.example.com",)
        ),
    }
    told = [warning.partition(" has no effect")[0] for warning in asked.warnings[:2]]
    assert told == ["f.yml line 13: `ratelimit`", "f.yml line 16: `parallel`"]
    assert "f.yml line 23: of `platform` an index of that one is put" in asked.warnings[2]
    assert len(asked.warnings) == 3
    assert asked.schedule_hint == (
        "f.yml: this runs once; `interval` and `schedule` are kept, each entry's own, by"
        " `blobflow sync f.yml --every spec`"
    )


def test_regsyncs_platforms_are_an_entrys_own_or_those_of_the_defaults() -> None:
    first, second, third = read(REGSYNC).images
    assert parse_platform("linux/amd64") in first.choice.platforms
    assert first.choice == third.choice
    assert second.choice.platforms == (parse_platform("linux/arm64"),)


REFUSED: dict[str, tuple[str, str, str]] = {
    "skopeo: no destination": (SKOPEO, "", "names sources alone; say where to with --to"),
    "skopeo: a bad tag": (
        "r.example.com: {images: {a: [b/c]}}",
        "t:1",
        "f.yml line 1: 'b/c' is not a reference: bad tag",
    ),
    "skopeo: a bad digest": ("r.example.com: {images: {a: ['sha256:1']}}", "t:1", "f.yml line 1: 'sha256:1'"),
    "skopeo: a bad name": ("r.example.com: {images: {A: ['1']}}", "t:1", "f.yml line 1: "),
    "skopeo: a bad host": (
        "'r r': {images: {a: ['1']}}",
        "t:1",
        "f.yml line 1: 'r r' is not a registry host",
    ),
    "skopeo: a bad expression": (
        "r.example.com: {images-by-tag-regex: {a: '('}}",
        "t:1",
        "f.yml line 1: '(' is no regular",
    ),
    "skopeo: a bad range": (
        "r.example.com: {images-by-semver: {a: new}}",
        "t:1",
        "f.yml line 1: 'new' is no range",
    ),
    "skopeo: a list of nothing": ("r.example.com: {images: {}}", "t:1", "f.yml names no image"),
    "skopeo: images as a list": ("r.example.com: {images: [a]}", "t:1", "images: expected `mapping"),
    "skopeo: an entry that is no list": (
        "r.example.com:\n  images:\n    a: ['1']\n    b.c/d: 1.0\n",
        "t:1",
        "f.yml line 4: images.b.c/d: expected `list`, got `text`",
    ),
    "skopeo: a list in a list": (
        "r.example.com:\n  images:\n    a: ['1']\n    b: ['1', [2]]\n",
        "t:1",
        "f.yml line 4: images.b[1]: expected `text`, got `list`",
    ),
    "skopeo: a list that is in itself": (
        "r.example.com:\n  images:\n    a: &a [*a]\n",
        "t:1",
        "f.yml line 3: images.a[0]: expected `text`, got `list`",
    ),
    "skopeo: below a key with a dash": (
        "r.example.com:\n  images:\n    a: ['1']\n  images-by-tag-regex:\n    a: [b]\n",
        "t:1",
        "f.yml line 5: images-by-tag-regex.a: expected `text`, got `list`",
    ),
    "skopeo: neither true nor false": (
        "r.example.com:\n  images:\n    a: ['1']\n  tls-verify: perhaps\n",
        "t:1",
        "f.yml line 4: tls-verify: expected `true or false`, got `text`",
    ),
    "skopeo: a bad expression among others": (
        "r.example.com:\n  images:\n    a: ['1']\n  images-by-tag-regex:\n    a: b\n    c: '('\n",
        "t:1",
        "f.yml line 6: '(' is no regular",
    ),
    "skopeo: a bad tag among others": (
        "r.example.com:\n  images:\n    a: ['1']\n    b: ['1', b/c]\n",
        "t:1",
        "f.yml line 4: 'b/c' is not a reference: bad tag",
    ),
    "skopeo: a mistyped key beside a good registry": (
        "r.example.com: {image: {a: []}}\ns.example.com: {images: {a: []}}",
        "t:1",
        "f.yml line 1: unknown key `image`; did you mean `images`?",
    ),
    "skopeo: a registry with a list": (
        "r.example.com: [a]",
        "t:1",
        "f.yml line 1: expected `mapping",
    ),
    "skopeo: a bad tag from an anchor": (
        "x-a: &a {images: {a: [b/c]}}\nr.example.com:\n  <<: *a\n",
        "t:1",
        "f.yml line 1: 'b/c' is not a reference: bad tag",
    ),
    "regsync: a login for no registry": (
        "{creds: [{user: a}], sync: [{source: a, target: 't:1/a', type: image}]}",
        "",
        "f.yml line 1: creds[0]: it misses the field `registry`",
    ),
    "regsync: a destination": (REGSYNC, "t:1", "says itself where its images go"),
    "regsync: a type": (
        "sync: [{source: a, target: 't:1/a', type: tag}]",
        "",
        "f.yml line 1: the type 'tag' is none",
    ),
    "regsync: no target": ("sync: [{source: a, type: image}]", "", "misses the field `target`"),
    "regsync: nothing": ("sync: []", "", "names nothing to sync"),
    "regsync: a version": ("{version: 2, sync: []}", "", "has version 2"),
    "regsync: a template": (
        "sync: [{source: '{{ .X }}', target: 't:1/a', type: image}]",
        "",
        "f.yml line 1: the template `{{ .X }}` can't be filled in",
    ),
    "regsync: a variable": (
        "sync: [{source: '{{env \"NO\"}}', target: 't:1/a', type: image}]",
        "",
        "names a variable that is not set",
    ),
    "regsync: a bad expression": (
        "sync: [{source: a, target: 't:1/a', type: repository, tags: {allow: ['(']}}]",
        "",
        "line 1: '('",
    ),
    "regsync: a place": ("sync: [{source: 'oci:d', target: 't:1/a', type: image}]", "", "is no registry"),
    "regsync: a tls": (
        "{creds: [{registry: r, tls: no}], sync: [{source: a, target: 't:1/a', type: image}]}",
        "",
        "tls of r is",
    ),
}


@pytest.mark.parametrize(("text", "targets", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_in_one_sentence(text: str, targets: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text, targets)
    assert sentence in str(caught.value)


UNKNOWN = {
    "tls_verify: false": "unknown key `tls_verify`; did you mean `tls-verify`",
    "images-by-tag-regexp: {a: x}": "unknown key `images-by-tag-regexp`; did you mean `images-by-tag-regex`",
    "credentials: {user: x}": "unknown key `user`; did you mean `username`",
}


@pytest.mark.parametrize(("text", "sentence"), UNKNOWN.items(), ids=UNKNOWN)
def test_a_key_that_skopeo_does_not_know_is_an_error(text: str, sentence: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        read(f"{{r.example.com: {{images: {{a: ['1']}}, {text}}}}}", "t:1")
    assert f"f.yml line 1: {sentence}" in str(caught.value)


def test_what_is_null_is_absent_to_skopeo() -> None:
    text = """\
x-login: &login {username: joe, password: p, identitytoken: null}
empty.example.com:
a.example.com: {images: {app: }, images-by-semver: null, credentials: *login, tls-verify: , cert-dir: , x-y: }
b.example.com: {images: , images-by-tag-regex: {app: }, credentials: {username: }}
"""
    asked = read(text, "t:1")
    assert asked.searches == [
        TagSearch("a.example.com", "app"),
        TagSearch("b.example.com", "app", TagRules(include=("",), anywhere=True)),
    ]
    assert asked.hosts == {"a.example.com": HostSettings(credentials=Credentials("joe", "p"))}
    assert asked.warnings == ("f.yml line 2: empty.example.com has no images",)


def test_skopeos_identity_token_is_a_login() -> None:
    asked = read("r.example.com: {images: {a: ['1']}, credentials: {identitytoken: tok}}", "t:1")
    assert asked.hosts == {"r.example.com": HostSettings(credentials=Credentials(identity_token="tok"))}


def test_a_format_that_is_named_is_taken_at_its_word() -> None:
    with pytest.raises(UsageError, match="unknown key"):
        read(SKOPEO, form="blobflow")
