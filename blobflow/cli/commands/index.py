"""`blobflow index`: make an index by hand: put one together here, correct it, and put it where it belongs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.index_drafts import IndexDrafts, open_index_drafts
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import LOGINS, ConnectionOptions, connection_options
from blobflow.cli.options.option_group import LabelOption, show_first
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.run import RunOptions, compress_option
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.output.units import count_text, one_line, size_text, table
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import VerbFamily
from blobflow.errors import UsageError
from blobflow.oci import Reference, parse_reference
from blobflow.oci.index_draft import DraftImage, IndexDraft, check_label, parse_label

if TYPE_CHECKING:
    from blobflow.cli.inputs.manifest_tool import IndexSpec
    from blobflow.oci.index_encoding import IndexFormat
    from blobflow.transports.archive import CompressMode

_SHOWN = 8
_format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["oci", "docker"]),
    help="The index's own format. [default: that of its images, which have to be of one kind]",
)
_force_option = click.option(
    "--force", is_flag=True, help="Keep labels that contradict what the images' configs say."
)


@click.group("index", cls=VerbFamily)
def verb() -> None:
    """Make an index (a manifest list) by hand, as `docker manifest` and manifest-tool do.

    \b
      blobflow index create HOST/app:1 HOST/app:1-amd64 HOST/app:1-arm64
      blobflow index annotate HOST/app:1 HOST/app:1-arm64 --variant v8
      blobflow index push HOST/app:1 --purge
    """


@verb.command("create", short_help="Put an index together, and stage it here.")
@show_first("amend", "push", "from_spec", "from_args", "tags", "ignore_missing", "form", *LOGINS, "quiet")
@click.argument("names", type=PLACE, metavar="TARGET REF...", nargs=-1)
@click.option("-a", "--amend", is_flag=True, help="Add to what is staged under TARGET, or replace in it.")
@click.option("--push", is_flag=True, help="Put it at once, and leave nothing staged.")
@click.option(
    "--from-spec",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Read manifest-tool's YAML: image, tags, annotations, manifests; - is stdin.",
)
@click.option("--from-args", is_flag=True, help="Take --platforms, --template and --target.")
@click.option("--platforms", multiple=True, metavar="OS/ARCH[/VARIANT],...", help="With --from-args.")
@click.option("--template", metavar="REF", help="With --from-args: REF with OS, ARCH and VARIANT in it.")
@click.option("--target", metavar="REF", help="With --from-args: the index.")
@click.option("--tags", multiple=True, metavar="TAG,...", help="More tags for the index.")
@click.option("--ignore-missing", is_flag=True, help="Leave images out that are not there, with a warning.")
@_format_option
@_force_option
@compress_option
@connection_options
def create(
    names: tuple[str, ...],
    amend: bool,
    push: bool,
    from_spec: Path | None,
    from_args: bool,
    platforms: tuple[str, ...],
    template: str | None,
    target: str | None,
    tags: tuple[str, ...],
    ignore_missing: bool,
    form: IndexFormat | None,
    force: bool,
    compress: CompressMode,
    connection: ConnectionOptions,
) -> None:
    """Put an index together of images, and stage it here until `push`.

    Each image's platform is read from its config. Of a REF that is an index itself all images are taken. An
    image whose label (a spec's, a template's, an index's, or its tag's `-arm64`) contradicts its config is
    refused.
    """
    if not from_args and (platforms or template or target):
        raise UsageError("--platforms, --template and --target go with --from-args")
    if bool(names) + bool(from_spec) + from_args != 1:
        raise UsageError("give TARGET and REFs, or --from-spec FILE, or --from-args, and only one of these")
    if from_spec:
        wanted = _from_file(from_spec, _split_commas(tags))
    elif from_args:
        wanted = _from_arguments(_split_commas(platforms), template, target, _split_commas(tags))
    else:
        wanted = _from_names(names, _split_commas(tags))
    _check_target(wanted)
    staging = open_index_drafts()
    _check_unstaged(staging, wanted.target, amend=amend)
    members = _gather_members(wanted, compress, connection, force=force, ignore_missing=ignore_missing)
    made = IndexDraft(wanted.target, members, wanted.tags, wanted.annotations, form)
    with staging.changing():
        draft = (_check_unstaged(staging, wanted.target, amend=amend) or IndexDraft(wanted.target)).amended(
            made
        )
        if not push:
            staging.keep(draft)
    if push:
        _put(draft, compress, connection)
        staging.drop(wanted.target)
    elif not connection.output.quiet:
        print_lines(f"Staged {wanted.target}: {count_text(len(draft.members), 'image')}")


def _split_commas(values: Iterable[str]) -> tuple[str, ...]:
    """What a repeatable option has, each value a list with commas."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


