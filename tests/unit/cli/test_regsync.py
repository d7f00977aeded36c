"""regsync.yml as regsync reads it: what chooses, what is refused, what is told, templates and times."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from blobflow.cli.inputs.expansion import expand
from blobflow.cli.inputs.go_templates import render_template
from blobflow.cli.inputs.regsync_schedule import EntryTimes
from blobflow.cli.inputs.requests import MirrorRequest
from blobflow.cli.inputs.spec_formats import read_spec
from blobflow.cli.runtime.cron import Interval, Schedule, parse_cron
from blobflow.errors import InvalidConfig, UsageError
from blobflow.oci.platform_choice import EVERYTHING
from blobflow.oci.tag_selection.matching import matching_tags
from blobflow.oci.tag_selection.rules import TagRules
from blobflow.operations.tags.search import ChosenTags
from blobflow.transports.registry import Credentials, HostSettings

VERSIONS = ["1.0.0", "1.0.1", "1.1.0", "1.1.0-rc1", "2.0.0", "2.0.0-rc1", "3-alpine", "10.0.17763.2114", "v2"]
TAGS = [*VERSIONS, "latest", "latest-debug", "edge"]


def read(text: str, **environ: str) -> MirrorRequest:
    return read_spec(text, "f.yml", environ=environ)


def entry(more: str = "", head: str = "") -> str:
    """A file with one entry, which is in its line 3; `more` goes into it, `head` above it."""
    lines = [head or "version: 1", "sync:", f"- {{source: r.example/app, target: 't:1/app', {more}}}"]
    return "\n".join(lines)


def repository(more: str = "", head: str = "") -> str:
    return entry(f"type: repository, {more}", head)


def chosen(text: str) -> list[str]:
    """The tags that the rules of a file's only entry choose."""
    (search,) = read(text).searches
    return matching_tags(TAGS, search.tags)


CHOOSES = [
    ("", TAGS),
    ("tags: , tagSets: , repos: ", TAGS),
    ("tags: {allow: , deny: , semverRange: }", TAGS),
    ("tags: {allow: [latest, '[[:alpha:]]+']}", ["latest", "edge"]),
    ("tags: {deny: ['.*[[:digit:]].*']}", ["latest", "latest-debug", "edge"]),
    ("tagSets: [{allow: ['1\\.0\\.0']}, {semverRange: ['>=2.0.0']}]",
     ["1.0.0", "2.0.0", "3-alpine", "10.0.17763.2114", "v2"]),
    ("tagSets: [{allow: [edge]}], tags: {allow: [latest]}", ["latest", "edge"]),
    ("tagSets: [{allow: [edge]}], tags: {}", ["edge"]),
    ("tagSets: [{allow: [edge]}, {}]", TAGS),
    ("tagSets: []", TAGS),
    ("tags: {semverRange: ['=1.0', '>1.0.1 <1.1', '^2']}",
     ["1.0.0", "1.1.0-rc1", "2.0.0", "3-alpine", "v2"]),
    ("tags: {semverRange: ['>=1'], allow: ['\\d\\.\\d\\.\\d'], deny: ['1\\.0.*']}", ["1.1.0", "2.0.0"]),
    ("tags: {semverRange: ['', '=1.0']}", ["1.0.0"]),
    ("tags: {semverRange: ['']}", TAGS),
    ("tags: {allow: ['latest|edge']}", ["latest", "latest-debug", "edge"]),
    ("tags: {allow: ['(latest|edge)']}", ["latest", "edge"]),
]  # fmt: skip


@pytest.mark.parametrize(("more", "tags"), CHOOSES, ids=[row[0] or "nothing" for row in CHOOSES])
def test_the_tags_are_those_that_regsync_would_take(more: str, tags: list[str]) -> None:
    assert chosen(repository(more)) == tags


def test_a_choice_that_is_only_half_bound_is_told() -> None:
    (told,) = read(repository("tags: {allow: ['latest|edge', '(a|b)']}")).warnings
    assert told.startswith("f.yml line 3: `latest|edge` is ^latest|edge$ to regsync")


