"""Plan files: what is written is read again, and whatever else is in the file is refused with a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blobflow.content import Referrer, Site
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.cost import cost_of
from blobflow.engine.plan.desired import AttachedReferrer, DesiredImage, build_desired_image
from blobflow.engine.plan.inventory import Inventory
from blobflow.engine.plan.planned import Planned
from blobflow.engine.plan.planner import make_plan
from blobflow.engine.plan.steps import Copy, Mount, Put
from blobflow.engine.policy import Policy
from blobflow.engine.saved.plan import SavedPlan
from blobflow.engine.sources.graph import Graph
from blobflow.errors import InvalidConfig, UsageError
from blobflow.oci import (
    Descriptor,
    Digest,
    Reference,
    digest_of,
    media,
    parse_digest,
    parse_manifest,
    parse_platform,
)
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.oci.sample_images import sample_set
from blobflow.planfile import MAX_PLAN_BYTES, PLAN_VERSION, load_plan, save_plan

SAMPLE = sample_set(3, images=3)
CHOICE = PlatformChoice((parse_platform("linux/arm64"),))
POLICY = Policy(no_overwrite=True)
Document = dict[str, Any]


def planned(choice: PlatformChoice = CHOICE, policy: Policy = POLICY) -> Planned:
    """A plan of the sample set, from one registry to another, made without asking anybody."""
    manifests = {
        parse_digest(digest): parse_manifest(each.raw, each.media_type, digest=parse_digest(digest))
        for digest, each in SAMPLE.manifests.items()
    }
    roots: dict[Reference, Descriptor] = {}
    origins: dict[Digest, tuple[Site, ...]] = {}
    pairs: list[Pair] = []
    for name, image in SAMPLE.images.items():
        repository, _, tag = name.rpartition(":")
        source = Reference("registry.example.com", repository, tag)
        root = parse_manifest(image.raw, image.media_type)
        manifests[root.descriptor.digest] = root
        roots[source] = root.descriptor
        pairs.append(Pair(source, Reference("127.0.0.1:5000", f"m/{repository}", tag), choice))
    graph = Graph(manifests, roots, {})
    for source, descriptor in roots.items():
        for manifest in graph.closure(descriptor.digest):
            for digest in (manifest.descriptor.digest, *(blob.digest for blob in manifest.blobs)):
                site = Site(source.host, source.repository)
                origins[digest] = tuple(sorted({*origins.get(digest, ()), site}))
    graph = Graph(manifests, roots, origins)
    inventory = Inventory({}, {}, {})
    desired_images = {
        pair: build_desired_image(graph, roots[pair.source], choice, prune=False) for pair in pairs
    }
    plan = make_plan(pairs, graph, inventory, desired_images)
    return Planned(tuple(pairs), plan, graph, desired_images, inventory, {}, policy=policy)


CONTENT = save_plan(planned())
SAVED = load_plan(CONTENT, "a.lock")


def resealed(plan: Any) -> bytes:
    """A file with this plan in it, and the sum that fits."""
    raw = msgspec.json.encode(plan)
    return json.dumps({"version": PLAN_VERSION, "sum": digest_of(raw), "plan": json.loads(raw)}).encode()


def refused(content: bytes, *codes: int) -> str:
    """The one sentence that such a file is refused with, and one of these exit codes (none: 2)."""
    with pytest.raises(InvalidConfig) as caught:
        load_plan(content, "a.lock")
    assert caught.value.exit_code in (codes or (2,))
    assert caught.value.message.startswith("a.lock ")
    assert "\n" not in caught.value.message
    return caught.value.message


def test_what_is_saved_is_read_again_whole() -> None:
    made = planned()
    assert SAVED.pairs == made.pairs
    assert SAVED.policy == made.policy
    assert SAVED.needs == made.plan.needs
    assert len(SAVED.steps) == len(made.plan.steps)
    assert SAVED.cost == cost_of(made.plan, made.graph)
    assert {d: SAVED.manifest_of(d).raw for d in SAVED.made} == {d: m.raw for d, m in made.plan.made.items()}
    assert SAVED.made, "the fallbacks of sparse indexes"
    assert SAVED.roots == {p.source: made.graph.roots[p.source] for p in made.pairs}
    assert [image.platforms for image in SAVED.images] == [("linux/arm64/v8",)] * 3


def test_a_plan_is_saved_as_the_same_bytes_every_time() -> None:
    assert save_plan(planned()) == CONTENT


def test_a_file_has_a_line_for_each_image_and_step_and_is_small() -> None:
    lines = CONTENT.decode().splitlines()
    assert sum(line.startswith('{"step":') for line in lines) == len(SAVED.steps)
    assert sum(line.startswith('{"pair":') for line in lines) == len(SAVED.images)
    everything = save_plan(planned(PlatformChoice()))
    assert len(everything) < 500 * len(load_plan(everything, "a").steps) + 3000


def test_what_the_sources_hold_is_not_in_the_file() -> None:
    everything = save_plan(planned(PlatformChoice()))
    assert load_plan(everything, "a").made == {}
    held = [m.raw for m in SAMPLE.manifests.values()]
    assert not any(msgspec.json.encode(raw)[1:40] in everything for raw in held)


def test_annotations_of_blobs_are_not_kept_but_what_makes_them_foreign_is() -> None:
    made = planned()
    number, step = next((n, s) for n, s in enumerate(made.plan.steps) if isinstance(s, Copy))
    blob = msgspec.structs.replace(step.blob, annotations={"much": "of it"}, urls=("https://example.com/l",))
    steps = list(made.plan.steps)
    steps[number] = msgspec.structs.replace(step, blob=blob)
    plan = msgspec.structs.replace(made.plan, steps=tuple(steps))
    content = save_plan(msgspec.structs.replace(made, plan=plan))
    assert b"of it" not in content
    kept = load_plan(content, "a").steps[number]
    assert isinstance(kept, Copy) and kept.blob.urls == blob.urls


def test_a_reader_of_another_format_may_change_the_white_space_and_nothing_else() -> None:
    compact = json.dumps(json.loads(CONTENT), separators=(",", ":"), ensure_ascii=False)
    assert load_plan(compact.encode(), "a") == SAVED
    assert load_plan(CONTENT.replace(b"\n", b"\r\n"), "a") == SAVED


@pytest.mark.parametrize("version", [0, 1, 3, 999_999])
def test_a_plan_of_another_version_is_refused_with_what_to_do(version: int) -> None:
    """Whatever else is in it: it need not be anything that this version knows."""
    sentence = refused(json.dumps({"version": version, "pairs": [], "anything": {}}).encode())
    assert f"a plan of version {version}" in sentence
    assert "make the plan anew with `blobflow plan --out`" in sentence
    assert ("older" if version < PLAN_VERSION else "newer") in sentence


def test_the_file_of_the_version_before_this_is_refused_as_that() -> None:
    made = planned()
    old = {"version": 1, "pairs": made.pairs, "price": made.cost, "plan": made.plan}
    assert "version 1, saved by an older blobflow" in refused(msgspec.json.encode(old))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"version: 2",
        b'{"version": "2"}',
        b'{"version": 2.0}',
        b'{"version": true}',
        b'{"version": -1}',
        b'{"version": ' + b"9" * 5000 + b"}",
        b'{"version": 2, "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        json.dumps({"price": {}, "images": []}).encode(),
    ],
)
def test_what_is_no_plan_is_refused(content: bytes) -> None:
    assert "is not a plan saved by blobflow: " in refused(content, 7)


@pytest.mark.parametrize(
    "content",
    [
        b'{"version": 2}',
        b'{"version": 2, "sum": "", "plan": {}}',
        b'{"version": 2, "sum": 7, "plan": {}}',
        b'{"version": 2, "sum": "x", "plan": {}, "more": 1}',
        resealed({}),
        resealed([]),
        resealed(None),
    ],
)
def test_a_plan_without_its_parts_is_refused(content: bytes) -> None:
    refused(content, 2, 8)


def test_a_file_is_no_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blobflow.planfile.MAX_PLAN_BYTES", len(CONTENT))
    assert load_plan(CONTENT, "a") == SAVED
    monkeypatch.setattr("blobflow.planfile.MAX_PLAN_BYTES", len(CONTENT) - 1)
    assert f"more than the {len(CONTENT) - 1} bytes" in refused(CONTENT)
    with pytest.raises(UsageError, match="plan fewer images at once"):
        save_plan(planned())
    assert MAX_PLAN_BYTES >= 2**20


@given(st.integers(0, len(CONTENT) - 2))
@settings(max_examples=60, deadline=None)
def test_a_file_that_was_cut_is_refused(end: int) -> None:
    refused(CONTENT[:end], 7 if end < len('{"version":2,"sum":') else 8)


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_file_with_a_wrong_byte_is_refused_or_as_good_as_it_was(at: int, other: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[at] ^= other
    try:
        assert load_plan(bytes(damaged), "a.lock") == SAVED  # white space, or a name of a field's escape
    except InvalidConfig as error:
        assert error.message.startswith("a.lock ") and "\n" not in error.message


def test_an_edited_file_is_refused_as_that() -> None:
    assert "it was edited, or damaged" in refused(CONTENT.replace(b"127.0.0.1:5000", b"127.0.0.1:5001"), 8)


Edit = Callable[[Document], None]


def number_of(kind: str, document: Document, **having: Any) -> int:
    return next(
        number
        for number, step in enumerate(document["steps"])
        if step["step"] == kind and all(step.get(key) == value for key, value in having.items())
    )


def step_of(kind: str, document: Document) -> Document:
    found: Document = document["steps"][number_of(kind, document)]
    return found


def put_number(document: Document) -> int:
    return next(n for n, step in enumerate(document["steps"]) if step["step"] == "put")


def point_forward(document: Document) -> None:
    document["needs"][put_number(document)] = [[len(document["steps"]) - 1, "hard"]]


def need_itself(document: Document) -> None:
    number = put_number(document)
    document["needs"][number] = [[number, "hard"]]


def need_before_the_first(document: Document) -> None:
    document["needs"][put_number(document)] = [[-1, "hard"]]


def need_of_a_copy(document: Document) -> None:
    document["steps"].append(step_of("copy", document))
    document["needs"].append([[0, "hard"]])


def settled_need_of_a_put(document: Document) -> None:
    document["needs"][put_number(document)] = [[0, "settled"]]


def kept_need_of_a_blob(document: Document) -> None:
    document["needs"][put_number(document)] = [[number_of("copy", document), "kept"]]


def set_in(*path: Any, value: Any) -> Edit:
    def edit(document: Document) -> None:
        at: Any = document
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return edit


def in_step(kind: str, *path: Any, value: Any) -> Edit:
    def edit(document: Document) -> None:
        set_in(*path, value=value)(step_of(kind, document))

    return edit


OTHER = {"registry": "elsewhere.example.com", "repository": "app"}
WRONG: dict[str, Edit] = {
    "a need points forward": point_forward,
    "a step needs itself": need_itself,
    "a need before the first": need_before_the_first,
    "a copy needs something": need_of_a_copy,
    "a put waits for a step to end": settled_need_of_a_put,
    "a put is kept for a blob": kept_need_of_a_blob,
    "fewer needs than steps": lambda d: d["needs"].pop(),
    "a blob without a digest": in_step("copy", "blob", "digest", value="latest"),
    "a digest that can't be verified": in_step("copy", "blob", "digest", value="md5:" + "0" * 32),
    "a size below nothing": in_step("copy", "blob", "size", value=-1),
    "a size beyond all": in_step("copy", "blob", "size", value=2**60),
    "a manifest of no manifest's type": in_step("put", "manifest", "mediaType", value="text/plain"),
    "a manifest that is too large": in_step("put", "manifest", "size", value=2**40),
    "a tag that is none": in_step("put", "tags", value=["a b"]),
    "a tag with an escape in it": in_step("put", "tags", value=["\x1b[2J"]),
    "a tag that no image has": in_step("put", "tags", value=["latest"]),
    "a tag for what is not its image": lambda d: tag_another(d),
    "a step for elsewhere": in_step("put", "target", value=OTHER),
    "a blob from elsewhere": in_step("copy", "source", value=OTHER),
    "a mount from elsewhere": in_step("mount", "origin", value=OTHER),
    "a mount's blob from elsewhere": in_step("mount", "source", value=OTHER),
    "a step of no kind": in_step("copy", "step", value="run"),
    "an image's step that there is not": set_in("images", 0, "steps", value=[10**6]),
    "an image's step below the first": set_in("images", 0, "steps", value=[-1]),
    "a root without a digest": set_in("images", 0, "root", "digest", value=""),
    "a host with a login": set_in("images", 0, "pair", "source", "host", value="user:secret@example.com"),
    "a host with a path": set_in("images", 0, "pair", "target", "host", value="example.com/a"),
    "a host in capitals": set_in("images", 0, "pair", "target", "host", value="Example.com"),
    "a repository that climbs": set_in("images", 0, "pair", "target", "repository", value="../../etc"),
    "a repository in a place": set_in("images", 0, "pair", "source", "host", value="oci:/tmp/layout"),
    "a place without a path": set_in("images", 0, "pair", "source", "host", value="oci:"),
    "an unknown word in the policy's verify": set_in("policy", "verify", value="maybe"),
    "an image twice": lambda d: d["images"].append(d["images"][0]),
    "two images for one tag": lambda d: d["images"].append(aimed_at(d)),
    "two digests of one source": lambda d: d["images"].append(named_otherwise(d)),
    "made bytes with another digest": lambda d: d["made"].update({next(iter(d["made"])): made_of(b"{}")}),
    "made bytes that are no manifest": lambda d: d["made"].update({digest_of(b"[]"): made_of(b"[]")}),
    "made bytes that are not base64": lambda d: d["made"].update({next(iter(d["made"])): {"raw": "!"}}),
    "a fallback that is not in it": lambda d: d["made"].clear(),
    "a manifest that is nowhere": lambda d: d["sources"].clear(),
    "a manifest from elsewhere": lambda d: d["sources"].update({k: [OTHER] for k in d["sources"]}),
    "a part that is not known": set_in("extra", value=1),
    "a part that is missing": lambda d: d.pop("price"),
}


def tag_another(document: Document) -> None:
    """Let a child have the tag of its index."""
    tagged = next(step for step in document["steps"] if step.get("tags"))
    number = next(
        number
        for number, step in enumerate(document["steps"])
        if step["step"] == "put" and not step.get("tags") and step["target"] == tagged["target"]
    )
    document["steps"][number]["tags"] = tagged["tags"]


def made_of(raw: bytes) -> Document:
    made: Document = json.loads(msgspec.json.encode({"media_type": media.OCI_INDEX, "raw": raw}))
    return made


def aimed_at(document: Document) -> Document:
    first, second = json.loads(json.dumps(document["images"][:2]))
    second["pair"]["target"] = first["pair"]["target"]
    second["steps"] = []
    found: Document = second
    return found


def named_otherwise(document: Document) -> Document:
    first, second = json.loads(json.dumps(document["images"][:2]))
    second["pair"]["source"] = first["pair"]["source"]
    found: Document = second
    return found


@pytest.mark.parametrize("edit", WRONG.values(), ids=WRONG.keys())
def test_a_plan_that_could_not_be_carried_out_is_refused_whoever_sealed_it(edit: Edit) -> None:
    document = json.loads(msgspec.json.encode(SAVED))
    assert load_plan(resealed(document), "a.lock") == SAVED
    edit(document)
    assert "is no plan that can be carried out: " in refused(resealed(document))


def test_the_sample_has_steps_of_the_kinds_that_are_edited() -> None:
    assert {type(step) for step in SAVED.steps} == {Copy, Mount, Put}


def test_what_refers_to_an_image_is_kept_for_the_report() -> None:
    made = planned(PlatformChoice())
    pair = made.pairs[0]
    [signature, *_] = [m for m in made.graph.manifests.values() if not m.is_index]
    root = made.desired_images[pair].root
    attached = AttachedReferrer(Referrer(signature.descriptor, root.digest, "api"), (signature,))
    desired_images = {
        **made.desired_images,
        pair: msgspec.structs.replace(made.desired_images[pair], attached=(attached,)),
    }
    plan = make_plan(made.pairs, made.graph, made.inventory, desired_images)
    saved = load_plan(save_plan(msgspec.structs.replace(made, plan=plan, desired_images=desired_images)), "a")
    [record] = saved.images[0].referrers
    assert (record.digest, record.subject) == (signature.descriptor.digest, root.digest)


def test_a_place_may_have_what_no_registry_may() -> None:
    """Layouts and archives: names of other tools, paths with colons; all as a spec could have it."""
    made = planned(PlatformChoice())
    pair = made.pairs[0]
    shape = made.desired_images[pair]
    target = Reference("oci-archive:./a:b/c.tar", "", "docker.io/library/app:1")
    pair = msgspec.structs.replace(pair, target=target)
    plan = make_plan([pair], made.graph, made.inventory, {pair: shape})
    saved = load_plan(
        save_plan(msgspec.structs.replace(made, pairs=(pair,), plan=plan, desired_images={pair: shape})), "a"
    )
    assert saved.pairs == (pair,)


def test_a_place_whose_name_is_not_utf_8_is_refused_and_not_kept_under_another_name() -> None:
    made = planned(PlatformChoice())
    pair = msgspec.structs.replace(made.pairs[0], target=Reference("oci-archive:a\udcff.tar", "", "app:1"))
    shape = made.desired_images[made.pairs[0]]
    plan = make_plan([pair], made.graph, made.inventory, {pair: shape})
    with pytest.raises(UsageError, match=r"can't keep the name oci-archive:a\\udcff\.tar, .* not UTF-8"):
        save_plan(msgspec.structs.replace(made, pairs=(pair,), plan=plan, desired_images={pair: shape}))


def test_a_shape_is_nothing_that_a_plan_needs() -> None:
    """What is saved of a pair that is whole already: no step, and what its tag should name."""
    made = planned(PlatformChoice())
    desired_images = {pair: DesiredImage(made.desired_images[pair].root) for pair in made.pairs}
    inventory = Inventory(
        {
            Site(p.target.host, p.target.repository): frozenset({desired_images[p].root.digest})
            for p in made.pairs
        },
        {},
        {
            (Site(p.target.host, p.target.repository), p.target.tag): desired_images[p].root.digest
            for p in made.pairs
        },
        frozenset(made.pairs),
    )
    plan = make_plan(made.pairs, made.graph, inventory, desired_images)
    saved: SavedPlan = load_plan(
        save_plan(
            msgspec.structs.replace(made, plan=plan, desired_images=desired_images, inventory=inventory)
        ),
        "a",
    )
    assert saved.steps == () and all(image.steps == () for image in saved.images)
