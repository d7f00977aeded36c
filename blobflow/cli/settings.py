"""How registries are reached from here: the flags and the environment, as settings."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from blobflow.cli.options.connection import ConnectionOptions, Hosts
from blobflow.environment import Login, login_file, settings_from
from blobflow.settings import Settings
from blobflow.variables import Variables

__all__ = ["login_file", "connection_settings"]


def connection_settings(connection: ConnectionOptions, environ: Mapping[str, str], hosts: Hosts) -> Settings:
    """The settings that say how registries are reached; the variables have been read into `connection`.

    Raises UsageError and InvalidConfig for what can't be used, as far as it is known before a host is asked.
    """
    given = Variables(**{name: getattr(connection, name) for name in Variables.__struct_fields__})
    logins = [
        Login(option, side, hosts, login)
        for option, side, hosts, login in (
            ("--source-creds", "source", hosts.sources, connection.source_creds),
            ("--target-creds", "target", hosts.targets, connection.target_creds),
        )
        if login is not None
    ]
    return msgspec.structs.replace(settings_from(environ, given, logins), trace=connection.output.verbose)
