"""Sets whose tags are chosen by rules, and what is removed at a target that its set no longer has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from tests.e2e.pushed_images import IMAGE, manifest_size, put_image, put_index, tags_of
from tools.processes import Registry, blobflow_serve, docker_registry, skopeo

VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "2.0.0-rc.1", "2.0.0", "latest")


@pytest.fixture(scope="module")
def registries(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Registry]]:
    """A source with an image of many versions, and two targets, of which one removes no tag by itself."""
    folder = tmp_path_factory.mktemp("rules")
    with (
        docker_registry(folder / "source") as source,
        docker_registry(folder / "docker") as debian,
        blobflow_serve(folder / "serve") as ours,
    ):
        for number, tag in enumerate(VERSIONS):
            put_image(source, "app", tag, text=tag, created=f"2024-01-0{9 - number}T00:00:00Z")
        yield {"source": source, "docker": debian, "serve": ours}


@pytest.fixture
def source(registries: dict[str, Registry]) -> Registry:
    return registries["source"]


@pytest.fixture(params=("docker", "serve"))
def target(request: pytest.FixtureRequest, registries: dict[str, Registry]) -> Registry:
    return registries[request.param]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(variable, str(tmp_path))
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def spec(folder: Path, source: Registry, target: Registry, prefix: str, *images: object) -> Path:
    path = folder / "spec.yaml"
    defaults = {"source": source.host, "targets": [f"{target.host}/{prefix}"]}
    path.write_text(json.dumps({"version": 1, "defaults": defaults, "images": images}))
    return path


def synced(
    folder: Path, source: Registry, target: Registry, prefix: str, rules: Any, *options: str, **more: Any
) -> Result:
    """A sync of `app` with these rules or tags, to `prefix`/app."""
    entry = {"image": "app", "tags": rules, **more}
    return run("sync", spec(folder, source, target, prefix, entry), *options)


RULES: list[tuple[dict[str, Any], list[str]]] = [
    ({"include": [r"1\..*"], "exclude": [r".*\.1\..*"]}, ["1.0.0", "1.2.0"]),
    ({"semver": ">=1.1 <2"}, ["1.1.0", "1.2.0"]),
    ({"newest": 2}, ["1.2.0", "2.0.0"]),
    ({"newest": 2, "by": "created"}, ["1.0.0", "1.1.0"]),
]


@pytest.mark.parametrize(("rules", "chosen"), RULES, ids=[str(rules) for rules, _ in RULES])
def test_rules_choose_tags_when_the_run_begins(
    folder: Path, source: Registry, registries: dict[str, Registry], rules: dict[str, Any], chosen: list[str]
) -> None:
    prefix = f"rules/{len(str(rules))}"
    done = synced(folder, source, registries["serve"], prefix, rules)
    assert done.exit_code == 0, done.output
    assert tags_of(registries["serve"], f"{prefix}/app") == chosen
    assert run("verify", folder / "spec.yaml").exit_code == 0


def test_the_newest_by_date_cost_two_requests_a_tag_and_the_plan_says_so(
    folder: Path, source: Registry, registries: dict[str, Registry]
) -> None:
    rules = {"include": [r"\d.*"], "newest": 2, "by": "created"}
    path = spec(folder, source, registries["serve"], "cost", {"image": "app", "tags": rules})
    source.forget()
    planned = run("plan", path)
    assert f"5 tags of {source.host}/app were asked for their date, by two requests each" in planned.output
    counts = source.requests().counts()
    assert counts["GET blobs"] == 5
    assert counts["GET manifests"] == 5 + 2, "the chosen ones are read for the plan itself"
    assert json.loads(run("plan", path, "--json").stdout)["notes"]


def test_names_at_the_target_follow_rules_too(
    folder: Path, source: Registry, registries: dict[str, Registry]
) -> None:
    target = registries["serve"]
    rename = {"repository": "base/{name}", "tag": {"match": r"1\.(.*)", "replace": r"one-\1"}}
    done = synced(folder, source, target, "names", {"semver": ["1.0.0", "2.0.0"]}, rename=rename)
    assert done.exit_code == 0, done.output
    assert tags_of(target, "names/base/app") == ["2.0.0", "one-0.0"]


def test_a_repository_of_which_nothing_is_chosen_fails_and_the_others_arrive(
    folder: Path, source: Registry, registries: dict[str, Registry]
) -> None:
    target, report = registries["serve"], folder / "report.json"
    images = [
        {"image": "app", "tags": {"semver": ">=9"}},
        {"image": "nobody", "tags": {"newest": 1}},
        {"image": "app", "tags": ["latest"]},
    ]
    done = run(
        "sync", spec(folder, source, target, "some", *images), "--report", report, "--delete-extra-tags"
    )
    assert done.exit_code == 3
    assert f"source: {source.host}/app has 6 tags, of which the rules choose none" in done.stderr
    assert "has no tags of nobody" in done.stderr
    told = json.loads(report.read_text())
    assert sorted(image["status"] for image in told["images"]) == ["done", "failed", "failed"]
    assert (told["totals"]["images"], told["totals"]["failed"], told["targets"][0]["failed"]) == (3, 2, 2)
    assert tags_of(target, "some/app") == ["latest"]


def test_a_tag_that_the_source_no_longer_has_goes_and_only_once_all_is_there(
    folder: Path, source: Registry, target: Registry
) -> None:
    report = folder / "report.json"
    assert synced(folder, source, target, "extra", ["1.0.0", "1.1.0", "1.2.0"]).exit_code == 0
    elsewhere = put_image(target, "extra/other", "1", text="elsewhere")
    options = ("--delete-extra-tags", "--max-delete", "50%", "--report", str(report))

    missing = synced(folder, source, target, "extra", ["1.1.0", "no-such-tag"], *options)
    assert missing.exit_code == 3
    assert tags_of(target, "extra/app") == ["1.0.0", "1.1.0", "1.2.0"], "not while an image is missing"

    looked = synced(folder, source, target, "extra", ["1.1.0", "2.0.0"], *options[:3], "--dry-run")
    assert looked.exit_code == 0, looked.output
    assert [line for line in looked.stdout.splitlines() if "remove" in line] == [
        f"would remove: {target.host}/extra/app:{tag}" for tag in ("1.0.0", "1.2.0")
    ]
    assert tags_of(target, "extra/app") == ["1.0.0", "1.1.0", "1.2.0"]

    done = synced(folder, source, target, "extra", ["1.1.0", "2.0.0"], *options)
    assert done.exit_code == 0, done.output
    assert tags_of(target, "extra/app") == ["1.1.0", "2.0.0"]
    removed = json.loads(report.read_text())["tags"]
    assert [(tag["target"].rpartition(":")[2], tag["status"]) for tag in removed] == [
        ("1.0.0", "removed"),
        ("1.2.0", "removed"),
    ]
    assert target.digest_of("extra/other", "1") == elsewhere, "only the named repositories are looked at"


def test_more_than_is_allowed_removes_nothing(folder: Path, source: Registry, target: Registry) -> None:
    assert synced(folder, source, target, "most", list(VERSIONS)).exit_code == 0
    looked = synced(folder, source, target, "most", list(VERSIONS[2:]), "--delete-extra-tags", "--dry-run")
    assert looked.stdout.count("more than --max-delete 20 % allows") == 2
    done = synced(folder, source, target, "most", list(VERSIONS[2:]), "--delete-extra-tags")
    assert done.exit_code == 3
    assert (
        "nothing was removed: 2 of 6 tags at the targets are not in the selection, more than" in done.stderr
    )
    assert tags_of(target, "most/app") == sorted(VERSIONS)
    done = synced(
        folder, source, target, "most", list(VERSIONS[2:]), "--delete-extra-tags", "--max-delete", "2"
    )
    assert done.exit_code == 0, done.output
    assert tags_of(target, "most/app") == sorted(VERSIONS[2:])


def test_a_mirror_without_a_tag_too_many_costs_one_listing(
    folder: Path, source: Registry, registries: dict[str, Registry]
) -> None:
    target = registries["docker"]
    counts = []
    for options in ((), ("--delete-extra-tags",)):
        assert synced(folder, source, target, "cheap", ["1.0.0", "1.1.0"]).exit_code == 0
        target.forget()
        assert synced(folder, source, target, "cheap", ["1.0.0", "1.1.0"], *options).exit_code == 0
        counts.append(target.requests().counts())
    assert counts[1] - counts[0] == {"GET tags": 1}


def test_what_kept_images_need_stays_where_tags_go_only_with_their_manifests(
    folder: Path, source: Registry, registries: dict[str, Registry]
) -> None:
    """Tags of a child of a kept index, and of a kept image: removed at one registry, left at the other."""
    children = [put_image(source, "multi", text=text) for text in ("left", "right")]
    index = put_index(source, "multi", children, "1")
    signed = children[0].replace(":", "-") + ".sig"
    for name, target in (("docker", registries["docker"]), ("serve", registries["serve"])):
        entry = {"image": "multi", "tags": ["1"]}
        assert run("sync", spec(folder, source, target, "held", entry)).exit_code == 0
        assert run("tag", f"{target.host}/held/multi@{children[1]}", "1-right").exit_code == 0
        assert run("tag", f"{target.host}/held/multi:1", "same").exit_code == 0
        put_image(target, "held/multi", signed, text="signature")
        gone = put_image(target, "held/multi", "gone", "gone-too", text="gone")
        done = run(
            "sync", spec(folder, source, target, "held", entry), "--delete-extra-tags", "--max-delete", "90%"
        )
        assert done.exit_code == 0, done.output
        kept = {"1", signed} | ({"1-right", "same"} if name == "docker" else set())
        assert set(tags_of(target, "held/multi")) == kept
        if name == "docker":
            assert "held/multi:1-right: 127.0.0.1" in done.stdout
            assert "the index 1 lists it" in done.stdout and "1 names it too" in done.stdout
            assert target.digest_of("held/multi", gone) is None
        assert target.digest_of("held/multi", "1") == index
        assert all(target.digest_of("held/multi", child) for child in children)


def test_the_signatures_of_kept_images_stay_and_those_of_others_go(
    folder: Path, source: Registry, target: Registry
) -> None:
    """By cosign's tags and by a list of referrers under the fallback tag, mirrored with their images."""
    listed = {}
    for tag in ("1", "2"):
        image = put_image(source, "signed", tag, text=tag)
        subject = {"mediaType": IMAGE, "digest": image, "size": manifest_size(source, "signed", image)}
        referrer = put_image(source, "signed", text=f"sbom {tag}", subject=subject)
        put_index(source, "signed", [referrer], image.replace(":", "-"))
        put_image(source, "signed", f"{image.replace(':', '-')}.sig", text=f"signature {tag}")
        listed[tag] = {tag, f"{image.replace(':', '-')}.sig", image.replace(":", "-")}
    options = ("--delete-extra-tags", "--max-delete", "100%")
    path = spec(folder, source, target, "hung", {"image": "signed", "tags": ["1", "2"]})
    assert run("sync", path).exit_code == 0
    before = set(tags_of(target, "hung/signed"))
    assert {tag for tag in before if tag.endswith((".sig", "1", "2"))} >= {"1", "2"}
    path = spec(folder, source, target, "hung", {"image": "signed", "tags": ["1"]})
    done = run("sync", path, *options)
    assert done.exit_code == 0, done.output
    assert set(tags_of(target, "hung/signed")) == before & listed["1"]
    assert len(before & listed["1"]) >= 2, "the image and its signature"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--max-delete", "5"), "--max-delete is about --delete-extra-tags"),
        (("--delete-extra-tags", "--max-delete", "lots"), "is no limit of removals"),
        (("--to", "127.0.0.1:1/x"), "says itself where its images go"),
        (("--scoped",), "--scoped is about skopeo's YAML"),
    ],
)
def test_options_that_contradict_are_a_sentence(
    folder: Path, source: Registry, options: tuple[str, ...], sentence: str
) -> None:
    done = synced(folder, source, source, "never", ["1.0.0"], *options)
    assert (done.exit_code, sentence in done.stderr) == (2, True), done.output


