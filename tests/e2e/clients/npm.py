"""Clients from npm: how each pushes and pulls, by its command where it has one, else by some JavaScript."""

from __future__ import annotations

import io
import json
import tarfile

from tests.e2e.clients.bench import Bench, Client, Content, Json, Pushed, by_digest, layers_at
from tests.e2e.clients.pypi import files_below

# @devcontainers/cli: features and templates of development containers


def _devcontainer(bench: Bench, *arguments: str) -> None:
    """Over plain HTTP it goes to `localhost` alone."""
    bench.run("node", bench.program / "@devcontainers" / "cli" / "devcontainer.js", *arguments)


def _local(bench: Bench) -> str:
    return bench.registry.host.replace("127.0.0.1", "localhost")


def _push_devcontainers(bench: Bench) -> Pushed:
    settings = '{"image": "debian"}\n'
    bench.write(
        {
            "features/greet/devcontainer-feature.json": '{"id": "greet", "version": "1.2.3", "name": "Hi"}',
            "features/greet/install.sh": "echo hello\n",
            "templates/web/devcontainer-template.json": '{"id": "web", "version": "1.0.0", "name": "Web"}',
            "templates/web/.devcontainer/devcontainer.json": settings,
        }
    )
    for kind in ("features", "templates"):
        to = ("--registry", _local(bench), "--namespace", f"team/{kind}")
        _devcontainer(bench, kind, "publish", *to, kind)
    images = (
        "team/features/greet:1.2",
        "team/features:latest",
        "team/templates/web:1",
        "team/templates:latest",
    )
    return Pushed(images, {".devcontainer/devcontainer.json": settings.encode()})


def _pull_devcontainers(bench: Bench) -> Content:
    workspace = bench.folder / "workspace"
    workspace.mkdir(parents=True, exist_ok=True)
    template = ("--template-id", f"{_local(bench)}/team/templates/web:1")
    _devcontainer(bench, "templates", "apply", "--workspace-folder", str(workspace), *template)
    return files_below(workspace)


# containerify: Node.js programs as images upon a base


def _containerify(bench: Bench, base: str, image: str, *more: str) -> None:
    package = {"name": "demo", "version": "1.0.0", "description": image}
    bench.write({"app/package.json": json.dumps(package), "app/server.js": f"// {image}\n"})
    url = f"http://{bench.registry.host}/v2/"
    names = ("--fromImage", base, "--toImage", image)
    where = ("--registry", url, "--folder", "app", "--allowNoPushAuth")
    bench.run("node", bench.program / "containerify" / "lib" / "cli.js", *names, *where, *more)


def _push_containerify(bench: Bench) -> Pushed:
    _containerify(bench, "shop/gateway:1.0", "team/node:1")
    return Pushed(("team/node:1",), layers_at(bench.registry, "team/node:1"))


def _pull_containerify(bench: Bench) -> Content:
    """It pulls a base into the archive of what it builds upon it; the program's two layers are on top."""
    _containerify(bench, "team/node:1", "team/node-more:1", "--toTar", "more.tar", "--toOciLayout", "oci.tar")
    with tarfile.open(bench.folder / "more.tar") as tar:
        layers = [member for member in tar if member.name.endswith(".tar.gz")]
        found = by_digest([(tar.extractfile(member) or io.BytesIO()).read() for member in layers])
    *below, _, _ = layers_at(bench.registry, "team/node-more:1")
    return {digest: found[digest] for digest in below}


# docker-registry-client: a library, whose documentation has no pushing, but whose code has

