"""Lists a registry's repositories and their tags, and adds tags to a manifest."""

from __future__ import annotations

from collections.abc import Sequence

from blobflow.client import Client
from blobflow.engine.pairs import site_of
from blobflow.errors import Denied, NotFound, Rejected, Unauthorized, UsageError, own_copy
from blobflow.oci import Descriptor, Reference
from blobflow.oci.reference import check_tag
from blobflow.transports.registry import Registries


def check_registry(reference: Reference) -> None:
    """Raise UsageError for a reference that is not in a registry."""
    if reference.transport:
        raise UsageError(f"{reference.host} is no registry; its images are shown by `blobflow inspect`")


async def list_tags(client: Client, repository: Reference) -> list[str]:
    """All tags of a repository, in the registry's order. Raises what the registry answers."""
    check_registry(repository)
    return await client.registries.repository(site_of(repository)).tags()


async def list_repositories(client: Client, host: str) -> list[str]:
    """All repositories of a registry, in its order, as far as it lists them. Raises what it answers."""
    return await catalog(client.registries, host)


async def catalog(registries: Registries, host: str) -> list[str]:
    """The repositories of a host; where it has no catalog, or refuses it, the error says what to do."""
    try:
        return await registries.repositories(host)
    except (NotFound, Rejected, Denied, Unauthorized) as error:
        told = own_copy(error)
        told.message = f"{error.message}; not every registry lists its repositories, so name them"
        raise told from None


async def retag(client: Client, reference: Reference, names: Sequence[str]) -> Descriptor:
    """Put the manifest of `reference`, byte for byte, under further tags of its repository ([end-7]).

    Its content is there already, so nothing else is sent; an index too is put unchanged. Returns what the
    tags now name. Raises InvalidReference for an invalid tag, before any request.
    """
    check_registry(reference)
    for name in names:
        check_tag(name)
    repository = client.registries.sink(site_of(reference))
    root = await repository.resolve(reference.name)
    raw = await repository.read(root)
    await repository.put(root, raw, tags=tuple(dict.fromkeys(names)))
    return root
