"""Uploads of every form, mounts, images, indexes, referrers, and deletions."""

from __future__ import annotations

import json
from collections import deque

from tools.loads.mix.client import MOST, MOST_LEFT, Asking, Blob, Doing, Image, MixedClient, Repository
from tools.loads.requests import BYTES, INDEX, MANIFEST, Content, completing, path_of, request

_ARTIFACT = "application/vnd.example.sbom.v1"
_TAGS = 12  # names that tags take turns under


def _uploads(repository: Repository) -> str:
    return f"/v2/{repository.name}/blobs/uploads/"


def _post(client: MixedClient, repository: Repository) -> Asking:
    return (yield from client.ask("upload: POST", 202, "POST", _uploads(repository)))


def post_and_put(client: MixedClient, repository: Repository) -> Doing:
    blob, content = client.blob()
    yield from _put_whole(client, repository, content)
    yield from _keep(client, repository, blob)


def _put_whole(client: MixedClient, repository: Repository, content: Content) -> Doing:
    answer = yield from _post(client, repository)
    path = completing(answer.location, content.digest)
    yield from client.ask("upload: PUT", 201, "PUT", path, content.body)


def one_post(client: MixedClient, repository: Repository) -> Doing:
    blob, content = client.blob()
    path = f"{_uploads(repository)}?digest={blob.digest}"
    yield from client.ask("upload: one POST", 201, "POST", path, content.body)
    yield from _keep(client, repository, blob)


def chunks(client: MixedClient, repository: Repository) -> Doing:
    """Chunks with a Content-Range, and an empty PUT."""
    blob, content = client.blob()
    answer = yield from _post(client, repository)
    length = blob.size // 3 + 1
    for start in range(0, blob.size, length):
        chunk = content.body[start : start + length]
        told = f"Content-Range: {start}-{start + len(chunk) - 1}\r\n"
        path = path_of(answer.location)
        answer = yield from client.ask("upload: PATCH, chunk", 202, "PATCH", path, chunk, headers=told)
    yield from client.ask("upload: PUT", 201, "PUT", completing(answer.location, blob.digest))
    yield from _keep(client, repository, blob)


def stream(client: MixedClient, repository: Repository) -> Doing:
    """One PATCH with the whole, as docker does."""
    blob, content = client.blob()
    answer = yield from _post(client, repository)
    path = path_of(answer.location)
    answer = yield from client.ask("upload: PATCH, stream", 202, "PATCH", path, content.body)
    yield from client.ask("upload: PUT", 201, "PUT", completing(answer.location, blob.digest))
    yield from _keep(client, repository, blob)


def push_again(client: MixedClient, repository: Repository) -> Doing:
    """What another repository has, sent by somebody who can't or won't mount."""
    blob = _elsewhere(client, repository)
    if blob is not None:
        yield from _put_whole(client, repository, blob.content())
        yield from _keep(client, repository, blob)


def mount(client: MixedClient, repository: Repository) -> Doing:
    origin = client.other(repository)
    blob = _of(client, origin, repository)
    if blob is not None:
        path = f"{_uploads(repository)}?mount={blob.digest}&from={origin.name}"
        yield from client.ask("mount", 201, "POST", path)
        yield from _keep(client, repository, blob)


def mount_of_nothing(client: MixedClient, repository: Repository) -> Doing:
    """Opens a session, which the client then cancels."""
    path = f"{_uploads(repository)}?mount={client.digest()}&from={client.other(repository).name}"
    answer = yield from client.ask("mount of nothing", 202, "POST", path)
    yield from client.ask("upload: DELETE", 204, "DELETE", path_of(answer.location))


def _elsewhere(client: MixedClient, repository: Repository) -> Blob | None:
    return _of(client, client.other(repository), repository)


def _of(client: MixedClient, origin: Repository, repository: Repository) -> Blob | None:
    """A loose blob of `origin` that `repository` lacks."""
    lacking = [blob for blob in origin.loose if blob.digest not in repository.held]
    return client.random.choice(lacking) if lacking else None


def _keep(client: MixedClient, repository: Repository, blob: Blob) -> Doing:
    """Remember the blob, and delete the oldest loose one if there are too many."""
    repository.loose.append(blob)
    repository.held.add(blob.digest)
    if len(repository.loose) > MOST:
        yield from delete_blob(client, repository)


def delete_blob(client: MixedClient, repository: Repository) -> Doing:
    if repository.loose:
        yield from _drop_blobs(client, repository, (repository.loose.popleft(),))


def _drop_blobs(client: MixedClient, repository: Repository, blobs: tuple[Blob, ...]) -> Doing:
    for blob in blobs:
        repository.held.discard(blob.digest)
        yield from client.ask("delete a blob", 202, "DELETE", repository.path("blobs", blob.digest))


def image(client: MixedClient, repository: Repository) -> Doing:
    """Blobs that are missing, and an image of them under a tag, that may name another image until then."""
    yield from _image(client, repository, f"1.{client.random.randrange(_TAGS)}")


def image_without_tag(client: MixedClient, repository: Repository) -> Doing:
    yield from _image(client, repository, "")


