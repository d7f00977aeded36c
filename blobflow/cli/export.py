"""`blobflow export`: one image, as what people want it as; the words of `docker buildx build --output`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.carrying import Begin, Outcome, carry_out, carry_out_work
from blobflow.cli.choosing import missing_platform_option
from blobflow.cli.options import Ends, Link, Run, link_options, run_options, unlisted
from blobflow.errors import NoSuchPlatform, UsageError
from blobflow.events import Meter, Observer
from blobflow.oci import Reference, parse_reference
from blobflow.oci.location import DOCKER_ARCHIVE, LAYOUT, OCI_ARCHIVE, STREAM, place_at

if TYPE_CHECKING:
    from blobflow.engine.flow import Run as Flow
    from blobflow.engine.plan import MissingPlatform, Pair
    from blobflow.mirror import Settings
    from blobflow.oci.choice import Choice

# The keys that each type takes. `image` is there for what it says.
_KEYS = {
    "oci": ("dest", "name", "platform", "tar"),
    "docker": ("dest", "name", "platform"),
    "tar": ("dest", "platform"),
    "local": ("dest", "platform", "devices"),
    "registry": ("name", "platform"),
    "image": ("name", "platform", "push"),
    "cacheonly": ("platform",),
}
_TRUE = {"true": True, "1": True, "": True, "false": False, "0": False}


class Output(msgspec.Struct, frozen=True):
    """What `--output` says."""

    type: str
    dest: str = ""
    name: str = ""
    platforms: tuple[str, ...] = ()
    tar: bool = True
    devices: bool = False


@click.command("export")
@click.argument("reference", metavar="REF")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="type=TYPE[,dest=PATH|name=REF][,platform=…]",
    help="oci, docker: an archive; tar, local: the root file system; registry; cacheonly.",
)
@missing_platform_option
@unlisted("dry_run")
@run_options
@link_options
def verb(reference: str, output: str, missing_platform: MissingPlatform | None, run: Run, link: Link) -> None:
    """Write one image out: as an archive, as its root file system, to a registry, or only into the store.

    The outputs are buildx's. dest=- is standard output. Several platforms get a folder each (linux_arm_v7) in
    a tar or local output; platform=linux/arm64 chooses, and can be given again. type=local makes device
    nodes only with devices=true, and as root.

    \b
      blobflow export alpine:3 --output type=local,dest=rootfs,platform=linux/arm64
      blobflow export alpine:3 --output type=oci,dest=alpine.tar
      blobflow export alpine:3 --output type=tar,dest=- | tar t
    """
    if run.dry_run:
        raise UsageError("export has no --dry-run; `blobflow inspect` shows what the image holds")
    source, wanted = parse_reference(reference), parse_output(output)
    missing = missing_platform or "fail"
    if wanted.type in ("tar", "local", "cacheonly"):
        _kept(source, wanted, missing, run, link).check_image()
    else:
        pairs = _pairs(source, wanted, missing)
        carry_out(pairs, link, run, list_failures=False).check_image()


def parse_output(text: str) -> Output:
    """Read `type=TYPE,key=value,…` in buildx's form; DIR alone is type=local, - alone type=tar.

    Raises UsageError with what would be right.
    """
    if text == STREAM:
        return Output("tar", dest=text)
    if "=" not in text:
        return Output("local", dest=text)
    said: dict[str, list[str]] = {}
    for field in next(csv.reader([text])):
        key, equals, value = field.partition("=")
        if not equals and said.get("platform") and "/" in field:
            said["platform"].append(field)  # platform=a,b: what follows it belongs to it
        else:
            said.setdefault(key.strip().lower(), []).append(value.strip())
    kind = said.pop("type", [""])[-1]
    if kind not in _KEYS:
        raise UsageError(f"--output {text!r} has no type that there is; it is one of {', '.join(_KEYS)}")
    for key in said:
        if key not in _KEYS[kind]:
            raise UsageError(f"--output type={kind} has no {key}; it takes {', '.join(_KEYS[kind])}")
    found = Output(
        kind,
        dest=said.get("dest", [""])[-1],
        name=said.get("name", [""])[-1],
        platforms=tuple(said.get("platform", ())),
        tar=_truth(said, "tar", True),
        devices=_truth(said, "devices", False),
    )
    return _checked(found, pushes=_truth(said, "push", False))


def _truth(said: dict[str, list[str]], key: str, otherwise: bool) -> bool:
    value = said.get(key, [""])[-1].lower()
    if value not in _TRUE:
        raise UsageError(f"{key}={value} is neither true nor false")
    return _TRUE[value] if key in said else otherwise


def _checked(output: Output, *, pushes: bool) -> Output:
    """The output, complete. Raises UsageError for what lacks something, and says what."""
    kind = output.type
    if kind == "image" and not pushes:
        raise UsageError(
            "type=image would put the image into an engine's own store; use type=docker,dest=- with "
            "`docker load`, or type=registry,name=HOST/REPOSITORY:TAG"
        )
    if kind in ("image", "registry"):
        if not output.name:
            raise UsageError(f"type={kind} needs name=HOST/REPOSITORY:TAG")
        return msgspec.structs.replace(output, type="registry")
    if kind == "docker" and not output.dest:
        raise UsageError("type=docker needs dest=FILE, or dest=- to pipe it into `docker load`")
    if (kind == "local" or not output.tar) and output.dest in ("", STREAM):
        raise UsageError(f"type={kind} needs dest=DIR, a folder")
    if kind in ("oci", "tar") and not output.dest:
        return msgspec.structs.replace(output, dest=STREAM)
    return output


def _choice(output: Output) -> Choice:
    from blobflow.cli.choosing import platforms_of
    from blobflow.oci.choice import Choice

    platforms = platforms_of(output.platforms)
    return Choice(platforms, "prune" if platforms and output.type in ("oci", "docker") else "auto")


def _pairs(source: Reference, output: Output, missing: MissingPlatform) -> list[Pair]:
    """The copy that the output is."""
    from blobflow.cli.selection import copy_pairs
    from blobflow.engine.plan import Pair

    if output.type == "registry":
        target = output.name
    else:
        word = {"oci": OCI_ARCHIVE if output.tar else LAYOUT, "docker": DOCKER_ARCHIVE}[output.type]
        target = place_at(word, output.dest) + (f":{output.name}" if output.name else "")
    choice = _choice(output)
    pairs = copy_pairs(str(source), [target])
    return [Pair(pair.source, pair.target, choice, missing_platform=missing) for pair in pairs]


def _kept(source: Reference, output: Output, missing: MissingPlatform, run: Run, link: Link) -> Outcome:
    """Bring the image into the store, and from there to where the output wants it."""
    streams = output.type == "tar" and output.dest == STREAM
    choice = _choice(output)

    async def write(settings: Settings, begin: Begin, show: Observer, meter: Meter) -> Sequence[str]:
        from blobflow.airgap.exporting import export_folder, export_tar, keep

        if output.type == "local":
            return await export_folder(
                source,
                choice,
                begin,
                settings,
                Path(output.dest),
                devices=output.devices,
                observer=show,
                meter=meter,
            )
        if output.type == "tar":
            path = None if streams else Path(output.dest)
            await export_tar(source, choice, begin, settings, path, observer=show, meter=meter)
        else:
            await keep(source, choice, begin, settings, observer=show, meter=meter)
        return ()

    async def work(settings: Settings, begin: Begin, show: Observer, meter: Meter) -> Sequence[str]:
        def may_miss(pairs: Sequence[Pair], notes: Sequence[str]) -> Flow:
            return begin([msgspec.structs.replace(p, missing_platform=missing) for p in pairs], notes)

        try:
            return await write(settings, may_miss, show, meter)
        except NoSuchPlatform:
            if missing == "fail":
                raise
            return ()  # the report says so

    ends = Ends(frozenset({source.host}), frozenset({place_at(OCI_ARCHIVE, STREAM)} if streams else ()))
    return carry_out_work(work, ends, link, run, list_failures=False)
