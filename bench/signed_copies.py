"""What a signature policy costs: a set of signed images under one, and the same images unsigned without one.

Each image is one of a repository of its own, signed by a key as cosign does it: a manifest under a tag of
its own, whose layer is what was signed. Under a policy the signature is read before anything of the image is
put, and goes along like all that refers to an image. Without one it is looked for all the same, by default.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.ends import End, ending, fill, new_folder
from bench.measurements import Measured
from bench.programs import Build, Options, builds, timed
from bench.scenarios import KIB, LONG, MIB, PREFIX, Layers, Scenario, generate
from tools.imagelayout import OCI, Layout, keep, read_layout
from tools.imagepush import Put, Registry

# Small images over a base that all share, as services in Go are. The larger they are, the less their
# signatures cost.
IMAGES = Layers(200, 1, shared=(4 * MIB,), own=(4 * MIB, 16 * KIB))
RUN = "signed"
UNSIGNED, SIGNED, JUDGED = "unsigned", "signed", "signed, --policy"
AGAIN = ", unchanged"
_PLACE = Scenario("a registry at the far end of a path")
_SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
_ANNOTATION = "dev.cosignproject.cosign/signature"


def signed(options: Options) -> Iterator[Measured]:
    """Both sets from a registry far away into another one, each into an empty one, and again."""
    layout = _layout(options)
    folder = new_folder(options.folder)
    with ExitStack() as stack:
        plain = stack.enter_context(ending(_PLACE, LONG, new_folder(folder), 0))
        source = stack.enter_context(ending(_PLACE, LONG, new_folder(folder), 0))
        for each in (plain, source):
            fill(layout, each)
        policy = ["--policy", str(_sign(layout, source, folder))]
        for build in builds(options):
            for subject, end, words in (
                (UNSIGNED, plain, []),
                (SIGNED, source, []),
                (JUDGED, source, policy),
            ):
                yield from _mirror(options, build, subject, end, layout, words)


def _layout(options: Options) -> Layout:
    layers = IMAGES.scaled(options.scale)
    layers = msgspec.structs.replace(layers, images=max(2, round(IMAGES.images * options.scale)))
    path = options.folder / f"set-signed-{layers.images}"
    return read_layout(path) if path.exists() else generate(path, layers)


def _mirror(
    options: Options, build: Build, subject: str, source: End, layout: Layout, words: list[str]
) -> Iterator[Measured]:
    """The set into an empty registry, and once more with what the first run remembers."""
    home = options.home
    with ending(_PLACE, LONG, new_folder(options.folder), 0) as target:
        place = ["--from", source.host, "--to", f"{target.host}/{PREFIX}"]
        images = ["--images", str(layout.path / "images.txt")]
        command = [*build.blobflow(options.profile), "sync", "--quiet", *place, *images, *words]
        for turn in ("", AGAIN):
            source.forget()
            target.forget()
            row, done = timed(RUN, f"{build.name}, {subject}{turn}", command, home, build.checkout)
            path_cpu = source.way_cpu + target.way_cpu
            row.figures.update(
                source_cpu=source.cpu,
                target_cpu=target.cpu,
                path_cpu=path_cpu,
                half_cpu=(done.cpu + source.cpu + target.cpu + path_cpu) / 2,
                requests=source.tally({}).requests + target.tally({}).requests,
                source_requests=source.tally({}).requests,
            )
            yield row


def _sign(layout: Layout, source: End, folder: Path) -> Path:
    """Sign every image of the set where it is, for its repository as clients name that; the policy that wants
    such signatures."""
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = folder / "key.pub"
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
    config = keep(layout.path, OCI.config, b'{"architecture":"","os":"","rootfs":{"type":"layers"}}')
    with closing(Registry(source.registry.host)) as registry:
        for image in layout.images.values():
            payload = _payload(f"{source.host}/{image.repository}", image.digest)
            signature = base64.b64encode(key.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()
            layer = keep(layout.path, _SIMPLE_SIGNING, payload) | {"annotations": {_ANNOTATION: signature}}
            document = {"schemaVersion": 2, "mediaType": OCI.manifest, "config": config, "layers": [layer]}
            manifest = keep(layout.path, OCI.manifest, json.dumps(document).encode())
            for blob in (config, layer):
                registry.push(image.repository, blob["digest"], layout.blob(blob["digest"]))
            tag = f"{image.digest.replace(':', '-')}.sig"
            put = Put(image.repository, tag, manifest["digest"], OCI.manifest)
            registry.put(put, layout.blob(manifest["digest"]))
    policy = folder / "policy.json"
    wanted = {
        "type": "sigstoreSigned",
        "keyPath": str(public),
        "signedIdentity": {"type": "matchRepository"},
    }
    docker = {source.host: [wanted]}
    policy.write_text(json.dumps({"default": [{"type": "reject"}], "transports": {"docker": docker}}))
    return policy


def _payload(repository: str, digest: str) -> bytes:
    critical = {
        "identity": {"docker-reference": repository},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": critical, "optional": None}).encode()
