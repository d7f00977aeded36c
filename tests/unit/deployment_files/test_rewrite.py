"""Images in deployment files replaced by those of a mirror: where they stand, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.cli.inputs.mirror_place import places_below
from blobflow.cli.inputs.requests import parse_registry_prefix
from blobflow.deployment_files.contract import FoundImages, NamedImage, NamePart
from blobflow.deployment_files.find import find_images
from blobflow.deployment_files.rewrite import rewrite_text
from blobflow.deployment_files.rewritten_files import RewrittenFile, rewrite_files
from blobflow.errors import UsageError
from blobflow.oci import Reference, parse_reference

MIRROR = "mirror.example:5000/hub"
DIGEST = f"sha256:{'ab' * 32}"
PLACE_OF = places_below(parse_registry_prefix(MIRROR))


def place(image: NamedImage) -> Reference:
    return PLACE_OF(image.reference)


def pinned(image: NamedImage) -> Reference:
    found = PLACE_OF(image.reference)
    return Reference(found.host, found.repository, found.tag, found.digest or DIGEST)


def rewritten(folder: Path, name: str, content: bytes, *, digest: bool = False) -> RewrittenFile:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    (made,) = rewrite_files(find_images([str(file)]), pinned if digest else place)
    return made


def pod(image: str) -> str:
    return f"apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: a   # {image}\n    image: {image}\n"


# Name of a file, what stands in it, and what stands there with tags, and with digests.
FILES = [
    ("pod.yaml", "image: nginx:1.29", "image: M/library/nginx:1.29", "image: M/library/nginx:1.29@D"),
    ("pod.yaml", "image: nginx  # so", "image: M/library/nginx  # so", "image: M/library/nginx@D  # so"),
    ("pod.yaml", "image: 'a/b:1'", "image: 'M/a/b:1'", "image: 'M/a/b:1@D'"),
    ("pod.yaml", 'image: "quay.io/a/b:1"', 'image: "M/a/b:1"', 'image: "M/a/b:1@D"'),
    ("pod.yaml", "image: quay.io/a/b:1@D", "image: M/a/b:1@D", "image: M/a/b:1@D"),
    ("pod.yaml", "image: quay.io/a/b@D", "image: M/a/b@D", "image: M/a/b@D"),
    ("pod.yaml", "image: M/a/b:1", "image: M/a/b:1", "image: M/a/b:1@D"),
]
OTHERS = [
    ("Dockerfile", "FROM alpine:3 AS a\nFROM a\n", "FROM M/library/alpine:3 AS a\nFROM a\n"),
    ("Dockerfile", "ARG V=3\nFROM alpine:$V\n", "ARG V=3\nFROM M/library/alpine:$V\n"),
    (
        "Dockerfile",
        'ARG V=3\nARG A="b/c:1" D=e:$V\nFROM $A\nFROM ${A} AS x\nFROM ${D}\nFROM ${F:-g/h:2}\n',
        'ARG V=3\nARG A="M/b/c:1" D=M/library/e:$V\nFROM $A\nFROM ${A} AS x\nFROM ${D}\nFROM ${F:-M/g/h:2}\n',
    ),
    (
        "compose.yaml",
        "services:\n  a: {image: 'b/c:${T:-1}'}\n",
        "services:\n  a: {image: 'M/b/c:${T:-1}'}\n",
    ),
    (
        "compose.yaml",
        "services:\n  a: {image: '${A:-b/c:1}'}\n  b: {image: '${B-d/e:${T:-1}}'}\n"
        "  c: {image: '${C:-${D:-f}}'}\n",
        "services:\n  a: {image: '${A:-M/b/c:1}'}\n  b: {image: '${B-M/d/e:${T:-1}}'}\n"
        "  c: {image: '${C:-${D:-M/library/f}}'}\n",
    ),
    (
        "compose.yaml",
        "services:\n  a: {image: 'b/own:1', build: .}\n  c: {build: {args: {BASE_IMAGE: 'b/own:1'}}}\n",
        "services:\n  a: {image: 'M/b/own:1', build: .}\n  c: {build: {args: {BASE_IMAGE: 'M/b/own:1'}}}\n",
    ),
    (
        "web.service",
        "[Service]\nExecStart=docker run \\\n  # -d \\\n  a/b:1\n",
        "[Service]\nExecStart=docker run \\\n  # -d \\\n  M/a/b:1\n",
    ),
    (
        ".github/workflows/ci.yml",
        "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n    - uses: docker://a/b:1\n",
        "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n    - uses: docker://M/a/b:1\n",
    ),
    (
        "images.txt",
        "# of us\r\nnginx:1.29\r\nquay.io/a/b:2\r\n",
        "# of us\r\nM/library/nginx:1.29\r\nM/a/b:2\r\n",
    ),
    (
        "values.yaml",
        "image:\n  registry: quay.io\n  repository: a/b\n  tag: '1'\n",
        "image:\n  registry: mirror.example:5000\n  repository: hub/a/b\n  tag: '1'\n",
    ),
    (
        "values.yaml",
        "image:\n  repository: nginx\n  tag: 1.29.1\n",
        "image:\n  repository: M/library/nginx\n  tag: 1.29.1\n",
    ),
    (
        "kustomization.yaml",
        "images:\n- name: a\n  newName: quay.io/a/b\n  newTag: v1\n",
        "images:\n- name: a\n  newName: M/a/b\n  newTag: v1\n",
    ),
    (
        "pod.json",
        '{"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"image":"a/b:1"}]}}',
        '{"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"image":"M/a/b:1"}]}}',
    ),
]


def filled(text: str) -> str:
    return text.replace("M/", f"{MIRROR}/").replace("@D", f"@{DIGEST}")


@pytest.mark.parametrize(("name", "before", "after", "by_digest"), FILES)
def test_an_image_is_replaced_where_it_stands(
    tmp_path: Path, name: str, before: str, after: str, by_digest: str
) -> None:
    text = pod("x").replace("image: x", "{}")
    for digest, goal in ((False, after), (True, by_digest)):
        made = rewritten(tmp_path, name, text.format(filled(before)).encode(), digest=digest)
        assert made.content.decode() == text.format(filled(goal))
        assert made.left == ()


@pytest.mark.parametrize(("name", "before", "after"), OTHERS, ids=[name for name, *_ in OTHERS])
def test_every_kind_of_file_is_rewritten_and_then_stays(
    tmp_path: Path, name: str, before: str, after: str
) -> None:
    made = rewritten(tmp_path, name, filled(before).encode())
    assert (made.content.decode(), made.left) == (filled(after), ())
    again = rewritten(tmp_path, name, made.content)
    assert (again.content, again.replaced) == (made.content, 0)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_line_ends_and_encodings_stay(tmp_path: Path, encoding: str) -> None:
    before = pod("nginx:1").replace("\n", "\r\n") + "# ümläut 🐳\r\n"
    made = rewritten(tmp_path, "pod.yaml", before.encode(encoding))
    after = before.replace("image: nginx:1", f"image: {MIRROR}/library/nginx:1")
    assert made.content == after.encode(encoding)


IMAGES = st.sampled_from(["nginx", "a/b:1", "quay.io/c/d:2", f"e/f@{DIGEST}", "localhost:5000/g:3"])
NOISE = st.text(st.characters(blacklist_categories=("C", "Z")), max_size=10)


@given(st.lists(st.tuples(IMAGES, NOISE, st.sampled_from(["", "'", '"'])), min_size=1, max_size=8))
def test_what_stands_around_images_is_never_touched(
    tmp_path_factory: pytest.TempPathFactory, containers: list[tuple[str, str, str]]
) -> None:
    def text(images: list[str]) -> str:
        lines = [
            f"  - image: {quote}{image}{quote} # {noise}\n"
            for image, (_, noise, quote) in zip(images, containers, strict=True)
        ]
        return "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n" + "".join(lines)

    names = [image for image, _, _ in containers]
    places = [PLACE_OF(parse_reference(name)) for name in names]
    shown = [
        str(each).removesuffix("" if ":" in name or "@" in name else ":latest")
        for each, name in zip(places, names, strict=True)
    ]
    made = rewritten(tmp_path_factory.mktemp("pods"), "pod.yaml", text(names).encode())
    assert made.content.decode() == text(shown)


def test_a_digest_goes_beside_the_tag_of_values_and_back(tmp_path: Path) -> None:
    values = b"image:\n  repository: a/b\n  tag: '1'\n"
    made = rewritten(tmp_path, "values.yaml", values, digest=True)
    assert made.content.decode() == f"image:\n  repository: {MIRROR}/a/b\n  tag: '1@{DIGEST}'\n"
    assert find_images([made.path]).images[0].reference == parse_reference("a/b:1")
    again = rewritten(tmp_path, "values.yaml", made.content, digest=True)
    assert again.content == made.content


def test_what_has_no_place_for_a_digest_is_left_with_why(tmp_path: Path) -> None:
    made = rewritten(tmp_path, "Dockerfile", b"ARG V=3\nFROM alpine:$V\n", digest=True)
    assert made.content == made.before
    assert [why for _, why in made.left] == ["has no place for a digest there"]


def test_a_default_that_makes_another_name_as_well_is_replaced_where_both_get_to_their_places(
    tmp_path: Path,
) -> None:
    made = rewritten(tmp_path, "Dockerfile", b"ARG A=b/c:1\nFROM $A\nFROM $A-slim\n")
    assert made.content == f"ARG A={MIRROR}/b/c:1\nFROM $A\nFROM $A-slim\n".encode()
    assert (made.replaced, made.left) == (2, ())


@pytest.mark.parametrize(("other", "digest"), [("quay.io/$A", False), ("$A-slim", True)])
def test_a_default_that_would_make_another_name_wrong_stays_and_other_images_are_replaced(
    tmp_path: Path, other: str, digest: bool
) -> None:
    before = f"ARG A=b/c:1\nFROM $A\nFROM {other}\nFROM d/e:2\n"
    made = rewritten(tmp_path, "Dockerfile", before.encode(), digest=digest)
    place = f"{MIRROR}/d/e:2" + (f"@{DIGEST}" if digest else "")
    assert made.content.decode() == before.replace("d/e:2", place)
    assert [(image.line, why) for image, why in made.left] == [
        (2, "has its name from a variable that makes others, too"),
        (3, "is put together from variables"),
    ]
    assert made.replaced == 1


def test_what_has_its_name_by_way_of_a_further_variable_is_replaced_with_it(tmp_path: Path) -> None:
    made = rewritten(tmp_path, "Dockerfile", b"ARG A=b/c:1\nARG B=$A\nFROM $B\nFROM ${A}\n")
    assert made.content == f"ARG A={MIRROR}/b/c:1\nARG B=$A\nFROM $B\nFROM ${{A}}\n".encode()
    assert (made.replaced, made.left) == (2, ())


def test_a_registry_that_an_image_shares_which_can_not_be_told_stays(tmp_path: Path) -> None:
    values = (
        "registry: &registry docker.io\na:\n  image: {registry: *registry, repository: a/b, tag: v1}\n"
        "c:\n  image: {registry: *registry, repository: c/d, tag: 1.10}\n"
        "e:\n  image: {registry: *registry, repository: e/f}\n"
        "g:\n  image: {registry: quay.io, repository: g/h, tag: v1}\n"
    )
    made = rewritten(tmp_path, "values.yaml", values.encode())
    expected = values.replace("quay.io, repository: g/h", "mirror.example:5000, repository: hub/g/h")
    assert made.content.decode() == expected
    assert [image.line for image, _ in made.left] == [3]


def test_what_is_put_together_from_variables_is_left_with_why(tmp_path: Path) -> None:
    made = rewritten(tmp_path, "compose.yaml", b"services:\n  a:\n    image: ${R:-quay.io}/a:${T:-1}\n")
    assert made.content == made.before
    assert [why for _, why in made.left] == ["is put together from variables"]


def test_an_image_without_a_place_is_left_and_others_are_replaced(tmp_path: Path) -> None:
    def place_of(image: NamedImage) -> Reference:
        if image.reference.host == "quay.io":
            raise UsageError("is not among them")
        return place(image)

    file = tmp_path / "images.txt"
    file.write_text("nginx:1\nquay.io/a/b:2\n")
    (made,) = rewrite_files(find_images([str(file)]), place_of)
    assert made.content.decode() == f"{MIRROR}/library/nginx:1\nquay.io/a/b:2\n"
    assert [(image.written, why) for image, why in made.left] == [("quay.io/a/b:2", "is not among them")]


def named(text: str, *parts: tuple[str, str], reference: str) -> NamedImage:
    """An image whose parts are where these words first stand in a text."""
    pieces = [NamePart(text.index(word), text.index(word) + len(word), kind) for kind, word in parts]  # type: ignore[arg-type]
    return NamedImage("x", 1, text, parse_reference(reference), "test", tuple(pieces))


def test_a_shared_part_is_replaced_where_all_want_the_same() -> None:
    text = "quay.io b d 1"
    images = [
        named(
            text, ("registry", "quay.io"), ("repository", each), ("tag", "1"), reference=f"quay.io/{each}:1"
        )
        for each in ("b", "d")
    ]
    goals = {number: parse_reference(f"m.example/x/{each}:1") for number, each in enumerate("bd")}
    made = rewrite_text(text, images, goals)
    assert (made.text, made.left) == ("m.example x/b x/d 1", {})


@pytest.mark.parametrize("other", [None, "n.example/d:1"])
def test_a_part_that_others_want_otherwise_stays(other: str | None) -> None:
    text = "quay.io b d 1"
    images = [
        named(
            text, ("registry", "quay.io"), ("repository", each), ("tag", "1"), reference=f"quay.io/{each}:1"
        )
        for each in ("b", "d")
    ]
    goals = {0: parse_reference("m.example/b:1")} | ({1: parse_reference(other)} if other else {})
    made = rewrite_text(text, images, goals)
    assert made.text == text
    assert set(made.left) == set(goals)


def test_parts_that_reach_into_each_other_stay() -> None:
    text = "quay.io/a:1"
    images = [
        named(text, ("reference", "quay.io/a:1"), reference="quay.io/a:1"),
        named(text, ("tag", "1"), ("name", "quay.io/a"), reference="quay.io/a:1"),
    ]
    made = rewrite_text(text, images, dict.fromkeys((0, 1), parse_reference("m.example/a:2")))
    assert (made.text, set(made.left)) == (text, {0, 1})


@pytest.mark.parametrize(
    ("parts", "reference", "goal", "after"),
    [
        ((("registry", "quay.io"),), "quay.io/a/b:1", "m.example/hub/a/b:1", "m.example/hub b d"),
        ((("repository", "b"),), "quay.io/b", "quay.io/z", "quay.io z d"),
        ((("name", "quay.io"), ("tag", "b")), "quay.io/x:b", "m.example/x:7", "m.example/x 7 d"),
        ((("repository", "quay.io"), ("repository", "b")), "quay.io/x/b", "m.example/y/z", "m.example/y z d"),
    ],
)
def test_parts_get_what_is_theirs(
    parts: tuple[tuple[str, str], ...], reference: str, goal: str, after: str
) -> None:
    text = "quay.io b d"
    made = rewrite_text(text, [named(text, *parts, reference=reference)], {0: parse_reference(goal)})
    assert (made.text, made.left) == (after, {})


@pytest.mark.parametrize(
    ("parts", "reference", "goal", "why"),
    [
        ((("registry", "quay.io"),), "quay.io/a:1", "m.example/b:1", "a place for its registry alone"),
        ((("repository", "b"),), "quay.io/b", "m.example/b", "its registry, quay.io, from elsewhere"),
        ((("name", "quay.io"),), "quay.io/x:1", "m.example/x:2", "no place for the tag 2"),
        ((("tag", "b"),), "quay.io/x:b", "m.example/x:b", "its repository from elsewhere"),
    ],
)
def test_what_parts_can_not_hold_is_said(
    parts: tuple[tuple[str, str], ...], reference: str, goal: str, why: str
) -> None:
    text = "quay.io b d"
    made = rewrite_text(text, [named(text, *parts, reference=reference)], {0: parse_reference(goal)})
    assert made.text == text
    assert why in made.left[0]


def test_a_file_that_would_not_read_as_it_should_is_left_alone(tmp_path: Path) -> None:
    """As one that changed after it was read."""
    file = tmp_path / "pod.yaml"
    file.write_text(pod("nginx:1"))
    found = find_images([str(file)])
    file.write_text("# another line\n" + pod("nginx:1"))
    (made,) = rewrite_files(found, place)
    assert made.content == file.read_bytes()
    ((_, why),) = made.left
    assert "the file would not be right" in why


def test_plain_yaml_gets_quotes_where_it_would_read_as_something_else(tmp_path: Path) -> None:
    mirror = places_below(parse_registry_prefix("[::1]:5000"))
    file = tmp_path / "pod.yaml"
    file.write_text("apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: a/b:1\n")
    (made,) = rewrite_files(find_images([str(file)]), lambda image: mirror(image.reference))
    assert '- image: "[::1]:5000/a/b:1"\n' in made.content.decode()
    assert made.left == ()


def test_no_images_make_no_change(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"a: 1\n")
    (made,) = rewrite_files(FoundImages((), (), (str(file),)), place)
    assert (made.content, made.changed) == (b"a: 1\n", False)


BASE = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: web:1\n  - image: nginx:1\n"


def kustomized(folder: Path, overlay: str) -> dict[str, RewrittenFile]:
    """What becomes of a base with two images under an overlay."""
    for name, text in (
        ("base/kustomization.yaml", "resources: [pod.yaml]\n"),
        ("base/pod.yaml", BASE),
        ("other/pod.yaml", BASE),
        ("overlay/kustomization.yaml", f"resources:\n- ../base\n{overlay}"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    made = rewrite_files(find_images([str(folder)]), place)
    return {str(Path(each.path).relative_to(folder)): each for each in made}


def test_names_that_kustomize_matches_stay_so_that_it_still_does(tmp_path: Path) -> None:
    made = kustomized(tmp_path, "images:\n- {name: web, newName: quay.io/shop/web, newTag: v2}\n")
    assert made["base/pod.yaml"].content.decode() == BASE.replace("nginx:1", f"{MIRROR}/library/nginx:1")
    ((image, by),) = made["base/pod.yaml"].matched
    assert (image.written, by) == ("web:1", str(tmp_path / "overlay" / "kustomization.yaml"))
    assert f"newName: {MIRROR}/shop/web," in made["overlay/kustomization.yaml"].content.decode()
    assert "image: web:1" not in made["other/pod.yaml"].content.decode()
    assert [file.left for file in made.values()] == [()] * 4


def test_an_entry_without_a_new_name_is_told(tmp_path: Path) -> None:
    made = kustomized(tmp_path, "images:\n- {name: nginx, newTag: v2}\n")
    assert "image: nginx:1\n" in made["base/pod.yaml"].content.decode()
    ((_, why),) = made["overlay/kustomization.yaml"].left
    assert why == "is only matched by its name there; give the entry a newName"


def test_kustomizations_may_be_in_a_circle(tmp_path: Path) -> None:
    made = kustomized(
        tmp_path, "- ../overlay\n- .\n- https://example.com/base\nimages: [{name: web, newTag: x}, 1]\n"
    )
    assert [image.written for image, _ in made["base/pod.yaml"].matched] == ["web:1"]