def _from_names(names: tuple[str, ...], tags: tuple[str, ...]) -> IndexSpec:
    from blobflow.cli.inputs.manifest_tool import index_spec_of

    if len(names) < 2:
        raise UsageError(f"{names[0]} is to be an index of which images? Name at least one REF after it")
    return index_spec_of(names[0], names[1:], tags)


def _from_file(path: Path, tags: tuple[str, ...]) -> IndexSpec:
    from blobflow.cli.inputs.manifest_tool import parse_manifest_tool
    from blobflow.cli.runtime.files import read_text

    spec = parse_manifest_tool(read_text(path), "stdin" if str(path) == "-" else str(path))
    return msgspec.structs.replace(spec, tags=(*spec.tags, *tags))


def _from_arguments(
    platforms: tuple[str, ...], template: str | None, target: str | None, tags: tuple[str, ...]
) -> IndexSpec:
    from blobflow.cli.inputs.manifest_tool import index_spec_from_template

    given = {"--platforms": platforms, "--template": template, "--target": target}
    if missing := [option for option, value in given.items() if not value]:
        raise UsageError(f"--from-args needs {', '.join(missing)} as well")
    assert template is not None and target is not None
    return index_spec_from_template(platforms, template, target, tags)


def _check_target(wanted: IndexSpec) -> None:
    if wanted.target.digest:
        raise UsageError(f"{wanted.target} has a digest, which an index has only when it is made; give a tag")
    if any(wish.image == wanted.target for wish in wanted.wishes):
        raise UsageError(
            f"{wanted.target} can't contain itself; to keep the images that it has now, name it by digest"
        )


def _check_unstaged(staging: IndexDrafts, target: Reference, *, amend: bool) -> IndexDraft | None:
    """What is staged already. Raises UsageError unless that is nothing, or to be amended."""
    draft = staging.find(target)
    if draft is not None and not amend:
        raise UsageError(f"{target} is staged already; --amend adds to it, `blobflow index rm` drops it")
    return draft


def _gather_members(
    wanted: IndexSpec,
    compress: CompressMode,
    connection: ConnectionOptions,
    *,
    force: bool,
    ignore_missing: bool,
) -> tuple[DraftImage, ...]:
    from blobflow.operations.indexes import gather

    hosts = Hosts(frozenset(wish.image.host for wish in wanted.wishes), frozenset({wanted.target.host}))
    return run_one_shot(
        run_settings(connection, hosts=hosts, compress=compress),
        connection.output,
        lambda client: gather(client, wanted.wishes, force=force, ignore_missing=ignore_missing),
    )


@verb.command("annotate", short_help="Say more of an image of a staged index.")
@click.argument("target", type=PLACE, metavar="TARGET")
@click.argument("image", type=PLACE, metavar="REF")
@click.option("--os", cls=LabelOption, default="", help="Its operating system, as linux or windows.")
@click.option("--arch", cls=LabelOption, default="", help="Its architecture, as amd64 or arm64.")
@click.option("--variant", cls=LabelOption, default="", help="The variant of that, as v7.")
@click.option(
    "--os-version", cls=LabelOption, default="", metavar="VERSION", help="As 10.0.17763.1, of Windows."
)
@click.option("--os-features", multiple=True, metavar="FEATURE,...", help="As win32k. They are added.")
@click.option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="Repeatable.")
@_force_option
def annotate(
    target: str,
    image: str,
    os: str,
    arch: str,
    variant: str,
    os_version: str,
    os_features: tuple[str, ...],
    annotations: tuple[str, ...],
    force: bool,
) -> None:
    """Say what an image of a staged index runs on, or annotate it.

    What its config leaves out may be added; what contradicts its config is refused.
    """
    label = parse_label(arch, os, variant, os_version, _split_commas(os_features))
    notes = dict(map(_parse_annotation, annotations))
    if not notes and label == parse_label():
        raise UsageError("nothing is said of it; give --os, --arch, --variant, --os-version or --annotation")
    reference, staging = parse_reference(image), open_index_drafts()
    with staging.changing():
        draft = staging.get(parse_reference(target))
        member = next((each for each in draft.members if each.is_named(reference)), None)
        if member is None:
            known = ", ".join(str(each.image) for each in draft.members[:_SHOWN])
            raise UsageError(f"{draft.target} has no image {reference}; it has {known}")
        said = member.labelled(label)
        if not force:
            check_label(member.image, said.label, member.config)
        said = msgspec.structs.replace(said, annotations={**said.annotations, **notes})
        members = tuple(said if each is member else each for each in draft.members)
        staging.keep(msgspec.structs.replace(draft, members=members))


