"""The tables of the configuration file, as types: what they describe is in its JSON schema, too. Pure.

`config_file` reads them, and says what they mean.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from blobflow.engine.policy import Judged

# Above these a number is a typing mistake; `inf` and `nan` are TOML too.
_Count = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
_Rate = Annotated[float, msgspec.Meta(gt=0, le=1e15)]


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class KeyPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A client certificate and its key, as files in PEM form."""

    key: Annotated[str, _described("The key's file.")]
    cert: Annotated[str, _described("The certificate's file.")]


class HostTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is different at one registry. Names of files are relative to this file's folder."""

    http: Annotated[bool | None, _described("Speak http, not https.")] = None
    insecure: Annotated[bool | None, _described("Accept any certificate.")] = None
    ca: Annotated[
        tuple[str, ...], _described("Certificates that are trusted as well, as files in PEM form.")
    ] = ()
    keypair: Annotated[
        tuple[KeyPair, ...], _described("Client certificates to show, each with its key.")
    ] = ()
    mirrors: Annotated[
        tuple[str, ...], _described("HOST[/prefix] of mirrors that are read from first, in this order.")
    ] = ()
    connections: Annotated[
        _Count | None, _described("Blobs that move at once, in place of --concurrency.")
    ] = None
    requests_per_second: Annotated[_Rate | None, _described("Requests a second, at most.")] = None
    bytes_per_second: Annotated[
        _Rate | str | None, _described("Bytes a second, at most, as a number or as '20MB'.")
    ] = None
    profile: Annotated[
        dict[str, Any] | str | None,
        _described("What it takes: the name of a profile, or its fields, as `blobflow probe` finds them."),
    ] = None
    proxy: Annotated[
        str | None, _described("The forward proxy for it, as http://HOST:PORT; empty for none.")
    ] = None
    parallel_ranges: Annotated[bool, _described("Read large blobs by several ranges at once.")] = True


class SignaturesTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What has to be signed, where neither an option nor a spec says it. Names of files are relative to this
    file's folder."""

    policy: Annotated[
        str | None, _described("A signature policy, containers' policy.json, that has to accept each image.")
    ] = None
    trusted_root: Annotated[
        str | None, _described("The roots of sigstore's certificates and logs, a trusted_root.json.")
    ] = None
    policy_for: Annotated[
        Judged,
        _described("What it has to accept: what a tag names, each image below that, or each manifest."),
    ] = "root"


class EngineTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Workers that carry the blobs of runs, where no option says it. Names of files are relative to this
    file's folder."""

    address: Annotated[
        str | None, _described("dask://HOST:PORT, tls://HOST:PORT, local:N, or none, as --engine.")
    ] = None
    ca: Annotated[str | None, _described("The authority that signed the engine's certificates.")] = None
    cert: Annotated[str | None, _described("The certificate to show them.")] = None
    key: Annotated[str | None, _described("Its key.")] = None


class ConfigFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """blobflow's configuration: what is different at some registries, what has to be signed, and who carries
    blobs."""

    registry: Annotated[dict[str, HostTable], _described("A table for each HOST[:PORT].")] = {}
    signatures: Annotated[SignaturesTable, _described("What has to be signed.")] = SignaturesTable()
    engine: Annotated[
        EngineTable | str, _described("Who carries the blobs of runs: a table, or its `address` alone.")
    ] = EngineTable()
