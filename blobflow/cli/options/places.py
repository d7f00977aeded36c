"""Places as a user types or pastes them: `HOST[/PREFIX]`, also as a URL, `https://HOST` and `http://HOST`.

A place has no scheme for blobflow; whether a host is spoken to by TLS is a matter of the connection. So the
type `PLACE` cuts the scheme off, and keeps what it said for the connection options of the verb.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import click

_KEY = "blobflow.schemes"  # in click's context, which all commands of an invocation share
_SCHEMES = ("https", "http")


class Schemes(NamedTuple):
    """The hosts that were given with a scheme."""

    http: frozenset[str] = frozenset()
    https: frozenset[str] = frozenset()


class Place(click.types.StringParamType):
    """A place, or an image at one, without its scheme. Both schemes for one host are a mistake."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        scheme, there, rest = text.partition("://")
        if not there or scheme.lower() not in _SCHEMES or ctx is None:
            return text
        if "@" in rest:
            from blobflow.oci.reference import refuse_login

            refuse_login(text)
        host = rest.replace("=", "/").partition("/")[0]  # an upstream is HOST=PREFIX
        said: dict[str, str] = ctx.meta.setdefault(_KEY, {})
        if said.setdefault(host.lower(), scheme.lower()) != scheme.lower():
            self.fail(f"{host} is given as https:// and as http://; give it one of them", param, ctx)
        return rest.rstrip("/")


PLACE = Place()


def schemes_given() -> Schemes:
    """The hosts that had a scheme in the command under way. Raises InvalidReference."""
    context = click.get_current_context(silent=True)
    said: dict[str, str] = context.meta.get(_KEY, {}) if context else {}
    if not said:
        return Schemes()
    from blobflow.oci.reference import check_host

    found = {scheme: {check_host(host) for host, of in said.items() if of == scheme} for scheme in _SCHEMES}
    return Schemes(frozenset(found["http"]), frozenset(found["https"]))