def _parse_annotation(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"--annotation {text!r} is not KEY=VALUE")
    return key, value


@verb.command("push", short_help="Put a staged index.")
@click.argument("target", type=PLACE, metavar="TARGET")
@click.option("-p", "--purge", is_flag=True, help="Drop it here once it is put.")
@_format_option
@compress_option
@connection_options
def push(
    target: str, purge: bool, form: IndexFormat | None, compress: CompressMode, connection: ConnectionOptions
) -> None:
    """Put a staged index at its target, and print its digest.

    Images that the target's repository lacks are brought there first, by digest: mounted from within the
    registry, or copied.
    """
    staging = open_index_drafts()
    draft = staging.get(parse_reference(target))
    _put(msgspec.structs.replace(draft, form=form or draft.form), compress, connection)
    if purge:
        staging.drop(draft.target)


def _put(draft: IndexDraft, compress: CompressMode, connection: ConnectionOptions) -> None:
    from blobflow.operations.indexes import put

    sources = frozenset(member.image.host for member in draft.members)
    hosts = Hosts(sources, frozenset({draft.target.host}))
    settings = run_settings(connection, RunOptions(compress=compress), hosts)
    made = run_one_shot(settings, connection.output, lambda client: put(client, draft))
    print_lines(made.descriptor.digest)


@verb.command("inspect", short_help="Show a staged index.")
@click.argument("target", type=PLACE, metavar="TARGET")
@click.option("--raw", is_flag=True, help="Print the index as it would be put, byte for byte.")
@click.option("--json", "as_json", is_flag=True, help="Print what is staged as JSON.")
def inspect(target: str, raw: bool, as_json: bool) -> None:
    """Show a staged index: its images, their platforms, and what of that was said by hand.

    What a registry has is shown by `blobflow inspect`.
    """
    if raw and as_json:
        raise UsageError("--raw and --json exclude each other: raw is the index, json what is staged")
    draft = open_index_drafts().get(parse_reference(target))
    if raw:
        write_stdout(draft.index().raw, nl=False)
    elif as_json:
        write_stdout(json.dumps(msgspec.to_builtins(draft), indent=2))
    else:
        print_lines(*_draft_lines(draft))


def _draft_lines(draft: IndexDraft) -> list[str]:
    heads = [("name", one_line(str(draft.target))), *(("tag", tag) for tag in draft.tags)]
    heads += [("annotation", one_line(f"{key}={value}")) for key, value in draft.annotations.items()]
    if draft.form:
        heads.append(("format", draft.form))
    lines = table(heads)
    for member in draft.members:
        facts = [
            ("digest", member.descriptor.digest),
            ("size", size_text(member.descriptor.size)),
            ("platform", one_line(str(member.platform))),
        ]
        if member.platform != member.config:
            facts.append(("its config", one_line(str(member.config))))
        facts += [("annotation", one_line(f"{key}={value}")) for key, value in member.annotations.items()]
        lines += ["", one_line(str(member.image)), *table(facts, indent="  ")]
    return lines


@verb.command("rm", short_help="Drop staged indexes.")
@click.argument("targets", type=PLACE, metavar="TARGET...", nargs=-1, required=True)
def rm(targets: tuple[str, ...]) -> None:
    """Drop staged indexes. What a registry has stays."""
    staging = open_index_drafts()
    references = [parse_reference(target) for target in targets]
    with staging.changing():
        missing = [reference for reference in references if not staging.drop(reference)]
    if missing:
        raise UsageError(f"{', '.join(map(str, missing))}: not staged, so there was nothing to drop")