def _image(client: MixedClient, repository: Repository, tag: str) -> Doing:
    while len(repository.loose) < 3:
        yield from post_and_put(client, repository)
    config, *layers = (repository.loose.popleft() for _ in range(client.random.randint(2, 3)))
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _named(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [_named(layer, BYTES) for layer in layers],
        "annotations": {"org.opencontainers.image.revision": client.digest()},
    }
    yield from _put(client, repository, repository.images, document, MANIFEST, tag, (config, *layers))


def index(client: MixedClient, repository: Repository) -> Doing:
    if not repository.images:
        return
    chosen = client.random.sample(repository.images, min(2, len(repository.images)))
    document = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            {"mediaType": each.kind, "digest": each.digest, "size": len(each.raw)}
            | {"platform": {"os": "linux", "architecture": architecture}}
            for each, architecture in zip(chosen, ("amd64", "arm64"), strict=False)
        ],
        "annotations": {"org.opencontainers.image.revision": client.digest()},
    }
    tag = f"all-{client.random.randrange(_TAGS)}"
    yield from _put(client, repository, repository.indexes, document, INDEX, tag)


def artifact(client: MixedClient, repository: Repository) -> Doing:
    """What refers to an image, and the list that then has it."""
    if not repository.images:
        return
    while not repository.loose:
        yield from post_and_put(client, repository)
    subject, blob = client.random.choice(repository.images), repository.loose.popleft()
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": _ARTIFACT,
        "config": _named(blob, _ARTIFACT),
        "layers": [],
        "subject": {"mediaType": subject.kind, "digest": subject.digest, "size": len(subject.raw)},
        "annotations": {"org.example.made": client.digest()},
    }
    yield from _put(client, repository, repository.artifacts, document, MANIFEST, "", (blob,))
    yield from client.ask("referrers", 200, "GET", repository.path("referrers", subject.digest))


def _named(blob: Blob, kind: str) -> dict[str, object]:
    return {"mediaType": kind, "digest": blob.digest, "size": blob.size}


def _put(
    client: MixedClient,
    repository: Repository,
    kept: deque[Image],
    document: dict[str, object],
    kind: str,
    tag: str,
    blobs: tuple[Blob, ...] = (),
) -> Doing:
    """PUT a manifest by tag, or by digest without one; delete the oldest of its kind if there are too
    many."""
    content = Content.of(json.dumps(document).encode())
    path = repository.path("manifests", tag or content.digest)
    yield from client.ask("put a manifest", 201, "PUT", path, content.body, media=kind)
    made = Image(content.digest, content.body, kind, blobs)
    kept.append(made)
    if tag:
        repository.tags[tag] = made
    if len(kept) > MOST:
        yield from _drop(client, repository, kept.popleft())


def delete_manifest(client: MixedClient, repository: Repository) -> Doing:
    """By digest, the oldest image or artifact; its tags go with it. One image stays, so that the repository
    does."""
    kept = client.random.choice((repository.images, repository.artifacts))
    if len(kept) > 1:
        yield from _drop(client, repository, kept.popleft())


def _drop(client: MixedClient, repository: Repository, image: Image) -> Doing:
    repository.tags = {tag: named for tag, named in repository.tags.items() if named is not image}
    yield from client.ask("delete a manifest", 202, "DELETE", repository.path("manifests", image.digest))
    yield from _drop_blobs(client, repository, image.blobs)


def delete_tag(client: MixedClient, repository: Repository) -> Doing:
    if repository.tags:
        tag = client.random.choice(list(repository.tags))
        del repository.tags[tag]
        yield from client.ask("delete a tag", 202, "DELETE", repository.path("manifests", tag))


def cancelled(client: MixedClient, repository: Repository) -> Doing:
    """An upload that its client thinks better of."""
    _, content = client.blob()
    answer = yield from _post(client, repository)
    path = path_of(answer.location)
    yield from client.ask("upload: PATCH, stream", 202, "PATCH", path, content.body)
    yield from client.ask("upload: DELETE", 204, "DELETE", path)
    yield from client.ask("upload: GET of one cancelled", 404, "GET", path)


def broken(client: MixedClient, repository: Repository) -> Doing:
    """An upload whose connection breaks in the middle of its bytes; the client asks how far it came, and
    cancels."""
    _, content = client.blob()
    answer = yield from _post(client, repository)
    path = path_of(answer.location)
    whole = request(client.host, "PATCH", path, content.body)
    yield from client.cut("upload: PATCH, cut", whole[: len(whole) - len(content.body) // 2])
    yield from client.ask("upload: GET", 204, "GET", path)
    yield from client.ask("upload: DELETE", 204, "DELETE", path)


def left(client: MixedClient, repository: Repository) -> Doing:
    """An upload that is left in the middle. Some of those that were left before are ended: a registry may
    have given them up by then."""
    _, content = client.blob()
    answer = yield from _post(client, repository)
    half = content.body[: len(content.body) // 2]
    answer = yield from client.ask("upload: PATCH, stream", 202, "PATCH", path_of(answer.location), half)
    client.late.append((repository.name, answer.location, content))
    if len(client.late) > MOST_LEFT:
        _, location, content = client.late.popleft()
        rest = content.body[len(content.body) // 2 :]
        path = completing(location, content.digest)
        yield from client.ask("upload: PUT, late", (201, 404), "PUT", path, rest)
