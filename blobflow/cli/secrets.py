"""Logins as a user gives them. Nothing here echoes one, and there is always a way that leaves it out of the
process list: a file, the environment, stdin or the terminal."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from blobflow.errors import UsageError
from blobflow.transports.registry.credentials import Credentials


def parse_login(text: str, option: str) -> Credentials:
    """`USER:PASSWORD`, `USER` whose password is asked for on the terminal, or `@FILE` with `USER:PASSWORD`.

    Raises UsageError, which says nothing of what it was given.
    """
    if text.startswith("@"):
        text = _first_line(Path(text[1:]), option)
        if ":" not in text:
            raise UsageError(f"{option}: the file's first line is not USER:PASSWORD")
    username, colon, password = text.partition(":")
    if not username:
        raise UsageError(f"{option} wants USER:PASSWORD, USER, or @FILE with USER:PASSWORD in it")
    if not colon:
        password = ask(
            f"Password of {username}", hidden=True, instead=f"{option} @FILE, with USER:PASSWORD in it"
        )
    return Credentials(username, password)


def ask(question: str, *, hidden: bool, instead: str) -> str:
    """What is typed on the terminal. Raises UsageError where there is none: then give `instead`."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question}: there is no terminal to ask on; give {instead}")
    answer: str = click.prompt(question, hide_input=hidden, err=True)
    return answer


def password_from_stdin() -> str:
    """All of stdin but the line's end. Raises UsageError if nothing is left."""
    password = sys.stdin.read().rstrip("\r\n")
    if not password:
        raise UsageError("--password-stdin: stdin is empty")
    return password


def _first_line(file: Path, option: str) -> str:
    try:
        with file.open() as lines:
            return lines.readline().rstrip("\r\n")
    except OSError as error:
        raise UsageError(f"{option}: can't read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{option}: {file} is not UTF-8") from None
