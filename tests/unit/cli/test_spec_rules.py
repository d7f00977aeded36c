"""Specs whose tags are chosen by rules, and names at the targets by rules."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from blobflow.cli import cli
from blobflow.cli.inputs.expansion import ExpandedRequest, expand
from blobflow.cli.inputs.renaming import RenameRule, apply_rename, check_rename_rule
from blobflow.cli.inputs.spec import parse_spec
from blobflow.cli.inputs.spec_keys import spec_schema
from blobflow.errors import InvalidReference, NotFound, UsageError
from blobflow.oci.reference import check_host, check_repository
from blobflow.oci.tag_selection.rules import TagRules
from blobflow.operations.tags.search import ChosenTags, TagSearch


def spec(entries: str, defaults: str = "{source: 'r:1/top', targets: ['t:1/m', 'u:1']}") -> str:
    return f"version: 1\ndefaults: {defaults}\nimages:\n{entries}\n"


def settled(entries: str, *found: ChosenTags) -> ExpandedRequest:
    """What a spec comes to if its rules find this, in the order of its searches."""
    asked = parse_spec(spec(entries), "s.yaml")
    return expand(asked, {search: (each,) for search, each in zip(asked.searches, found, strict=True)})


def targets(result: ExpandedRequest) -> list[str]:
    return [str(pair.target) for pair in result.pairs if pair.target.host == "u:1"]


RULES = {
    "{newest: 3}": TagRules(newest=3),
    "{include: [a, b], exclude: ['c.*']}": TagRules(("a", "b"), ("c.*",)),
    "{semver: '>=1.2 <2'}": TagRules(semver=(">=1.2 <2",)),
    "{semver: ['1', '3.x'], prereleases: true}": TagRules(semver=("1", "3.x"), prereleases=True),
    "{newest: 1, by: created}": TagRules(newest=1, by="created"),
    "{}": TagRules(),
}


@pytest.mark.parametrize(("text", "rules"), RULES.items(), ids=RULES)
def test_rules_are_read(text: str, rules: TagRules) -> None:
    asked = parse_spec(spec(f"- {{image: app, tags: {text}}}"), "s.yaml")
    assert asked.searches == [TagSearch("r:1", "top/app", rules)]
    assert asked.host_names == (frozenset({"r:1"}), frozenset({"t:1", "u:1"}))


REFUSED = {
    "a key with a mistake": (
        "- {image: a, tags: {includes: [x]}}",
        "line 4: unknown key `includes`; did you mean `include`?",
    ),
    "a key of the rules outside": (
        "- {image: a, newest: 3}",
        "line 4: unknown key `newest`; did you mean `newest` under `tags`?",
    ),
    "a key in a rename": (
        "- {image: a, rename: {tags: x}}",
        "line 4: unknown key `tags`; did you mean `tag`?",
    ),
    "a key in a replacement": (
        "- {image: a, rename: {tag: {match: x, with: y}}}",
        "line 4: unknown key `with`",
    ),
    "half a replacement": (
        "- {image: a, rename: {tag: {match: x}}}",
        "images[0].rename.tag: it misses the field `replace`",
    ),
    "a number for a range": (
        "- {image: a, tags: {semver: 1.2}}",
        "1.2, which YAML reads as a number; quote it: '1.2'",
    ),
    "a way that is none": (
        "- {image: a, tags: {newest: 1, by: size}}",
        "images[0].tags.by is 'size'; it can be created or version",
    ),
    "a bad expression": (
        "- {image: a, tags: {include: ['(']}}",
        "s.yaml line 4: '(' is no regular expression",
    ),
    "a bad range": ("- {image: a, tags: {semver: new}}", "s.yaml line 4: 'new' is no range of versions"),
    "a date without a number": ("- {image: a, tags: {by: created}}", "add `newest: N`"),
    "rules and a tag": ("- {image: 'a:1', tags: {newest: 1}}", "has `tags` as well as a tag"),
    "a key twice, deep": (
        "- {image: a, tags: {newest: 1, newest: 2}}",
        "line 4: `newest` is there already, at line 4",
    ),
    "a word that stands for nothing": (
        "- {image: a, rename: {tag: '{version}'}}",
        "{version} in '{version}' stands for nothing",
    ),
    "a group that is not there": (
        r"- {image: a, rename: {tag: {match: x, replace: '\1'}}}",
        "can't replace 'x'",
    ),
    "two names": (
        "- {image: a, target: b, rename: {repository: c}}",
        "has a `target` as well as `rename.repository`",
    ),
}


@pytest.mark.parametrize(("entries", "sentence"), REFUSED.values(), ids=REFUSED)
def test_bad_rules_are_refused_in_one_sentence(entries: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(spec(entries), "s.yaml")
    assert sentence in str(caught.value)


def test_a_layouts_tags_are_not_chosen_by_rules() -> None:
    with pytest.raises(UsageError, match="rules choose among the tags of a registry"):
        parse_spec(spec("- {image: a, tags: {newest: 1}}", "{source: 'oci:d', targets: ['t:1']}"), "s.yaml")


def test_what_was_found_is_mirrored_to_every_target() -> None:
    result = settled("- {image: app, tags: {newest: 2}}", ChosenTags("top/app", ("2", "3")))
    assert [f"{pair.source} {pair.target}" for pair in result.pairs] == [
        "r:1/top/app:2 t:1/m/app:2",
        "r:1/top/app:2 u:1/app:2",
        "r:1/top/app:3 t:1/m/app:3",
        "r:1/top/app:3 u:1/app:3",
    ]


def test_an_image_may_be_chosen_twice_and_named_besides() -> None:
    entries = "- {image: app, tags: {newest: 2}}\n- {image: app, tags: {semver: 2.x}}\n- app:2"
    found = ChosenTags("top/app", ("2", "3"))
    assert targets(settled(entries, found, found)) == ["u:1/app:2", "u:1/app:3"]


def test_what_could_not_be_found_is_lost_at_every_target_and_the_rest_goes_on() -> None:
    error = NotFound("r:1 has no tags of top/app")
    result = settled("- {image: app, tags: {newest: 2}}\n- x:1", ChosenTags("top/app", error=error))
    assert [f"{pair.source} {pair.target}" for pair in result.unresolved] == [
        "r:1/top/app t:1/m/app",
        "r:1/top/app u:1/app",
    ]
    assert set(result.unresolved.values()) == {error}
    assert targets(result) == ["u:1/x:1"]


def test_asking_for_dates_is_noted() -> None:
    result = settled(
        "- {image: app, tags: {newest: 1, by: created}}", ChosenTags("top/app", ("2",), dated=40)
    )
    assert result.notes == (
        "s.yaml line 4: 40 tags of r:1/top/app were asked for their date, by two requests each, or three for"
        " an index",
    )


RENAMES: dict[str, tuple[str, str]] = {
    "a template for the repository": ("{repository: 'base/{name}'}", "u:1/base/c:1.2"),
    "all words": ("{repository: '{path}/{name}-{tag}', tag: 't-{tag}'}", "u:1/b/c/c-1.2:t-1.2"),
    "an expression that matches": (r"{repository: {match: 'b/(.*)', replace: 'x/\1/y'}}", "u:1/x/c/y:1.2"),
    "one that does not": ("{repository: {match: 'c', replace: 'x'}}", "u:1/b/c:1.2"),
    "a tag": (r"{tag: {match: '1\.(\d)', replace: 'one-\1'}}", "u:1/b/c:one-2"),
}


@pytest.mark.parametrize(("rename", "target"), RENAMES.values(), ids=RENAMES)
def test_names_at_the_target_are_made_by_rules(rename: str, target: str) -> None:
    assert targets(settled(f"- {{image: 'b/c:1.2', rename: {rename}}}")) == [target]


@pytest.mark.parametrize("rename", ["{repository: 'BIG'}", "{tag: 'a b'}", "{tag: '{path}'}"])
def test_a_name_that_is_none_is_told_with_its_line(rename: str) -> None:
    with pytest.raises(InvalidReference, match=r"^s.yaml line 4: "):
        settled(f"- {{image: 'b/c:1.2', rename: {rename}}}")


def test_a_digest_alone_keeps_having_no_tag() -> None:
    digest = "sha256:" + "ab" * 32
    assert targets(settled(f"- {{image: 'a@{digest}', rename: {{tag: x}}}}")) == [f"u:1/a@{digest}"]


def test_the_schema_knows_every_key_and_describes_it() -> None:
    document: Any = spec_schema()
    assert document["$ref"] == "#/$defs/Spec"
    for name, definition in document["$defs"].items():
        assert definition["additionalProperties"] is False, name
        assert definition["description"], name
    entry = document["$defs"]["Entry"]["properties"]
    assert {"image", "tags", "target", "rename", "platforms", "index"} <= set(entry)
    assert {"$ref": "#/$defs/Tags"} in entry["tags"]["anyOf"]
    for keys in (entry, document["$defs"]["Tags"]["properties"]):
        assert all(key.get("description") for key in keys.values())


def test_sync_prints_the_schema_and_wants_nothing_else_then() -> None:
    done = CliRunner().invoke(cli, ["sync", "--schema"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == json.loads(json.dumps(spec_schema()))


@pytest.mark.parametrize(
    ("host", "component"),
    [
        ("r.example", "r.example"),
        ("r.example:5000", "r.example_5000"),
        ("127.0.0.1:5000", "127.0.0.1_5000"),
        ("[::1]:5000", "0--1_5000"),
        ("[fe80::]", "fe80--0"),
        ("[2001:db8::1]", "2001-db8--1"),
    ],
)
def test_a_host_in_a_name_has_no_colon(host: str, component: str) -> None:
    rule = check_rename_rule(RenameRule(template="{host}/{path}"))
    made = apply_rename(rule, "team/app", host=host, path="team/app", tag="1")
    assert made == f"{component}/team/app"
    assert check_repository(f"mirror/{made}")
    assert check_host(host) == host
