"""What is a manifest: one document has one meaning, or is refused by the one judge that there is."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable

import pytest

from blobflow.errors import UnsupportedContent
from blobflow.oci import Manifest, digest_of, manifest, media, parse_manifest
from blobflow.oci.ambiguous_json import ambiguous_key
from blobflow.oci.docker_conversion import convert_manifest
from blobflow.oci.manifest import MAX_MANIFEST_BYTES, MAX_STRINGS
from blobflow.oci.platform_choice import prune_index
from blobflow.oci.referrers import merge_referrers_index
from tests.fakes.manifests import CHILD, CONFIG, IMAGE, INDEX, LAYER, Json, docker, encoded
from tests.scenarios.signed_images import OCI_EMPTY


def edited(document: Json, at: str, more: str) -> bytes:
    """The document with text put before a key of it, where no JSON library would put it."""
    text = json.dumps(document)
    assert text.count(at) >= 1
    return text.replace(at, f"{more}{at}", 1).encode()


@pytest.mark.parametrize("form", [dict, docker])
@pytest.mark.parametrize(
    ("document", "more", "named"),
    [
        (IMAGE, {"manifests": [CHILD]}, "'manifests'"),
        (IMAGE, {"manifests": []}, "'manifests'"),
        (INDEX, {"config": CONFIG}, "'config'"),
        (INDEX, {"layers": []}, "'layers'"),
        (INDEX, {"config": CONFIG, "layers": [LAYER]}, "'config' and 'layers'"),
        (IMAGE, {"fsLayers": []}, "'fsLayers'"),
        (IMAGE, {"history": [{}]}, "'history'"),
        (INDEX, {"history": {}}, "'history'"),
    ],
)
def test_a_document_with_the_fields_of_another_kind_is_refused(
    form: Callable[[Json], Json], document: Json, more: Json, named: str
) -> None:
    made = form(document)
    raw = json.dumps({**made, **more}).encode()
    for said in ("", made["mediaType"], "text/plain"):
        with pytest.raises(UnsupportedContent, match=f"has {named}, which"):
            parse_manifest(raw, said)


@pytest.mark.parametrize("said", ["", "application/json", media.OCI_INDEX, media.OCI_MANIFEST])
def test_without_a_media_type_of_its_own_a_document_is_what_it_lists_and_not_both(said: str) -> None:
    both = encoded(IMAGE, "mediaType", manifests=[CHILD])
    with pytest.raises(UnsupportedContent, match="clients differ"):
        parse_manifest(both, said)


@pytest.mark.parametrize(("document", "said"), [(IMAGE, media.OCI_INDEX), (INDEX, media.OCI_MANIFEST)])
def test_a_parent_or_registry_can_not_make_a_document_what_it_is_not(document: Json, said: str) -> None:
    with pytest.raises(UnsupportedContent, match=r"calls itself .*, but was served as"):
        parse_manifest(encoded(document), said)
    with pytest.raises(UnsupportedContent, match=r"is called an .*, which"):
        parse_manifest(encoded(document, "mediaType"), said)
    with pytest.raises(UnsupportedContent, match=r"is called an .*, which"):
        parse_manifest(encoded(document, mediaType=said), said)


@pytest.mark.parametrize("said", [media.OCI_CONFIG, media.OCI_LAYER_GZIP, media.DOCKER_CONFIG])
def test_what_is_served_as_a_blob_is_no_manifest(said: str) -> None:
    for raw in (encoded(IMAGE), encoded(IMAGE, "mediaType")):
        with pytest.raises(UnsupportedContent, match=said.replace("+", ".")):
            parse_manifest(raw, said)


@pytest.mark.parametrize(
    ("document", "kind"), [(IMAGE, media.OCI_MANIFEST), (INDEX, media.OCI_INDEX)], ids=["image", "index"]
)
def test_what_calls_itself_nothing_is_an_oci_document_whoever_serves_it(document: Json, kind: str) -> None:
    bare = encoded(document, "mediaType")
    for said in ("", "text/plain", "application/octet-stream", kind, docker(document)["mediaType"]):
        assert parse_manifest(bare, said).descriptor.media_type == kind


AT_KEY = {
    "document": (
        IMAGE,
        '"layers"',
        {"layers": "[]", "config": "null", "mediaType": '"a/b"', "manifests": "[]"},
    ),
    "layer": (IMAGE, '"size": 5', {"digest": json.dumps(digest_of(b"x")), "size": "7", "urls": "[]"}),
    "config": (IMAGE, '"size": 2', {"digest": json.dumps(digest_of(b"x")), "mediaType": '"a/b"'}),
    "child": (INDEX, '"size": 500', {"digest": json.dumps(digest_of(b"x")), "platform": "null"}),
    "platform": (INDEX, '"os"', {"os": '"plan9"', "architecture": '"arm"', "variant": '"v9"'}),
}
ODD: dict[str, Callable[[str], str]] = {
    "capital": lambda word: word[0].upper() + word[1:],
    "upper": str.upper,
    "lower": lambda word: word.lower() if word != word.lower() else word.upper(),
    "escaped": lambda word: f"\\u{ord(word[0].upper()):04x}{word[1:]}",
    "long s": lambda word: word.replace("s", "\u017f") if "s" in word else word.upper(),
}


@pytest.mark.parametrize("spelled", ODD)
@pytest.mark.parametrize("place", AT_KEY)
def test_a_key_that_go_reads_as_another_is_refused_wherever_it_counts(place: str, spelled: str) -> None:
    document, at, values = AT_KEY[place]
    for word, value in values.items():
        odd = ODD[spelled](word)
        raw = edited(document, at, f'"{odd}": {value}, ')
        with pytest.raises(UnsupportedContent, match="which some clients take for"):
            parse_manifest(raw)


@pytest.mark.parametrize("place", AT_KEY)
def test_a_key_that_is_there_twice_is_refused_wherever_it_counts(place: str) -> None:
    document, at, values = AT_KEY[place]
    for word, value in values.items():
        if f'"{word}"' in json.dumps(document):
            for key in (word, f"\\u{ord(word[0]):04x}{word[1:]}"):
                with pytest.raises(UnsupportedContent):
                    parse_manifest(edited(document, at, f'"{key}": {value}, '))
                assert "twice" in ambiguous_key(edited(document, at, f'"{key}": {value}, '))


@pytest.mark.parametrize("blank", [" ", "\t", "\n", "\r", " \n "])
@pytest.mark.parametrize("key", ["layers", "LAYERS", "Manifests"])
def test_a_key_does_not_hide_behind_a_blank(blank: str, key: str) -> None:
    """JSON lets blanks stand before a colon: as many keys end without one as were decoded, and yet there are
    more of them."""
    raw = json.dumps(IMAGE, separators=(",", ":"))
    hidden = json.dumps({key: [{**LAYER, "digest": digest_of(b"other")}]}, separators=(",", f"{blank}:"))
    for document in (f"{raw[:-1]},{hidden[1:]}", f"{hidden[:-1]},{raw[1:]}"):
        with pytest.raises(UnsupportedContent, match=re.escape(repr(key))):
            parse_manifest(document.encode(), media.OCI_MANIFEST)


def test_the_same_bytes_twice_are_twice_all_the_same() -> None:
    raw = encoded(IMAGE)
    with pytest.raises(UnsupportedContent, match="'layers' twice"):
        parse_manifest(raw[:-1] + b',"layers":' + json.dumps([LAYER]).encode() + b"}")


@pytest.mark.parametrize(
    "raw",
    [
        encoded(IMAGE, annotations={"Layers": "x", "digest": "y", "SIZE": "", '"a": ': ":"}),
        encoded(INDEX, annotations={"config": "x", "os": "y", "\\": '\\"'}),
        encoded({**IMAGE, "layers": [{**LAYER, "annotations": {"Digest": "x", "digest": "y", "é": "ü"}}]}),
        encoded(IMAGE, extra={"layers": [], "Layers": [{"digest": 1, "Digest": 2}], "config": {"size": 1}}),
        encoded({**INDEX, "manifests": [{**CHILD, "platform": {**CHILD["platform"], "Features": ["sse4"]}}]}),
        encoded(INDEX, subject=CHILD, artifactType="a/b"),
        encoded({**IMAGE, "config": {**CONFIG, "data": "e30="}}),
    ],
)
def test_words_mean_nothing_where_nobody_looks_for_them(raw: bytes) -> None:
    parse_manifest(raw)
    parse_manifest(json.dumps(json.loads(raw), indent=3, ensure_ascii=False).encode())
    parse_manifest(json.dumps(json.loads(raw), separators=(",", ":")).encode())


@pytest.mark.parametrize(
    "raw",
    [
        encoded(IMAGE, manifests=None),
        encoded(INDEX, config=None, layers=None),
        encoded(IMAGE, layers=None),
        encoded(IMAGE, fsLayers=None, history=None, subject=None, annotations=None),
        encoded(INDEX, manifests=None),
        encoded(INDEX, "manifests"),
        encoded(IMAGE, "schemaVersion"),
        encoded(IMAGE, schemaVersion=None),
        encoded({**IMAGE, "layers": [{**LAYER, "urls": None, "annotations": None, "platform": None}]}),
        encoded({**IMAGE, "config": {"mediaType": OCI_EMPTY, "digest": digest_of(b"{}"), "size": 2}}),
        encoded({**IMAGE, "layers": [{"digest": digest_of(b""), "size": 0}]}),
        encoded(IMAGE) + b"\r\n\t ",
        b"\n" + encoded(INDEX),
    ],
)
def test_what_says_nothing_is_no_contradiction(raw: bytes) -> None:
    parse_manifest(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"2",
        encoded(IMAGE) + b"{}",
        encoded(IMAGE) + b"\0",
        encoded(IMAGE) + encoded(IMAGE),
        b"\xef\xbb\xbf" + encoded(IMAGE),
        encoded(IMAGE).decode().encode("utf-16"),
        encoded(IMAGE)[:-1],
        encoded(IMAGE, more="@").replace(b"@", b"\xff"),
        encoded(IMAGE, annotations={"a": "@"}).replace(b"@", b"\xc0\x80"),
        encoded(IMAGE, more="@").replace(b"@", b"\\ud800"),
        encoded(IMAGE, schemaVersion="2"),
        encoded(IMAGE, schemaVersion=2.0),
        encoded(IMAGE, schemaVersion=3),
        encoded(INDEX, schemaVersion=0),
        encoded(IMAGE, mediaType=2),
        encoded(IMAGE, layers={}),
        encoded(IMAGE, layers=[None]),
        encoded(IMAGE, "config"),
        encoded(IMAGE, config=None),
        encoded(IMAGE, config=[]),
        b'{"schemaVersion":2}',
        b"{}",
    ],
)
def test_what_is_no_manifest_is_refused_in_one_sentence(raw: bytes) -> None:
    with pytest.raises(UnsupportedContent) as caught:
        parse_manifest(raw)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "size", ["-1", "1.0", "1e3", "0e0", "-0.0", '"5"', "null", "true", str(2**63), "9" * 5000]
)
def test_a_size_is_a_whole_number_of_bytes(size: str) -> None:
    for document, at in ((IMAGE, '"size": 5'), (IMAGE, '"size": 2'), (INDEX, '"size": 500')):
        raw = json.dumps(document).replace(at, f'"size": {size}').encode()
        with pytest.raises(UnsupportedContent):
            parse_manifest(raw)
    with pytest.raises(UnsupportedContent):
        parse_manifest(json.dumps(IMAGE).replace(', "size": 5', "").encode())


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha1:" + "0" * 40, "sha256:" + "A" * 64, "blake3:" + "0" * 64]
)
def test_a_digest_that_can_not_be_verified_is_refused(digest: str) -> None:
    with pytest.raises(UnsupportedContent, match="can't be verified"):
        parse_manifest(encoded({**IMAGE, "layers": [{**LAYER, "digest": digest}]}))


def _keys_of_objects(raw: bytes) -> list[list[str]]:
    found: list[list[str]] = []

    def note(pairs: list[tuple[str, object]]) -> Json:
        found.append([key for key, _ in pairs])
        return dict(pairs)

    json.loads(raw, object_pairs_hook=note)
    return found


def test_the_scan_finds_what_looking_at_all_keys_finds() -> None:
    """Documents made at random of the words and their odd spellings."""
    chance = random.Random(14)
    words = ["mediaType", "digest", "size", "layers", "config", "Layers", "DIGEST", "x", "annotations"]
    refused = 0
    for _ in range(2000):
        layers = ",".join(
            "{" + ",".join(f'"{chance.choice(words)}":{chance.randrange(9)}' for _ in range(3)) + "}"
            for _ in range(chance.randrange(3))
        )
        raw = f'{{"schemaVersion":2,"layers":[{layers}],"x":{{"size":1,"size":2}}}}'.encode()
        known = {"mediatype": "mediaType", "digest": "digest", "size": "size", "annotations": "annotations"}
        found = False
        for keys in _keys_of_objects(raw)[:-2]:  # but x and the document itself
            spelled = [key for key in keys if key.lower() in known]
            found |= any(known[key.lower()] != key for key in spelled) or len(spelled) != len(set(spelled))
        assert bool(ambiguous_key(raw)) is found
        refused += found
    assert 200 < refused < 1800


def test_what_was_let_in_before_is_read_as_it_was_then() -> None:
    raw = encoded(IMAGE, manifests=[CHILD], schemaVersion=7)
    held = parse_manifest(raw, media.OCI_MANIFEST, let_in=True)
    assert [blob.digest for blob in held.blobs] == [CONFIG["digest"], LAYER["digest"]]


def test_many_small_strings_are_refused_before_they_are_decoded() -> None:
    notes = ",".join(f'"{number:x}":""' for number in range(MAX_STRINGS // 2 + 1))
    raw = f'{{"schemaVersion":2,"manifests":[],"annotations":{{{notes}}}}}'.encode()
    assert len(raw) < MAX_MANIFEST_BYTES
    with pytest.raises(UnsupportedContent, match=f"more than the {MAX_STRINGS} strings"):
        parse_manifest(raw)


def test_quotes_inside_of_a_string_are_no_strings() -> None:
    note = json.dumps({"statement": ["x"] * 200_000})
    raw = encoded(IMAGE, annotations={"bundle": note})
    assert raw.count(b'"') > 2 * MAX_STRINGS // 2 and len(raw) < MAX_MANIFEST_BYTES
    assert parse_manifest(raw).annotations == {"bundle": note}


def test_a_word_of_a_descriptor_is_a_word() -> None:
    for word in ("mediaType", "artifactType"):
        with pytest.raises(UnsupportedContent, match="characters"):
            parse_manifest(encoded({**IMAGE, "layers": [{**LAYER, word: "a/" + "b" * 5000}]}))
    with pytest.raises(UnsupportedContent, match="characters"):
        parse_manifest(encoded({**INDEX, "manifests": [{**CHILD, "platform": {"os": "x" * 5000}}]}))


def test_a_list_of_referrers_that_means_two_things_is_not_added_to() -> None:
    raw = encoded(INDEX, "mediaType")[:-1] + b',"Manifests":[]}'
    with pytest.raises(UnsupportedContent, match="'Manifests'"):
        merge_referrers_index(raw, [])


def test_equal_media_types_are_one_string_in_memory() -> None:
    first, second = (parse_manifest(encoded(IMAGE, annotations={"n": n})) for n in "12")
    assert _words(first) == _words(second)
    assert all(one is other for one, other in zip(_words(first), _words(second), strict=True))


def _words(manifest: Manifest) -> list[str]:
    return [blob.media_type for blob in manifest.blobs]


@pytest.mark.parametrize("indent", [None, 3])
@pytest.mark.parametrize("document", [IMAGE, INDEX, docker(IMAGE), encoded(INDEX, subject=CHILD)])
def test_ordinary_documents_pass_by_the_cheap_proof(
    document: Json | bytes, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(raw: bytes) -> str:
        raise AssertionError("the cheap proof is enough")

    monkeypatch.setattr(manifest, "ambiguous_key", scan)
    made = json.loads(document) if isinstance(document, bytes) else document
    parse_manifest(json.dumps({**made, "annotations": {"a": "b"}}, indent=indent).encode())


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000 + "]" * 5000])
def test_what_is_only_passed_over_does_not_break_who_changes_a_document(value: str) -> None:
    """A number that Python makes no integer of, in a key that nobody knows."""
    more = f'{{"x":{value},'
    index = (
        more + json.dumps({**INDEX, "manifests": [CHILD, {**CHILD, "digest": digest_of(b"x")}]})[1:]
    ).encode()
    image = (more + json.dumps(IMAGE)[1:]).encode()
    changes: list[Callable[[], object]] = [
        lambda: prune_index(read := parse_manifest(index), read.manifests[:1], {}),
        lambda: convert_manifest(parse_manifest(image), "v2s2", {}),
        lambda: merge_referrers_index(index, []),
    ]
    for change in changes:
        with pytest.raises(UnsupportedContent):
            change()