def test_repositories_of_a_registry_are_chosen_alike() -> None:
    text = entry("type: registry, repos: {allow: ['team/.*'], deny: ['team/old']}").replace(
        "r.example/app", "r.example"
    )
    (search,) = read(text.replace("t:1/app", "t:1")).searches
    assert matching_tags(["team/a", "team/old", "my/team/a"], search.repositories) == ["team/a"]


@pytest.mark.parametrize(
    ("head", "more", "lookup"),
    [
        ("", "", "off"),
        ("", "referrers: false", "off"),
        ("", "referrers: true", "always"),
        ("", "digestTags: true", "always"),
        ("", "referrers: true, fastCheck: true", "auto"),
        ("defaults: {referrers: true, fastCheck: true}", "", "auto"),
        ("defaults: {referrers: true}", "referrers: false", "off"),
        ("defaults: {referrers: true}", "referrers: ", "always"),
    ],
)
def test_referrers_are_looked_for_where_the_file_asks_for_them(head: str, more: str, lookup: str) -> None:
    assert read(entry(f"type: image, {more}", head)).images[0].referrers == lookup


REFUSED = {
    "tagsets: [{allow: [a]}]": "unknown key `tagsets`; did you mean `tagSets`",
    "tags: {allows: [a]}": "unknown key `allows`; did you mean `allow`",
    "tagSets: [{semver: ['>1']}]": "unknown key `semver`",
    "repos: {semverRange: ['>1']}": "unknown key `semverRange`",
    "newestTags: 3": "unknown key `newestTags`",
    "tagSets: {allow: [a]}": "expected `list",
    "tags: {allow: a}": "expected `list",
    "tags: {allow: ['(']}": r"line 3: '(' is no regular expression",
    "tags: {deny: ['a(?!b)']}": "'a(?!b)' is no regular expression: RE2, whose",
    "tags: {semverRange: ['>=1 || 3']}": "is no range of versions for regsync, at '||'",
    "referrers: true, referrerFilters: [{artifactType: a/b}]": "`referrerFilters` can't be carried out",
    "referrers: true, referrerSource: r.example/sigs": "`referrerSource` can't be carried out",
    "referrers: true, referrerTarget: r.example/sigs": "`referrerTarget` can't be carried out",
    "referrers: perhaps": "referrers: expected `true or false`, got `text`",
    "platforms: [linux]": "linux",
}


@pytest.mark.parametrize(("more", "sentence"), REFUSED.items(), ids=REFUSED)
def test_what_chooses_and_can_t_be_carried_out_is_an_error(more: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=r"^f\.yml line 3: ") as caught:
        read(repository(more))
    assert sentence in str(caught.value)


@pytest.mark.parametrize("key", ["sink", "default"])
def test_a_key_that_is_not_known_is_an_error_at_the_top_too(key: str) -> None:
    with pytest.raises(InvalidConfig, match=f"line 1: unknown key `{key}`"):
        read(entry("type: image", f"{key}: []"))


def test_what_chooses_nothing_away_is_no_matter() -> None:
    types = [f"application/vnd.{each}+json" for each in (
        "docker.distribution.manifest.v2", "docker.distribution.manifest.list.v2", "oci.image.manifest.v1",
        "oci.image.index.v1", "docker.distribution.manifest.v1", "oci.artifact.manifest.v1",
    )]  # fmt: skip
    filters = "referrerFilters: [{artifactType: a/b, annotations: {x: y}}], referrerSource: r.example/sigs"
    asked = read(repository(f"mediaTypes: [{', '.join(types)}], {filters}"))
    assert asked.warnings == ()
    assert asked.images[0].choice == EVERYTHING


INDEXES = "mediaTypes: [application/vnd.oci.image.index.v1+json]"


