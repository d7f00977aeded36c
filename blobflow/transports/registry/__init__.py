"""The registry transport: OCI distribution-spec 1.1 over aiohttp, as Source and Sink.

    registries    all registries of a run: the entry point     mirrors  Sources asked before a registry
    api/          the endpoints of a repository: manifests, blobs, tags, referrers, deletion
    ranges/       a large blob from a far source, by several requests at once
    uploads/      pushing a blob: what a push does next (state), its methods, its sessions
    capabilities/ what a registry can do: known by its name (profiles), or learned from its answers
    probe/        finding that out by trying
    http/         one host: its client, limiter and back-off, connections, bodies, TLS, proxies, errors
    auth/         who we are there: challenges, tokens, credentials and where they are kept
    origins       where a registry may send us

Rule: imports go down this list and never up: `uploads` imports `http`, and `http` never `uploads`. A
new upload method is a name in `capabilities.profiles` and a row in `uploads.methods`. What a registry is
known to lack is a row of `capabilities.profiles`; what it is found to lack is learned in `capabilities`.
"""

from __future__ import annotations

from blobflow.transports.registry.api.repository import Repository
from blobflow.transports.registry.auth.credential_store import CredentialStore
from blobflow.transports.registry.auth.credentials import (
    AuthContent,
    Credentials,
    DockerConfig,
    find_credentials,
    read_docker_config,
)
from blobflow.transports.registry.capabilities.profiles import Profile
from blobflow.transports.registry.http.host_settings import HostAccess, HostSettings
from blobflow.transports.registry.http.proxies import DIRECT, Proxies
from blobflow.transports.registry.http.tls import ClientCertificate, TlsSettings
from blobflow.transports.registry.registries import Registries

__all__ = [
    "Registries",
    "HostAccess",
    "HostSettings",
    "TlsSettings",
    "ClientCertificate",
    "Proxies",
    "DIRECT",
    "AuthContent",
    "CredentialStore",
    "Credentials",
    "DockerConfig",
    "Profile",
    "Repository",
    "find_credentials",
    "read_docker_config",
]
