"""What `kubectl kustomize` would pull of folders with kustomizations: a name that an entry replaces is what
it is replaced by, and is told where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from blobflow.cli.inputs.mirror_place import places_below
from blobflow.cli.inputs.requests import parse_registry_prefix
from blobflow.deployment_files import kustomize_builds
from blobflow.deployment_files.contract import FoundImages
from blobflow.deployment_files.find import find_images
from blobflow.deployment_files.kustomize import kustomization_of
from blobflow.deployment_files.rewritten_files import RewrittenFile, rewrite_files
from blobflow.deployment_files.source_text import SourceText
from blobflow.deployment_files.yaml_tree import MappingNode, compose
from blobflow.errors import InvalidConfig

DIGEST = f"sha256:{'c' * 64}"
POD = """\
apiVersion: v1
kind: Pod
spec:
  initContainers: [{image: db:5}]
  containers:
  - image: web:1
    env: [{name: SIDE_IMAGE, value: "web:1"}]
  - image: nginx
"""
PLACE_OF = places_below(parse_registry_prefix("m.example/hub"))


def find(folder: Path, files: dict[str, str], *paths: str) -> FoundImages:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return find_images([str(folder / path) for path in paths] or [str(folder)])


def pulled(found: FoundImages) -> set[str]:
    return {str(image.reference).removeprefix("docker.io/") for image in found.images}


def base(**overlays: str) -> dict[str, str]:
    files = {"base/kustomization.yaml": "resources: [pod.yaml]\n", "base/pod.yaml": POD}
    return files | {
        f"{name}/kustomization.yaml": f"resources: [../base]\nimages:\n{entries}"
        for name, entries in overlays.items()
    }


def test_a_name_that_an_overlay_replaces_is_what_it_is_replaced_by(tmp_path: Path) -> None:
    found = find(tmp_path, base(prod="- {name: web, newName: quay.io/a/web, newTag: v2}\n"))
    assert pulled(found) == {"library/db:5", "quay.io/a/web:v2", "library/web:1", "library/nginx:latest"}
    places = [each for each in found.images if str(each.reference) == "quay.io/a/web:v2"]
    by = tmp_path / "prod" / "kustomization.yaml"
    assert [(each.path, each.line, each.written, each.field) for each in places] == [
        (str(tmp_path / "base" / "pod.yaml"), 6, "web:1", f"container (replaced by {by})"),
        (str(by), 3, "quay.io/a/web + v2", "kustomize newName + newTag"),
    ]
    # What stands in a variable, Kustomize does not replace.
    assert [each.field for each in found.images if str(each.reference).endswith("/web:1")] == ["env"]


@pytest.mark.parametrize(
    ("entry", "becomes"),
    [
        ("{name: nginx, newTag: v2}", "library/nginx:v2"),
        (f"{{name: nginx, digest: {DIGEST}}}", f"library/nginx@{DIGEST}"),
        (f"{{name: nginx, newTag: v2, digest: {DIGEST}}}", f"library/nginx:v2@{DIGEST}"),
        ("{name: nginx, newName: quay.io/n}", "quay.io/n:latest"),
        ("{name: db, newName: quay.io/db}", "quay.io/db:5"),
        ("{name: db, tagSuffix: -slim}", "library/db:5-slim"),
    ],
)
def test_an_entry_replaces_what_it_says(tmp_path: Path, entry: str, becomes: str) -> None:
    found = find(tmp_path, base(prod=f"- {entry}\n"))
    kept = {"library/db:5", "library/nginx:latest", "library/web:1"}
    gone = "library/db:5" if "db" in entry else "library/nginx:latest"
    assert pulled(found) == kept - {gone} | {becomes}
    assert found.untold == ()


def test_each_overlay_pulls_its_own(tmp_path: Path) -> None:
    found = find(tmp_path, base(a="- {name: web, newTag: a}\n", b="- {name: web, newTag: b}\n", c="[]\n"))
    assert {each for each in pulled(found) if "web" in each} == {
        f"library/web:{tag}" for tag in ("a", "b", "1")
    }


def test_entries_are_carried_out_from_below_each_on_what_those_before_made(tmp_path: Path) -> None:
    files = base(prod="- {name: quay.io/web, newTag: v3}\n- {name: quay.io/web, newName: ghcr.io/web}\n")
    files["base/kustomization.yaml"] += "images: [{name: web, newName: quay.io/web, newTag: v2}]\n"
    found = find(tmp_path, files)
    assert {each for each in pulled(found) if "web:v" in each} == {"ghcr.io/web:v3"}
    assert found.untold == ()


def test_a_component_and_a_patch_are_built_too(tmp_path: Path) -> None:
    files = base(prod="- {name: web, newTag: v2}\n") | {
        "more/kustomization.yaml": "kind: Component\nresources: [pod.yml]\n",
        "more/pod.yml": POD.replace("web:1", "web:9"),
        "prod/patch.yaml": "kind: Pod\nspec: {containers: [{image: web:7}]}\n",
    }
    files["prod/kustomization.yaml"] += "components: [../more]\npatches: [{path: patch.yaml}]\n"
    found = find(tmp_path, files)
    told = {str(each.reference) for each in found.images if each.field != "env"}
    assert {each for each in told if "web" in each} == {"docker.io/library/web:v2"}


def test_what_matches_nothing_here_may_match_what_is_elsewhere(tmp_path: Path) -> None:
    files = base(
        prod="- {name: other, newName: quay.io/other, newTag: v2}\n- {name: x, newName: quay.io/x}\n"
    )
    found = find(tmp_path, files)
    assert "quay.io/other:v2" in pulled(found)
    assert [each.written for each in found.untold] == ["quay.io/x"]


def test_an_overlay_alone_says_what_it_can(tmp_path: Path) -> None:
    found = find(tmp_path, base(prod="- {name: web, newName: quay.io/web}\n"), "prod")
    assert (pulled(found), [each.written for each in found.untold]) == (set(), ["quay.io/web"])


def test_a_tag_that_can_not_be_told_stays_untold(tmp_path: Path) -> None:
    found = find(tmp_path, base(prod="- {name: nginx, newTag: 1.10}\n"))
    assert "library/nginx:latest" not in pulled(found)
    assert [each.written for each in found.untold] == ["nginx + 1.10"]


def test_a_file_that_no_kustomization_takes_in_is_as_it_is(tmp_path: Path) -> None:
    found = find(tmp_path, base(prod="- {name: web, newTag: v2}\n") | {"plain/pod.yaml": POD})
    assert {
        each.path for each in found.images if str(each.reference).endswith("/web:1") and each.field != "env"
    } == {str(tmp_path / "plain" / "pod.yaml")}


def rewritten(found: FoundImages, folder: Path) -> dict[str, RewrittenFile]:
    made = rewrite_files(found, lambda image: PLACE_OF(image.reference))
    return {str(Path(each.path).relative_to(folder)): each for each in made}


def test_a_new_name_without_a_tag_is_rewritten_where_its_tags_are_known(tmp_path: Path) -> None:
    made = rewritten(find(tmp_path, base(prod="- {name: db, newName: quay.io/a/db}   # ours\n")), tmp_path)
    assert "newName: m.example/hub/a/db}   # ours\n" in made["prod/kustomization.yaml"].content.decode()
    assert "image: db:5" in made["base/pod.yaml"].content.decode()
    again = find(tmp_path, {f"{name}": file.content.decode() for name, file in made.items()})
    assert not any(file.changed for file in rewritten(again, tmp_path).values())
    assert "m.example/hub/a/db:5" in pulled(again)


def test_a_new_name_that_an_overlay_matches_stays(tmp_path: Path) -> None:
    files = base(prod="- {name: quay.io/web, newTag: v3}\n")
    files["base/kustomization.yaml"] += "images: [{name: web, newName: quay.io/web}]\n"
    made = rewritten(find(tmp_path, files), tmp_path)
    assert not made["base/kustomization.yaml"].changed
    assert [image.written for image, _ in made["base/kustomization.yaml"].matched] == ["quay.io/web"]


def test_more_names_than_anybody_deploys_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kustomize_builds, "_MAX_NAMES", 10)
    with pytest.raises(InvalidConfig, match="what it takes in name over 10 images"):
        find(tmp_path, base(prod="- {name: a}\n" * 5))


def test_what_is_taken_in_often_is_built_once(tmp_path: Path) -> None:
    """A file of 16 MiB may name a resource a million times."""
    again = "resources: [../base, ../base/, ./../base, ../base/kustomization.yaml]\n"
    document = compose(SourceText("a/kustomization.yaml", again))[0]
    assert isinstance(document, MappingNode)
    taken_in = kustomization_of("a/kustomization.yaml", document)
    assert taken_in.resources == ("base", "base/kustomization.yaml")
    prod = f"{again}images: [{{name: web, newTag: v2}}]\n"
    found = find(tmp_path, {**base(), "prod/kustomization.yaml": prod})
    assert [str(each.reference) for each in found.images].count("docker.io/library/web:v2") == 2
