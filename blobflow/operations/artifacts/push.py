"""An artifact put at a place: on its own under a tag, or attached to an image.

It is made as a layout in a temporary folder, whose blobs are links to the files, and mirrored from there like
any image: what is there is not sent, what breaks is tried again, and what has a subject is listed for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from blobflow.client import Client
from blobflow.content import Attaches
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.policy import Policy
from blobflow.engine.services import Services
from blobflow.errors import BlobflowError, UnsupportedContent, UsageError, error_side
from blobflow.events import Event, ImageDone
from blobflow.oci import Descriptor, Manifest, Reference, parse_manifest
from blobflow.oci.artifact import ARTIFACT_TYPE, CREATED, EMPTY, EMPTY_DESCRIPTOR, make_artifact
from blobflow.oci.local_reference import ARCHIVES, DOCKER_ARCHIVE, LAYOUT, local_host
from blobflow.operations.artifacts.files import FileArgument, FileLayer, check_unchanged, make_layers
from blobflow.transports.files import in_thread, translate_os_errors
from blobflow.transports.layout.index_json import EMPTY_INDEX, OCI_LAYOUT_FILE, path_of_blob


class PushedArtifact(msgspec.Struct, frozen=True):
    """An artifact that is at its place. `reference` has its digest; `subject`: what it is attached to."""

    reference: Reference
    manifest: Manifest
    subject: Descriptor | None = None


async def push_artifact(
    client: Client,
    target: Reference,
    files: Sequence[FileArgument],
    *,
    artifact_type: str = "",
    annotations: Mapping[str, str] = {},
    policy: Policy | None = None,
) -> PushedArtifact:
    """Put files as an artifact under the target's tag.

    Raises UsageError for a target that has no tag or can't be one, for files see `make_layers`,
    IntegrityError for one that changes meanwhile, and what the place answers: then the tag is as it was.
    """
    if target.digest:
        raise UsageError(f"{target} has a digest, which follows from the files: name a tag")
    if not target.tag:
        raise UsageError(f"{target} does not say what the artifact is called; write {target}:NAME")
    if target.transport == DOCKER_ARCHIVE:
        raise UsageError(
            f"{target} holds images alone; an artifact goes to a registry, a layout or an oci-archive"
        )
    said = _with_time(annotations)
    with TemporaryDirectory(prefix="blobflow-") as scratch:
        layers = await in_thread(make_layers, files, Path(scratch))
        manifest = make_artifact(artifact_type or ARTIFACT_TYPE, _descriptors(layers), said)
        async with client.services() as services:
            await _mirror(services, manifest, layers, target, Path(scratch), policy or Policy())
            await client.tidy()
    return PushedArtifact(_pinned(target, manifest), manifest)


async def attach_artifact(
    client: Client,
    image: Reference,
    files: Sequence[FileArgument],
    *,
    artifact_type: str,
    annotations: Mapping[str, str] = {},
) -> PushedArtifact:
    """Put files as an artifact that refers to an image, beside it, without a tag.

    It is found by the registry's own list or, where there is none, by the list under the fallback tag. Raises
    UsageError for an archive, which is written whole, and where there is neither file nor annotation;
    otherwise as `push_artifact`.
    """
    if image.transport in ARCHIVES:
        raise UsageError(
            f"{image.host} is an archive, which is written whole: copy it to a layout (oci:DIR), attach there"
        )
    if not files and not annotations:
        raise UsageError("there is nothing to attach: give a file, or an annotation")
    said = _with_time(annotations)
    site = site_of(image)
    with TemporaryDirectory(prefix="blobflow-") as scratch:
        layers = await in_thread(make_layers, files, Path(scratch))
        async with client.services() as services:
            if not isinstance(services.sink_at(site), Attaches):
                raise UnsupportedContent(f"{site} holds nothing that refers to an image")
            with error_side("target"):
                source = services.source_at(site)
                found = await source.resolve(image.name)
                raw = await source.read(found)
            subject = parse_manifest(raw, found.media_type, digest=found.digest).descriptor
            manifest = make_artifact(artifact_type, _descriptors(layers), said, subject)
            target = _pinned(image, manifest)
            await _mirror(services, manifest, layers, target, Path(scratch), Policy())
            await client.tidy()
    return PushedArtifact(target, manifest, subject)


def _with_time(annotations: Mapping[str, str]) -> dict[str, str]:
    return {CREATED: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **annotations}


def _descriptors(layers: Sequence[FileLayer]) -> list[Descriptor]:
    return [layer.descriptor for layer in layers]


def _pinned(reference: Reference, manifest: Manifest) -> Reference:
    return Reference(reference.host, reference.repository, digest=manifest.descriptor.digest)


async def _mirror(
    services: Services,
    manifest: Manifest,
    layers: Sequence[FileLayer],
    target: Reference,
    scratch: Path,
    policy: Policy,
) -> None:
    folder = scratch / LAYOUT
    await in_thread(_write_layout, manifest, layers, folder)
    source = Reference(local_host(LAYOUT, str(folder)), "", digest=manifest.descriptor.digest)
    try:
        await mirror_quietly(services, Pair(source, target), policy)
    except BlobflowError:
        await in_thread(check_unchanged, layers)  # a better reason than what the temporary folder lacks
        raise


async def mirror_quietly(services: Services, pair: Pair, policy: Policy) -> None:
    """Mirror one image without telling observers of it, who would be told of a temporary folder. Raises why
    it failed."""

    def observe(event: Event) -> None:
        if not isinstance(event, ImageDone):
            services.observe(event)

    run = run_of_pairs([pair], policy, observe=observe, meter=services.meter)
    await run.execute(services)
    for error in run.errors.values():
        raise error


def _write_layout(manifest: Manifest, layers: Sequence[FileLayer], folder: Path) -> None:
    """A layout of one manifest, whose blobs are links to where their bytes are."""
    with translate_os_errors("write", folder):
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_bytes(OCI_LAYOUT_FILE)
        (folder / "index.json").write_bytes(EMPTY_INDEX)
        (folder / path_of_blob(manifest.descriptor.digest)).write_bytes(manifest.raw)
        (folder / path_of_blob(EMPTY_DESCRIPTOR.digest)).write_bytes(EMPTY)
        for layer in layers:
            link = folder / path_of_blob(layer.descriptor.digest)
            if not link.exists():
                link.symlink_to(layer.path)
