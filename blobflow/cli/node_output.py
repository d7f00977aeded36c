"""Node files made, and written or printed: how registries are reached comes from the settings of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blobflow.bounded_file import read_named
from blobflow.cli.options.nodes import NodeOptions
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.runtime.files import FileToWrite, write_files
from blobflow.errors import InvalidConfig, StorageError, UsageError
from blobflow.node_files.render import node_files
from blobflow.node_files.request import MADE_BY, NodeFile, NodeFiles, NodeRequest, RegistryAccess

if TYPE_CHECKING:
    from blobflow.mirror_places import MirrorPlaces
    from blobflow.settings import Settings

# Bytes. The system's own bundles have a fifth of a megabyte.
_MAX_CA = 4 * 1024**2
# A file may have a key beside its certificates, which stays where it is.
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def make_node_files(mirrors: Sequence[MirrorPlaces], options: NodeOptions, settings: Settings) -> NodeFiles:
    """The files for nodes that pull from `mirrors`, the first of them first.

    Raises UsageError for what the format can't say, unless it may be left out, and where nothing is left;
    InvalidConfig for a certificate that can't be read.
    """
    bare = NodeRequest(tuple(mirrors))
    sources = {each.source.partition("/")[0] for each in bare.places} - {""}
    access = {host: _access(host, settings) for host in sources}
    access |= {host: _access(host, settings, trusts=True) for host in bare.mirror_hosts}
    made = node_files(
        options.form,
        NodeRequest(bare.mirrors, access, not options.no_upstream, options.by_digest, options.openshift_kind),
    )
    if made.refused and not options.partial:
        more = f", and {len(made.refused) - 1} more" if len(made.refused) > 1 else ""
        other = "" if options.form == "kyverno" else "; --format kyverno or `blobflow rewrite` says more"
        raise UsageError(f"{made.refused[0]}{more}; --partial leaves that out{other}")
    if not made.files:
        why = "".join(f": {each}" for each in made.refused[:1])
        more = f", and {len(made.refused) - 1} more" if len(made.refused) > 1 else ""
        raise UsageError(f"nothing is left that {options.form} could be told{why}{more}")
    return made


def _access(host: str, settings: Settings, *, trusts: bool = False) -> RegistryAccess:
    """How this machine reaches a registry, which is how nodes are told to. `trusts`: with the certificates
    that are trusted there."""
    from blobflow.settings import host_access, logins_of
    from blobflow.transports.registry import HostSettings
    from blobflow.transports.registry.http.tls import tls_settings_in

    reached = host_access(host, settings, logins_of(settings))
    own, named = settings.hosts.get(host, HostSettings()).trust, tls_settings_in(settings.certs, host)
    files = dict.fromkeys((*own.ca, *settings.ca, *named.ca)) if trusts else ()
    return RegistryAccess(
        plain_http=reached.scheme == "http",
        skip_verify=reached.tls is False,
        ca=b"".join(_certificates_in(file) for file in files),
        asks_for_certificate=bool(own.pairs or settings.pairs or named.pairs),
    )


def _certificates_in(file: Path) -> bytes:
    """The certificates of a PEM file, and nothing else of it."""
    found = _CERTIFICATE.findall(read_named(file, "file of certificates", _MAX_CA))
    if not found:
        raise InvalidConfig(f"{file} has no certificate in PEM form")
    return b"".join(each + b"\n" for each in found)


def write_node_files(made: NodeFiles, options: NodeOptions, *, quiet: bool) -> None:
    """Print the files, or write them below the folder of the options and print where each is; then, to
    stderr, what else is to be done.

    Raises UsageError for a file that is there and that blobflow did not make, before any is written;
    StorageError.
    """
    if options.output is None:
        write_stdout(b"\n".join(each.content for each in made.files), nl=False)
    else:
        files = [*made.files, *made.beside]
        for each in files:
            _check_replaceable(options.output / each.path, each)
        write_files([FileToWrite(options.output / each.path, each.content) for each in files])
        if not quiet:
            print_lines(*(str(options.output / each.path) for each in files))
    if not quiet:
        lines = [f"note: {each}" for each in notes_of(made, options)]
        if lines:
            print_lines(*lines, err=True)


def notes_of(made: NodeFiles, options: NodeOptions) -> Sequence[str]:
    """What else is to be done, a sentence each."""
    if made.beside and options.output is None:
        return (*made.notes, "the certificates that these name are written with them by --output DIR")
    return made.notes


def _check_replaceable(path: Path, file: NodeFile) -> None:
    try:
        if not path.exists():
            return
        there = read_named(path, "file", _MAX_CA)
    except OSError as error:
        raise StorageError(f"can't look at {path}: {error.strerror or error}") from None
    if there != file.content and not there.startswith(f"# {MADE_BY}".encode()):
        raise UsageError(
            f"{path} is there, and not made by blobflow nodes; put both together by hand, or give another"
            " --output"
        )