_REGISTRY_CLIENT = """
const drc = require("docker-registry-client");
const {createHash} = require("node:crypto");
const {Readable} = require("node:stream");
const client = drc.createClientV2({name: process.argv[1] + "/team/node-client", maxSchemaVersion: 2});
const ask = (method, options) => new Promise((resolve, reject) =>
  client[method](options, (error, ...found) => (error ? reject(error) : resolve(found))));
const config = Buffer.from('{"architecture": "amd64", "os": "linux"}');
const layer = Buffer.from("hello\\n".repeat(10000));
const described = (mediaType, content) => ({mediaType, size: content.length,
  digest: "sha256:" + createHash("sha256").update(content).digest("hex")});

async function push() {
  const manifest = {
    schemaVersion: 2,
    mediaType: "application/vnd.docker.distribution.manifest.v2+json",
    config: described("application/vnd.docker.container.image.v1+json", config),
    layers: [described("application/vnd.docker.image.rootfs.diff.tar", layer)],
  };
  for (const content of [config, layer]) {
    const {digest, size} = described("", content);
    await ask("blobUpload", {digest, contentLength: size, stream: Readable.from([content])});
  }
  await ask("putManifest", {manifest: JSON.stringify(manifest), ref: "1"});
}

async function pull() {
  const [manifest] = await ask("getManifest", {ref: "1"});
  const [stream] = await ask("createBlobReadStream", {digest: manifest.layers[0].digest});
  for await (const chunk of stream) process.stdout.write(chunk);
}

(process.argv[2] === "push" ? push() : pull()).finally(() => client.close());
"""


def _push_registry_client(bench: Bench) -> Pushed:
    bench.node(_REGISTRY_CLIENT, f"http://{bench.registry.host}", "push")
    return Pushed(("team/node-client:1",), by_digest([b"hello\n" * 10000]))


def _pull_registry_client(bench: Bench) -> Content:
    return by_digest([bench.node(_REGISTRY_CLIENT, f"http://{bench.registry.host}", "pull")])


# @sigstore/oci: attaches bundles to images; reads no more of them than digests

_SIGSTORE = """
const {attachArtifactToImage, getImageDigest} = require("@sigstore/oci");
const [imageName, verb] = process.argv.slice(1);
(async () => {
  const imageDigest = await getImageDigest({imageName, imageTag: "1.0"});
  if (verb === "digest") return imageDigest;
  const artifact = Buffer.from('{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}');
  const mediaType = "application/vnd.dev.sigstore.bundle.v0.3+json";
  return (await attachArtifactToImage({imageName, imageDigest, artifact, mediaType})).digest;
})().then((digest) => process.stdout.write(digest));
"""
SIGNED = "shop/gateway"


def _push_sigstore(bench: Bench) -> Pushed:
    image = f"{bench.registry.host}/{SIGNED}"
    attached = bench.node(_SIGSTORE, image, "attach").decode()
    return Pushed((f"{SIGNED}@{attached}", f"{SIGNED}:1.0"), {"1.0": bench.node(_SIGSTORE, image, "digest")})


def _pull_sigstore(bench: Bench) -> Content:
    return {"1.0": bench.node(_SIGSTORE, f"{bench.registry.host}/{SIGNED}", "digest")}


def _artifact_of_an_image(manifest: Json) -> bool:
    """Its config is the specification's empty one, and it says what it is about."""
    empty = "application/vnd.oci.empty.v1+json"
    return manifest["config"]["mediaType"] == empty and "subject" in manifest


NPM = (
    Client(
        "@devcontainers/cli@0.89.0",
        _push_devcontainers,
        _pull_devcontainers,
        lambda made: made["config"]["mediaType"] == "application/vnd.devcontainers",
    ),
    Client(
        "containerify@4.1.0",
        _push_containerify,
        _pull_containerify,
        lambda made: made["mediaType"].startswith("application/vnd.oci."),
        writes={"docker-archive:more.tar": "team/node-more:1", "oci-archive:oci.tar": "team/node-more:1"},
    ),
    Client(
        "docker-registry-client@3.4.0",
        _push_registry_client,
        _pull_registry_client,
        lambda made: made["mediaType"].startswith("application/vnd.docker."),
    ),
    Client("@sigstore/oci@0.7.2", _push_sigstore, _pull_sigstore, _artifact_of_an_image),
)
