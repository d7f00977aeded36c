"""The command line as reports keep it: what was typed, a word each, without what may be secret."""

from __future__ import annotations

from collections.abc import Sequence

import click

from blobflow.lazy_pattern import LazyPattern

HIDDEN = "***"
_PROGRAM = "blobflow"
_KEY = "blobflow.arguments"  # in click's context, which all commands of an invocation share
# Options, whichever verb has them, whose value may be a secret: `--source-creds`, `--dest-registry-token`.
_SECRET_OPTION = LazyPattern(
    r"--?(.*-)?(creds|credentials?|passw(or)?d|passphrase|token|secret|headers?|api-?key)"
)
# `user:password@` before a host, behind a scheme or without one; behind the `@` of a digest is none.
_DIGEST = r"[a-z0-9+._-]+:[0-9a-f]{32,}"
_URL_LOGIN = LazyPattern(rf"(?<=//)\S*@(?!{_DIGEST})")
_BARE_LOGIN = LazyPattern(rf"^(?P<transport>[a-z0-9+.-]+://)?[^/@\s:]+:[^/\s]*@(?!{_DIGEST})")
# The query and the fragment of a URL: signatures and tokens are there.
_URL_QUERY = LazyPattern(r"(?<=//)([^?#\s]+)([?#])\S+")
# A header that was given in some other way: `Authorization: Bearer …`.
_AUTHORIZATION = LazyPattern(r"(?i)\b((?:proxy-)?authorization\s*[:=]|bearer\s|basic\s).+")


def command_line() -> tuple[str, ...]:
    """The command under way, with `***` where there may be a secret; () where click runs none.

    Hidden are: the values of options that take logins, tokens or headers (a file as `@FILE` is told), user
    and password in front of a host, and the query of a URL.
    """
    context = click.get_current_context(silent=True)
    arguments = context.meta.get(_KEY) if context else None
    return () if arguments is None else (_PROGRAM, *without_secrets(arguments))


def command_text(words: Sequence[str]) -> str:
    """A command line as it is typed, with its secrets hidden."""
    import shlex

    return shlex.join(words).replace(f"'{HIDDEN}'", HIDDEN)


def without_secrets(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments of a command line, with `***` in place of what may be secret."""
    shown: list[str] = []
    is_value = options_over = False
    for word in arguments:
        option, equals, value = word.partition("=")
        if is_value:
            shown.append(_secret(shown[-1], word))
        elif equals and not options_over and _SECRET_OPTION.fullmatch(option):
            shown.append(f"{option}={_secret(option, value)}")
        else:
            shown.append(_plain(word))
        options_over = options_over or (word == "--" and not is_value)
        is_value = not is_value and not options_over and _SECRET_OPTION.fullmatch(word) is not None
    return tuple(shown)


def _secret(option: str, value: str) -> str:
    """A file that has the login may be told; a password may begin with the same mark."""
    is_file = value.startswith("@") and option.endswith("creds")
    return value if is_file else HIDDEN


def _plain(word: str) -> str:
    word = _URL_LOGIN.sub(f"{HIDDEN}@", word)
    word = _BARE_LOGIN.sub(rf"\g<transport>{HIDDEN}@", word)
    word = _URL_QUERY.sub(rf"\1\2{HIDDEN}", word)
    return _AUTHORIZATION.sub(rf"\1 {HIDDEN}", word)
