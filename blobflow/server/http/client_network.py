"""Which clients count as one, where each client has a limit. Pure."""

from __future__ import annotations

from functools import lru_cache

from blobflow.oci.ip_address import client_network, parse_ip


@lru_cache(1024)
def network_of(address: str) -> str:
    """What counts as one address: see `client_network`."""
    found = parse_ip(address)
    return address if found is None else client_network(found)