def test_tags_of_a_layout_are_nobodys_to_remove(folder: Path, source: Registry) -> None:
    path = folder / "list"
    path.write_text("app:1.0.0\n")
    done = run(
        "sync", "--from", source.host, "--to", f"oci:{folder}/layout", "--images", path, "--delete-extra-tags"
    )
    assert done.exit_code == 2
    assert "is no registry" in done.stderr


SKOPEO = """\
{host}:
  images:
    app: [1.0.0]
  images-by-tag-regex:
    app: ^1\\.1
  images-by-semver:
    app: '>=2.0.0-0'
  tls-verify: false
"""
REGSYNC = """\
version: 1
creds:
  - {{registry: '{host}', tls: disabled}}
defaults: {{interval: 60m}}
sync:
  - {{source: '{host}/app:latest', target: '{target}/regsync/one:mine', type: image}}
  - {{source: '{host}/app', target: '{target}/regsync/some', type: repository,
     tags: {{allow: ['1\\..*'], deny: ['1\\.0.*']}}}}
  - {{source: '{host}', target: '{target}/regsync/all', type: registry,
     repos: {{allow: [app]}}, tags: {{allow: [latest]}}}}
"""


def test_files_of_skopeo_and_regsync_are_read_as_they_are(
    folder: Path, source: Registry, registries: dict[str, Registry]
) -> None:
    target, path = registries["serve"], folder / "other.yml"
    path.write_text(SKOPEO.format(host=source.host))
    done = run("sync", path, "--to", f"{target.host}/skopeo")
    assert done.exit_code == 0, done.output
    assert tags_of(target, "skopeo/app") == ["1.0.0", "1.1.0", "2.0.0", "2.0.0-rc.1"]
    assert run("sync", path).exit_code == 2, "it does not say where to"

    path.write_text(REGSYNC.format(host=source.host, target=target.host))
    done = run("sync", path)
    assert done.exit_code == 0, done.output
    assert f"`blobflow sync {path} --every spec`" in done.stderr
    assert tags_of(target, "regsync/one") == ["mine"]
    assert tags_of(target, "regsync/some") == ["1.1.0", "1.2.0"]
    assert tags_of(target, "regsync/all/app") == ["latest"]