def test_media_types_choose_among_the_tags() -> None:
    types = ("application/vnd.oci.image.index.v1+json",)
    assert [each.tags for each in read(repository(f"{INDEXES}, tags: {{allow: [a]}}")).searches] == [
        TagRules(("^a$",), anywhere=True, types=types)
    ]
    asked = read(entry(f"type: image, {INDEXES}").replace("r.example/app", "r.example/app:1.0"))
    (search,) = asked.searches
    assert search.tags.types == types
    assert matching_tags(["1.0", "1x0", "1.0.1"], search.tags) == ["1.0"]
    (pair,) = expand(asked, {search: (ChosenTags("app", ("1.0",)),)}).pairs
    assert (str(pair.source), str(pair.target)) == ("r.example/app:1.0", "t:1/app:latest")
    left_out = expand(asked, {search: (ChosenTags("app", others=1),)})
    assert (left_out.pairs, left_out.unresolved) == ((), {})
    assert left_out.notes == (
        "f.yml line 3: 1 tag of r.example/app left out, of a media type that is not wanted",
    )
    with pytest.raises(InvalidConfig, match="named by its digest"):
        read(entry(f"type: image, {INDEXES}").replace("r.example/app", f"r.example/app@sha256:{'0' * 64}"))


def test_keys_for_people_and_anchors_are_no_keys() -> None:
    text = """\
x-common: &common {type: repository, x-why: so, referrers: true, fastCheck: true}
version:
creds:
defaults:
sync:
- {<<: *common, source: r.example/a, target: 't:1/a', platforms: }
- {<<: *common, source: r.example/b, target: 't:1/b', x-team: c}
"""
    asked = read(text)
    assert [each.referrers for each in asked.images] == ["auto", "auto"]
    assert asked.warnings == ()


def test_a_key_that_only_says_how_is_told_once() -> None:
    text = """\
defaults: {parallel: 2, skipDockerConfig: false, blobLimit: 0, userAgent: x, backup: 'b-{{.Ref.Tag}}'}
sync:
- {source: r.example/a, target: 't:1/a', type: image, backup: o, forceRecursive: true, includeExternal: true}
- {source: r.example/b, target: 't:1/b', type: image, backup: o, forceRecursive: false, hooks: {pre: {}}}
- {source: r.example/c, target: 't:1/c', type: image, backup: old, fastCopy: true, ratelimit: {min: 5}}
"""
    told = [each.partition(" has no effect: ")[::2] for each in read(text).warnings]
    assert [where for where, _ in told] == [
        "f.yml line 1: `parallel`",
        "f.yml line 1: `userAgent`",
        "f.yml line 3: `forceRecursive`",
        "f.yml line 3: `includeExternal`",
        "f.yml line 4: `hooks`",
        "f.yml line 5: `fastCopy`",
        "f.yml line 5: `ratelimit`",
    ]
    assert all(why for _, why in told)


def test_an_image_of_one_platform_is_told_once() -> None:
    more = "type: image, platform: linux/amd64"
    text = entry(more) + "\n" + entry(more).splitlines()[2].replace("app", "b")
    (told,) = read(text).warnings
    assert told.startswith("f.yml lines 3, 4: of `platform` an index of that one is put")


# Hosts


def test_what_is_said_of_hosts_is_theirs() -> None:
    head = """\
creds: [{registry: docker.io, hostname: registry-1.docker.io, token: t, mirrors: [c.example:5000, m.example]},
 {registry: 'c.example:5000', pathPrefix: /hub/, tls: Disabled, priority: 5},
 {registry: m.example, scheme: http, tls: , reqConcurrent: 3}, {registry: i.example, tls: insecure}]"""
    assert read(entry("type: image", head)).hosts == {
        "docker.io": HostSettings(
            credentials=Credentials(identity_token="t"), mirrors=("c.example:5000/hub", "m.example")
        ),
        "c.example:5000": HostSettings(http=True),
        "m.example": HostSettings(http=True, connections=3),
        "i.example": HostSettings(verify=False),
    }