SETS = """\
defaults: {{interval: 12h}}
sync:
  - source: {host}/app
    target: {target}/sets
    type: repository
    tagSets:
      - allow: ['[[:alpha:]]+']
      - semverRange: ['>=2.0.0-rc.1']
  - {{source: '{host}/app:1.0.0', target: '{target}/one:a', type: image, schedule: '15 3 * * *'}}
"""


def test_sets_of_tags_are_one_choice_and_times_are_told_once(
    folder: Path, source: Registry, registries: dict[str, Registry]
) -> None:
    target, path = registries["serve"], folder / "regsync.yml"
    path.write_text(SETS.format(host=source.host, target=target.host))
    done = run("sync", path)
    assert done.exit_code == 0, done.output
    assert tags_of(target, "sets") == ["2.0.0", "2.0.0-rc.1", "latest"]
    (told,) = [line for line in done.stderr.splitlines() if "--every" in line or "--cron" in line]
    assert f"are kept, each entry's own, by `blobflow sync {path} --every spec`" in told
    path.write_text(path.read_text().replace("tagSets", "tagSet"))
    refused = run("sync", path)
    assert refused.exit_code == 2
    assert "unknown key `tagSet`; did you mean `tagSets`?" in refused.stderr


def test_what_media_types_leave_out_is_no_failure(
    folder: Path, source: Registry, registries: dict[str, Registry]
) -> None:
    target, path = registries["serve"], folder / "regsync.yml"
    path.write_text(
        f"defaults: {{mediaTypes: [application/vnd.oci.image.index.v1+json]}}\n"
        f"sync: [{{source: '{source.host}/app:1.0.0', target: '{target.host}/indexes', type: image}},\n"
        f" {{source: '{source.host}/app', target: '{target.host}/indexes', type: repository}}]\n"
    )
    done = run("sync", path, "--report", folder / "run.json")
    assert done.exit_code == 0, done.output
    told = json.loads((folder / "run.json").read_text())
    assert (told["images"], len(told["notes"])) == ([], 2)
    assert "line 3: 6 tags of" in told["notes"][1]
    assert run("tags", f"{target.host}/indexes").exit_code != 0


SAME = """\
{host}:
  images: {{app: [1.0.0, 2.0.0], deep/er/web: []}}
  images-by-tag-regex: {{app: '1\\.[12]'}}
  tls-verify: false
"""


def test_skopeo_and_blobflow_make_the_same_of_skopeos_file(
    folder: Path, source: Registry, registries: dict[str, Registry]
) -> None:
    target, path = registries["docker"], folder / "skopeo.yml"
    put_image(source, "deep/er/web", "a", "b", text="web")
    path.write_text(SAME.format(host=source.host))
    theirs = ("--src", "yaml", "--dest", "docker", "--all", "--dest-tls-verify=false")
    done = skopeo("sync", *theirs, path, f"{target.host}/theirs", home=folder)
    assert done.code == 0, done.err
    ours = run("sync", path, "--to", f"{target.host}/ours")
    assert ours.exit_code == 0, ours.output
    for repository, there, count in (("app", "app", 4), ("web", "deep/er/web", 2)):
        tags = tags_of(target, f"theirs/{repository}")
        assert len(tags) == count
        assert tags_of(target, f"ours/{repository}") == tags
        for tag in tags:  # skopeo compresses the layers on its way
            assert target.digest_of(f"ours/{repository}", tag) == source.digest_of(there, tag)