def test_a_registry_with_a_hostname_is_asked_there() -> None:
    head = """\
creds: [{registry: docker.io, hostname: hub.example, user: joe, pass: p, mirrors: [m]},
 {registry: 't:1', hostname: 't.svc:5000', tls: disabled}, {registry: m, hostname: m.svc, pathPrefix: hub}]"""
    asked = read(entry("type: image", head).replace("r.example/app", "alpine:3"))
    (pair,) = expand(asked, {}).pairs
    assert (str(pair.source), str(pair.target)) == ("hub.example/library/alpine:3", "t.svc:5000/app:latest")
    assert asked.hosts == {
        "hub.example": HostSettings(credentials=Credentials("joe", "p"), mirrors=("m.svc/hub",)),
        "t.svc:5000": HostSettings(http=True),
        "m.svc": HostSettings(),
    }
    asked = read(
        entry("type: registry", head).replace("r.example/app", "docker.io").replace("t:1/app", "t:1")
    )
    assert [search.host for search in asked.searches] == ["hub.example"]


@pytest.mark.parametrize(
    ("creds", "sentence"),
    [
        ("{registry: r.example, hostname: 'o o'}", "'o o' is not a registry host"),
        ("{registry: r.example, pathPrefix: hub}", "r.example has a pathPrefix and is no mirror"),
        ("{registry: r.example, password: x}", "unknown key `password`"),
        ("{registry: r.example, pass: '{{file \"/nowhere/x\"}}'}", "can't read /nowhere/x: No such file"),
    ],
)
def test_hosts_that_would_be_others_are_refused(creds: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(entry("type: image", f"creds: [{creds}]"))
    assert sentence in str(caught.value)


def test_a_layout_is_named_with_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"f.yml line 3: 'ocidir://a' is a layout; `blobflow copy`"):
        read(entry("type: image").replace("r.example/app", "ocidir://a"))


# Times

TIMES: dict[tuple[str, str], Schedule] = {
    ("60m", ""): Interval(3600, 0),
    ("1h30m0s", ""): Interval(5400, 0),
    ("1.5h", ""): Interval(5400, 0),
    ("2h0.5s", ""): Interval(7200.5, 0),
    ("90000ms", ""): Interval(90, 0),
    ("1h", "15 01 * * *"): parse_cron("15 1 * * *"),
    ("", "0 3 ? * MON-FRI"): parse_cron("0 3 * * mon-fri"),
    ("", "@daily"): parse_cron("@daily"),
    ("", "@every 90m"): Interval(5400, 0),
    ("", "CRON_TZ=Europe/Berlin 0 3 * * *"): parse_cron("0 3 * * *", ZoneInfo("Europe/Berlin")),
}


@pytest.mark.parametrize(("said", "schedule"), TIMES.items(), ids=map(str, TIMES))
def test_an_entry_s_time_is_read_as_go_and_its_cron_library_have_it(
    said: tuple[str, str], schedule: Schedule
) -> None:
    times = EntryTimes("f.yml")
    assert times.read(3, *said) == schedule
    assert times.unread == ()
    assert times.hint == (
        "f.yml: this runs once; `interval` and `schedule` are kept, each entry's own, by"
        " `blobflow sync f.yml --every spec`"
    )


def test_times_that_can_t_be_read_are_told_with_their_lines() -> None:
    times = EntryTimes("f.yml")
    for line, interval, schedule in (
        (3, "60 minutes", ""), (4, "1h", ""), (5, "60 minutes", ""), (6, "", "x y"), (7, "5ms", ""),
        (8, "", "TZ=Nowhere/Else @daily"),
    ):  # fmt: skip
        times.read(line, interval, schedule)
    assert (
        "; some can't be read: '60 minutes' is no span of time (lines 3, 5), 'x y' is no cron" in times.hint
    )
    assert times.hint.endswith(", and 1 more")
    assert times.unread[0] == "f.yml lines 3, 5: '60 minutes' is no span of time"
    assert times.unread[2] == "f.yml line 7: '5ms' is too short; a second is the least"
    assert times.unread[3] == "f.yml line 8: 'Nowhere/Else' is no zone of time that is known here"


def test_a_name_is_quoted_as_a_shell_wants_it_and_no_times_are_no_sentence() -> None:
    times = EntryTimes("my file.yml")
    assert (times.read(1, "", ""), times.hint) == (None, "")
    times.read(2, "1h", "")
    assert "`blobflow sync 'my file.yml' --every spec`" in times.hint


def test_an_entry_s_own_times_go_before_the_defaults() -> None:
    head = "defaults: {schedule: '@daily'}"
    for own, above, wanted in (
        ("interval: 1h", head, Interval(3600, 0)),
        ("type: image", head, parse_cron("@daily")),
        ("schedule: '@hourly'", "defaults: {interval: 1h}", parse_cron("@hourly")),
    ):
        own = own if own.startswith("type") else f"type: image, {own}"
        assert [image.schedule for image in read(entry(own, above)).images] == [wanted]


# Templates


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{{env "A"}}', "one"),
        ("{{ env `A` }}/{{env \"B\"}}", "one/ Two "),
        ('x {{- env "A" -}} y', "xoney"),
        ('x {{- env "A" }} y', "xone y"),
        ('{{ env "NO" | default "d" }}', "d"),
        ('{{ default "d" (env "A") }}', "one"),
        ('{{ env "B" | trimSpace | upper }}', "TWO"),
        ('{{ lower "X" }}', "x"),
        ('{{ "a\\"b" }}', 'a"b'),
        ("{{/* nothing */}}a", "a"),
        ("{{ .Sync.Source }}-x", "src-x"),
        ('{{ index (split .Sync.Source "r") 1 }}', "c"),
        ('{{ join (split "a.b" ".") "-" | upper }}', "A-B"),
        ('{{ (env "A") }}', "one"),
        ('{{ env (lower "A" | upper) }}', "one"),
        ('{{ index (split "a" "b") 1 }}', None),
        ('{{ split "a" "" }}', None),
        ('{{ split "a" "b" }}', None),
        ("{{ 5 }}", None),
        ('{{ (env "A" }}', None),
        ('{{ env "A") }}', None),
        ('{{ "a" | }}', None),
        ('{{ "a" "b" }}', None),
        ('{{ "a" | "b" }}', None),
        ('{{ upper (env "NO") }}', None),
        ("{{ }}", None),
        ("{{" + "(" * 2000 + "}}", None),
        ('{{ if true }}{{ end }}', None),
        ('{{ env "NO" }}', None),
        ("{{ env }}", None),
        ("{{ | env }}", None),
        ("no template", "no template"),
    ],
)  # fmt: skip
def test_templates_are_filled_in_or_named(text: str, value: str | None) -> None:
    environ, facts = {"A": "one", "B": " Two "}, {".Sync.Source": "src"}
    if value is None:
        with pytest.raises(InvalidConfig, match=r"^the template `\{\{.*`"):
            render_template(text, environ, facts)
    else:
        assert render_template(text, environ, facts) == value


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hush\n")
    text = entry(
        "type: image", f"creds: [{{registry: r.example, user: joe, pass: '{{{{file \"{secret}\"}}}}'}}]"
    )
    assert read(text).hosts["r.example"].credentials == Credentials("joe", "hush")
    secret.write_bytes(b"a" * 70_000)
    with pytest.raises(InvalidConfig, match="has more than 65536 bytes"):
        read(text)
    secret.write_bytes(b"\xff")
    with pytest.raises(InvalidConfig, match="it is not UTF-8"):
        read(text)


def test_a_target_may_name_the_source() -> None:
    text = entry("type: image").replace("'t:1/app'", "'t:1/{{ .Sync.Source }}'")
    assert read(text).images[0].target == "r.example/app"
